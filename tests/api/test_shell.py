"""The shell on a real server: request ids, allowed hosts, size limits and timeouts."""

import asyncio
from typing import Any

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from tests.api.graphql_server.small_schema import FakeBackend, app, served
from tests.api.shell_calls import Counts, responses, shell_of
from xzepr.api.drain import Drain
from xzepr.api.request_head import request_id_of
from xzepr.api.shell import Concerns, Shell
from xzepr.infra.telemetry.logs import REQUEST_ID


async def raw(port: int, text: str) -> str:
    """Sends the text and returns the response, up to the end of its body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text.encode())
    await writer.drain()
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return (head + await reader.readexactly(length)).decode()
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("host", "status"),
    [("Host: hub:1", 405), ("Host: rebound.example.org", 421), ("Host: 127.0.0.1", 405), ("X: y", 405)],
)
async def test_request_for_other_host_is_rejected(host: str, status: int) -> None:
    async with served(app(FakeBackend())) as port:
        response = await raw(port, f"PUT / HTTP/1.0\r\n{host}\r\n\r\n")
    assert f" {status} " in response.splitlines()[0]
    assert ("HOST_NOT_ALLOWED" in response) is (status == 421)


async def test_duplicate_host_header_is_rejected() -> None:
    async with served(app(FakeBackend())) as port:
        response = await raw(port, "PUT / HTTP/1.1\r\nHost: hub\r\nHost: hub\r\n\r\n")
    assert response.splitlines()[0].split()[1] in ("400", "421")


@pytest.mark.parametrize(
    ("offered", "kept"), [("abc-1._X", True), ("a" * 65, False), ("", False), ("a b", False), ("x;y", False)]
)
async def test_unusable_request_id_is_replaced(offered: str, kept: bool) -> None:
    transport = httpx2.ASGITransport(app(FakeBackend()))
    async with httpx2.AsyncClient(transport=transport, base_url="http://hub") as client:
        request_id = (await client.put("/", headers={"X-Request-ID": offered})).headers["x-request-id"]
    assert (request_id == offered) is kept
    assert kept or len(request_id) == 26


async def test_slow_request_body_gets_408() -> None:
    async with served(app(FakeBackend(), timeout_seconds=0.1)) as port:
        response = await raw(
            port,
            "POST / HTTP/1.1\r\nHost: hub\r\nX-API-Key: good\r\n"
            "Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
        )
    assert "408" in response.splitlines()[0]
    assert "REQUEST_TIMEOUT" in response
    assert "connection: close" in response.lower()


async def test_slow_response_gets_504() -> None:
    async with (
        served(app(FakeBackend(), timeout_seconds=1)) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": "good"}) as client,
    ):
        response = await client.post("/", json={"query": "{ never }"})
    assert response.status_code == 504
    assert response.json()["errors"][0]["extensions"]["code"] == "TIMEOUT"


async def request_failing_app(error: Exception) -> None:
    """Sends a request to an application that raises the error after its response."""

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("begun")(scope, receive, send)
        raise error

    shell = Shell(broken, Concerns(), max_bytes=5, timeout_seconds=5)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(shell), base_url="http://hub") as client:
        await client.post("/", content=b"x")


async def test_application_errors_pass_through_the_shell() -> None:
    with pytest.raises(TimeoutError, match="from the application"):
        await request_failing_app(TimeoutError("from the application"))
    with pytest.raises(ValueError, match="from the application"):
        await request_failing_app(ValueError("from the application"))


async def test_request_id_is_stable_without_shell() -> None:
    request = Request({"type": "http", "headers": []})
    assert request_id_of(request.scope) == request_id_of(request.scope)


async def test_draining_process_closes_connections() -> None:
    drain = Drain()
    app = shell_of(PlainTextResponse("ok", headers={"Connection": "keep-alive"}), decorate=[drain.close_connection])
    assert (b"connection", b"keep-alive") in (await responses(app))[0]["headers"]
    drain.begin()
    headers = (await responses(app))[0]["headers"]
    assert [value for name, value in headers if name == b"connection"] == [b"close"]


@pytest.mark.parametrize(
    ("headers", "is_allowed"),
    [
        ((), True),
        (((b"host", b"hub"),), True),
        (((b"host", b"hub"), (b"host", b"hub")), False),
        (((b"host", b"hub"), (b"host", b"other")), False),
        (((b"host", b"other"), (b"x-request-id", b"a"), (b"x-request-id", b"b")), False),
        (((b"host", b"hub"), (b"x-request-id", b"a"), (b"x-request-id", b"b")), True),
    ],
)
async def test_host_is_checked_once_for_any_request(headers: Any, is_allowed: bool) -> None:
    async def accept(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})

    counts = Counts()
    ok = PlainTextResponse("ok")
    app = shell_of(PlainTextResponse("other"), counts, http={"/known": ok}, websockets={"/known": accept})
    answer = (await responses(app, *headers))[0]
    assert answer["status"] == (200 if is_allowed else 421)
    assert counts.finished == [("/known", 200) if is_allowed else ("none", 421)]
    handshake = (await responses(app, *headers, kind="websocket"))[0]
    if is_allowed:
        assert handshake["type"] == "websocket.accept"
        assert [len(value) for name, value in handshake["headers"] if name == b"x-request-id"] != []
    else:
        assert handshake == {"type": "websocket.close", "code": 1008, "reason": "HOST_NOT_ALLOWED"}
    assert len(counts.finished) == 1, "handshakes are not counted"


async def test_tasks_of_a_request_keep_its_id_for_the_log() -> None:
    ids: list[str | None] = []

    async def survivor() -> None:
        await asyncio.sleep(0)
        ids.append(REQUEST_ID.get())

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        ids.append(REQUEST_ID.get())
        tasks.append(asyncio.create_task(survivor()))
        if scope["type"] == "http":
            await PlainTextResponse("ok")(scope, receive, send)

    tasks: list[asyncio.Task[None]] = []
    shell = shell_of(app)
    for kind in ("http", "websocket"):
        await responses(shell, (b"x-request-id", b"abc"), kind=kind)
        assert REQUEST_ID.get() is None, "the id does not outlive the request"
    await asyncio.gather(*tasks)
    assert ids == ["abc"] * 4
