"""The hub's changes to uvicorn's HTTP protocol, on a fake transport."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from tests.support.asgi_messages import body, length, responding, start
from tests.support.http_connection import connection, ended, response_to
from tests.support.hub import until
from xzepr.api.client_connection import DROP, UNSENT
from xzepr.server import uvicorn_http

GET = b"GET /a%20b?x=%31 HTTP/1.1\r\nHost: hub\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: hub\r\nContent-Length: 5\r\n\r\n"
TEXT = (b"content-type", b"text/plain")


async def test_head_and_body_are_written_at_once() -> None:
    for _ in range(2):  # the second time with lines that are kept
        transport = await response_to(GET, responding(start(200, TEXT, length(2)), body(b"ok")))
        assert transport.written == b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok"
        assert (transport.writes, transport.closed) == (1, False)


async def test_large_body_follows_its_head() -> None:
    large = b"x" * 1_000_000
    transport = await response_to(GET, responding(start(200, length(len(large))), body(large)))
    assert transport.written == b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + large


async def test_scope_has_the_url_and_the_extensions() -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await responding(start(204), body(b""))(scope, receive, send)

    protocol, transport = connection(app)
    for request in (GET, b"OPTIONS /%C3%A4 HTTP/1.1\r\nHost: h\r\n\r\n", b"GET /%C3%A4 HTTP/1.0\r\n\r\n"):
        protocol.data_received(request)
        await ended(protocol)
    names = ("method", "path", "raw_path", "query_string", "http_version")
    assert [tuple(scope[name] for name in names) for scope in scopes] == [
        ("GET", "/a b", b"/a%20b", b"x=%31", "1.1"),
        ("OPTIONS", "/ä", b"/%C3%A4", b"", "1.1"),
        ("GET", "/ä", b"/%C3%A4", b"", "1.0"),
    ]
    assert [scope["extensions"][UNSENT]() for scope in scopes] == [len(transport.written)] * 3
    scopes[0]["extensions"][DROP]()
    assert transport.aborted


async def test_response_to_head_has_no_body() -> None:
    request = b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n"
    transport = await response_to(request, responding(start(200, length(2)), body(b"o", more_body=True), body(b"k")))
    assert transport.written == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
    transport = await response_to(request, responding(start(), body(b"ok")))
    assert transport.written == b"HTTP/1.1 200 OK\r\n\r\n"
    assert not transport.closed


@pytest.mark.parametrize("status", [204, 304])
async def test_response_without_content_is_not_chunked(status: int) -> None:
    transport = await response_to(GET, responding(start(status), body(b"")))
    assert transport.written.endswith(b"\r\n\r\n")
    assert b"transfer-encoding" not in transport.written


async def test_stream_is_chunked_and_its_head_comes_first() -> None:
    may_continue = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"", more_body=True))
        await may_continue.wait()
        await send(body(b"x" * 17, more_body=True))
        await send(body(b"", more_body=True))
        await send(body(b"end"))

    protocol, transport = connection(app)
    protocol.data_received(GET)
    while not transport.written:
        await asyncio.sleep(0)
    assert bytes(transport.written) == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    transport.written.clear()
    may_continue.set()
    await ended(protocol)
    assert transport.written == b"11\r\n" + b"x" * 17 + b"\r\n3\r\nend\r\n0\r\n\r\n"


async def test_declared_chunked_encoding_is_kept() -> None:
    chunked = (b"transfer-encoding", b"Chunked")
    transport = await response_to(GET, responding(start(200, chunked), body(b"ok")))
    assert transport.written == b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        (responding(start(200, length(2)), error=ValueError("broken")), "broken"),
        (responding(start(200, length(2)), body(b"too long")), "longer"),
        (responding(start(200, (b"x-name", b"a\r\nb"))), "invalid HTTP header"),
        (responding(start(200, (b"X-Name", b"a"))), "invalid HTTP header"),
        (responding(body(b"first")), "unexpected ASGI message"),
        (responding(start(200, length(2))), "without starting response"),
        (responding(), "without starting response"),
    ],
)
async def test_failure_before_the_body_is_a_500(app: ASGIApp, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        transport = await response_to(GET, app)
    assert transport.written.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert transport.written.endswith(b"connection: close\r\n\r\nInternal Server Error")
    assert transport.closed
    assert reason in caplog.text


@pytest.mark.parametrize(
    "app",
    [
        responding(start(200, length(9)), body(b"begun", more_body=True), error=ValueError("broken")),
        responding(start(200, length(9)), body(b"begun")),
        responding(start(200, length(9)), body(b"begun", more_body=True)),
        responding(start(200, length(9)), body(b"begun", more_body=True), start(201)),
    ],
)
async def test_failure_within_the_body_closes_the_connection(app: ASGIApp) -> None:
    transport = await response_to(GET, app)
    assert transport.written == b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbegun"
    assert transport.closed


async def test_message_after_the_response_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        transport = await response_to(GET, responding(start(200, length(2)), body(b"ok"), body(b"more")))
    assert transport.written.endswith(b"\r\n\r\nok")
    assert "unexpected ASGI message" in caplog.text


@pytest.mark.parametrize(
    ("request_head", "headers", "closes"),
    [
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", (), False),
        (b"GET / HTTP/1.0\r\n\r\n", (), True),
        (b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", (), True),
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", ((b"connection", b"Close"),), True),
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", ((b"connection", b"keep-alive"),), False),
    ],
)
async def test_connection_is_closed_when_one_side_says_so(
    request_head: bytes, headers: tuple[tuple[bytes, bytes], ...], closes: bool
) -> None:
    transport = await response_to(request_head, responding(start(200, length(2), *headers), body(b"ok")))
    assert transport.closed is closes
    assert transport.written.lower().count(b"connection: close") == closes


async def test_pipelined_requests_are_answered_in_order() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)
        name = scope["path"].encode()
        await responding(start(200, length(len(name))), body(name))(scope, receive, send)

    protocol, transport = connection(app)
    protocol.data_received(
        b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\nGET /3 HTTP/1.1\r\nHost: h\r\n\r\n"
    )
    assert not transport.reads, "a client that pipelines has to wait"
    await ended(protocol)
    assert [part[-2:] for part in transport.written.split(b"HTTP/1.1")[1:]] == [b"/1", b"/2", b"/3"]
    assert transport.reads


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Responds with the body of the request."""
    received = b""
    while (message := await receive()).get("more_body", False):
        received += message["body"]
    received += message["body"]
    await responding(start(200, length(len(received))), body(received))(scope, receive, send)


