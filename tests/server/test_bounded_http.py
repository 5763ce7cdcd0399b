"""Bounds of request heads, and what follows a declined upgrade, on a fake transport."""

import asyncio

import orjson
import pytest
from starlette.types import Receive, Scope, Send

from tests.support.asgi_messages import body, length, responding, start
from tests.support.fake_transport import FakeTransport
from tests.support.http_connection import connection, ended, response_to
from tests.support.hub import until
from xzepr.server.bounded_http import MAX_HEAD_BYTES, MAX_HEADERS
from xzepr.server.uvicorn_http import HttpProtocol

OK = responding(start(200, length(2)), body(b"ok"))
HOST = b"Host: hub\r\n"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Responds with the method, the path and the whole body of the request."""
    received, more = b"", True
    while more:
        message = await receive()
        assert message["type"] == "http.request", message
        received, more = received + message["body"], message["more_body"]
    text = f"<{scope['method']} {scope['path']} ".encode() + received + b">"
    await responding(start(200, length(len(text))), body(text))(scope, receive, send)


def refusal(transport: FakeTransport) -> tuple[int, str]:
    """Returns the status and the code of an error, which must be the only response and end the connection."""
    head, _, content = bytes(transport.written).partition(b"\r\n\r\n")
    assert head.count(b"HTTP/1.1 ") == 1, transport.written
    assert b"\r\nconnection: close" in head.lower()
    assert transport.ended
    assert not transport.reads, "nothing more is read"
    return int(head.split()[1]), orjson.loads(content)["errors"][0]["extensions"]["code"]


async def refused(*parts: bytes) -> tuple[int, str]:
    """Sends the parts of a request that must not reach the application."""

    async def never(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("the application was called")

    protocol, transport = connection(never)
    for part in parts:
        protocol.data_received(part)
    await ended(protocol)
    return refusal(transport)


def request(*lines: bytes, target: bytes = b"/") -> bytes:
    """Returns the head of a GET request with these header lines."""
    return b"GET " + target + b" HTTP/1.1\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


async def test_largest_head_is_accepted() -> None:
    many = [b"x%d: y" % number for number in range(MAX_HEADERS - 1)]
    assert b" 200 OK" in (await response_to(request(b"Host: hub", *many), OK)).written
    fill = MAX_HEAD_BYTES - len(request(b"Host: hub", b"x: "))
    assert b" 200 OK" in (await response_to(request(b"Host: hub", b"x: " + b"y" * fill), OK)).written


@pytest.mark.parametrize("step", [1000, 65_536, 1_000_000])
@pytest.mark.parametrize(
    ("text", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: hub\r\nx: " + b"y" * 1_000_000, 431, "HEAD_TOO_LARGE"),
        (b"GET / HTTP/1.1\r\nHost: hub\r\n" + b"x" * 1_000_000, 431, "HEAD_TOO_LARGE"),
        (b"GET /" + b"y" * 1_000_000, 414, "URI_TOO_LONG"),
        (request(*[b"x: y"] * 5000), 431, "HEAD_TOO_LARGE"),
    ],
    ids=["value", "name", "address", "many"],
)
async def test_endless_head_is_refused(text: bytes, status: int, code: str, step: int) -> None:
    parts = [text[at : at + step] for at in range(0, len(text), step)]
    assert await refused(*parts) == (status, code)


async def test_head_after_a_response_is_bounded_too() -> None:
    protocol, transport = connection(OK)
    protocol.data_received(request(b"Host: hub"))
    await ended(protocol)
    transport.written.clear()
    for part in (b"GET /", b"y" * 40_000, b"y" * 40_000):
        protocol.data_received(part)
    assert refusal(transport) == (414, "URI_TOO_LONG")


@pytest.mark.parametrize("piece", [b"x: y\r\n", b"0;" + b"e" * 100], ids=["trailers", "chunk extension"])
async def test_endless_framing_of_a_body_is_refused(piece: bytes) -> None:
    protocol, transport = connection(echo)
    protocol.data_received(b"POST / HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n\r\n")
    if piece.startswith(b"x"):
        protocol.data_received(b"0\r\n")
    for _ in range(MAX_HEAD_BYTES // len(piece) + 2):
        protocol.data_received(piece)
    assert not transport.reads
    for task in list(protocol.tasks):
        task.cancel()


async def test_body_in_chunks_of_one_byte_is_read() -> None:
    protocol, transport = connection(echo)
    protocol.data_received(b"POST / HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(20):
        protocol.data_received(b"1\r\nx\r\n" * 1000)
    protocol.data_received(b"0\r\ntrailer: is dropped\r\n\r\n")
    await ended(protocol)
    assert transport.written.endswith(b"<POST / " + b"x" * 20_000 + b">")


@pytest.mark.parametrize(
    ("lines", "status", "code"),
    [
        ((b"Accept: */*",), 400, "BAD_REQUEST"),
        ((b"Host: hub", b"Host: hub"), 400, "BAD_REQUEST"),
        ((b"Host: hub", b"Transfer-Encoding: gzip, chunked"), 501, "UNKNOWN_TRANSFER_CODING"),
        ((b"Host: hub", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400, "BAD_REQUEST"),
        ((b"Host: hub", b"Transfer-Encoding: chunked", b"Content-Length: 3"), 400, "BAD_REQUEST"),
        ((b"Host: hub", b"no colon"), 400, "BAD_REQUEST"),
        ((b"Host: hub", b"x: a\x00b"), 400, "BAD_REQUEST"),
    ],
)
async def test_ambiguous_head_is_refused(lines: tuple[bytes, ...], status: int, code: str) -> None:
    assert await refused(request(*lines)) == (status, code)


async def test_http_1_0_needs_no_host() -> None:
    transport = await response_to(
        b"GET / HTTP/1.0\r\n\r\n", responding(start(), body(b"a", more_body=True), body(b"b"))
    )
    assert transport.written == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nab"
    assert transport.closed


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket", b"TLS/1.0, HTTP/2.0"])
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    ("framing", "sent"),
    [(b"Content-Length: 5", b"hello"), (b"Transfer-Encoding: chunked", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")],
    ids=["length", "chunks"],
)
async def test_declined_upgrade_keeps_the_body(upgrade: bytes, together: bool, framing: bytes, sent: bytes) -> None:
    first = b"POST /a HTTP/1.1\r\n" + HOST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + upgrade + b"\r\n"
    first += b"HTTP2-Settings: AAMAAABk\r\n" + framing + b"\r\n\r\n"
    protocol, transport = connection(echo)
    following = b"GET /b HTTP/1.1\r\n" + HOST + b"\r\n"
    for part in [first + sent + following] if together else [first, sent, following]:
        protocol.data_received(part)
        await asyncio.sleep(0)
    await ended(protocol)
    assert transport.written.split(b"<")[1].startswith(b"POST /a hello>")
    assert transport.written.split(b"<")[2].startswith(b"GET /b >")


async def test_body_of_a_declined_upgrade_is_no_request() -> None:
    smuggled = b"GET /secret HTTP/1.1\r\n" + HOST + b"\r\n"
    head = b"POST /a HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
    protocol, transport = connection(echo)
    protocol.data_received(head + b"Content-Length: %d\r\n\r\n" % len(smuggled))
    protocol.data_received(smuggled)
    await ended(protocol)
    assert transport.written.count(b"HTTP/1.1 200") == 1
    assert b"<POST /a GET /secret" in transport.written


async def test_nothing_after_connect_is_read() -> None:
    protocol, transport = connection(OK)
    protocol.data_received(b"CONNECT hub:443 HTTP/1.1\r\n" + HOST + b"\r\n" + request(b"Host: hub"))
    await ended(protocol)
    assert transport.written.count(b"HTTP/1.1 ") == 1
    assert transport.closed or transport.ended


@pytest.mark.parametrize(
    ("parts", "status"),
    [((), b""), ((b"GET / HTTP/1.1\r\nHo",), b" 408 "), ((b"GET", b" / HTTP/1.1\r\n", b"x: y\r\n"), b" 408 ")],
    ids=["silent", "half a head", "slow"],
)
async def test_head_that_takes_too_long_ends_the_connection(parts: tuple[bytes, ...], status: bytes) -> None:
    protocol, transport = connection(OK, protocol_class=HttpProtocol.with_head_seconds(0.05))
    for part in parts:
        protocol.data_received(part)
    await until(lambda: transport.closed or transport.ended)
    assert status in transport.written
    assert bool(transport.written) == bool(parts)


async def test_next_head_has_its_own_time() -> None:
    protocol, transport = connection(OK, protocol_class=HttpProtocol.with_head_seconds(0.05))
    protocol.data_received(request(b"Host: hub"))
    await ended(protocol)
    await asyncio.sleep(0.1)
    assert not transport.closed
    assert not transport.ended
    protocol.data_received(b"GET / HTT")
    await until(lambda: transport.ended)
    assert transport.written.count(b" 408 ") == 1


async def test_error_waits_for_an_earlier_response() -> None:
    release = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await release.wait()
        await OK(scope, receive, send)

    protocol, transport = connection(slow)
    protocol.data_received(request(b"Host: hub") + b"nonsense\r\n\r\n")
    assert not transport.written
    release.set()
    await ended(protocol)
    assert transport.written.startswith(b"HTTP/1.1 200 OK\r\n")
    assert transport.written.count(b"HTTP/1.1 ") == 1
    assert transport.closed


WEBSOCKET = (b"Connection: upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: x", b"Sec-WebSocket-Version: 13")
H2C = b"POST / HTTP/1.1\r\n" + HOST + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (request(b"Host: hub", b"Host: hub", *WEBSOCKET), 400),
        (request(b"Host: hub", *[b"x: y"] * 200, *WEBSOCKET), 431),
        (request() + H2C, 400),
        (H2C.replace(HOST, HOST + HOST), 400),
    ],
    ids=["WebSocket", "many", "before an upgrade", "upgrade"],
)
async def test_refused_request_is_not_upgraded(text: bytes, status: int) -> None:
    assert (await refused(text))[0] == status


class Slow:
    """An application whose responses wait for `release`."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.disconnected = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the response, or counts a client that is gone."""
        await self.release.wait()
        while scope["path"] == "/body" and (message := await receive())["type"] == "http.request":
            if not message["more_body"]:
                break
        else:
            self.disconnected += scope["path"] == "/body"
        await OK(scope, receive, send)


async def test_broken_body_behind_a_response_ends_after_it() -> None:
    app = Slow()
    protocol, transport = connection(app)
    chunked = b"POST /body HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n"
    protocol.data_received(request(b"Host: hub") + chunked)
    assert not transport.written
    app.release.set()
    await ended(protocol)
    assert transport.written.count(b"HTTP/1.1 ") == 1
    assert b"200 OK" in transport.written
    assert transport.closed


async def test_websocket_behind_a_response_is_refused() -> None:
    app = Slow()
    protocol, transport = connection(app)
    protocol.data_received(request(b"Host: hub") + request(b"Host: hub", *WEBSOCKET))
    app.release.set()
    await ended(protocol)
    assert b"101" not in transport.written
    assert transport.written.count(b"HTTP/1.1 ") == 1
    assert transport.closed


async def test_lost_connection_tells_every_request() -> None:
    gone = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal gone
        await receive()
        gone += (await receive())["type"] == "http.disconnect"

    protocol, _ = connection(app)
    protocol.data_received(request(b"Host: hub") + request(b"Host: hub"))
    await asyncio.sleep(0)
    protocol.connection_lost(None)
    await asyncio.wait_for(ended(protocol), 10)
    assert gone == 1, "the second request had not been started"


async def test_empty_lines_between_requests_start_no_time() -> None:
    protocol, transport = connection(OK, protocol_class=HttpProtocol.with_head_seconds(0.05))
    protocol.data_received(request(b"Host: hub"))
    await ended(protocol)
    protocol.data_received(b"\r\n")
    await asyncio.sleep(0.1)
    assert transport.written.count(b"HTTP/1.1 ") == 1
    first, last = request(b"Host: hub")[:-2], b"\r\n"
    protocol.data_received(b"\r\n" + first)
    protocol.data_received(last)
    await ended(protocol)
    assert transport.written.count(b" 200 OK") == 2
    half = request(b"Host: hub")
    protocol.data_received(half + half[:-2])  # the second head begins in the bytes of the first
    protocol.data_received(b"\r\n")
    await ended(protocol)
    assert transport.written.count(b" 200 OK") == 4