@pytest.mark.parametrize("pieces", [[POST + b"hello"], [POST, b"hello"], [POST + b"he", b"l", b"lo"]])
async def test_body_arrives_in_any_pieces(pieces: list[bytes]) -> None:
    protocol, transport = connection(echo)
    for piece in pieces:
        protocol.data_received(piece)
        await asyncio.sleep(0)
    await ended(protocol)
    assert transport.written.endswith(b"\r\n\r\nhello")


async def test_100_continue_is_sent_when_the_body_is_read() -> None:
    request = POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    protocol, transport = connection(echo)
    protocol.data_received(request)
    while not transport.written:
        await asyncio.sleep(0)
    assert transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    protocol.data_received(b"hello")
    await ended(protocol)
    assert transport.written.endswith(b"\r\n\r\nhello")
    transport = await response_to(request, responding(start(413, length(2)), body(b"no")))
    assert transport.written.startswith(b"HTTP/1.1 413 "), "no 100 before a rejection"


async def waits(call: Callable[[], Awaitable[None]]) -> "asyncio.Task[None]":
    """Starts a call that has to wait. Returns its task."""
    task = asyncio.ensure_future(call())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_send_waits_while_the_client_does_not_read() -> None:
    protocol, transport = connection(responding(start(200, length(2)), body(b"ok")))
    protocol.pause_writing()
    protocol.data_received(GET)
    waiting = await waits(lambda: ended(protocol))
    assert not transport.written
    protocol.resume_writing()
    await waiting
    assert transport.written.endswith(b"ok")


async def test_client_that_is_gone_gets_nothing() -> None:
    received = asyncio.get_running_loop().create_future()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, length(2)))
        await receive()
        received.set_result(await receive())
        await send(body(b"ok"))

    protocol, transport = connection(app)
    protocol.data_received(GET)
    await waits(lambda: ended(protocol))
    protocol.connection_lost(None)
    await ended(protocol)
    assert await received == {"type": "http.disconnect"}
    assert not transport.written


async def test_idle_connection_is_closed_in_time() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            await receive()
        await responding(start(204), body(b""))(scope, receive, send)

    state = ServerState()
    idle, busy = connection(app, state), connection(app, state)
    for protocol, _ in (idle, busy):
        protocol.data_received(GET)
        await ended(protocol)
    busy[0].data_received(POST)
    await until(lambda: idle[1].closed)
    assert not busy[1].closed
    busy[0].data_received(b"hello")
    await until(lambda: busy[1].closed)


async def test_kept_header_lines_are_bounded() -> None:
    for number in range(1100):
        await response_to(GET, responding(start(200, (b"content-type", b"text/%d" % number)), body(b"")))
    transport = await response_to(GET, responding(start(200, TEXT, length(0)), body(b"")))
    assert transport.written == b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 0\r\n\r\n"
    assert 0 < len(vars(uvicorn_http)["_lines"]) <= 1000
