"""The limits of the shell: the size of bodies, and the time until a response begins."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.api.shell_calls import Counts, responses, shell_of
from tests.support.requests import in_process_client
from xzepr.app import create_app
from xzepr.core.errors import TooLarge


async def never(_: Scope, receive: Receive, send: Send) -> None:
    """Reads the request and never responds."""
    await receive()
    await asyncio.Event().wait()


def client_of(asgi: ASGIApp) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(asgi), base_url="http://hub")


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Responds with the body of the request."""
    await PlainTextResponse(await Request(scope, receive).body())(scope, receive, send)


async def chunks(*parts: bytes) -> AsyncGenerator[bytes]:
    for part in parts:
        yield part


async def test_many_requests_set_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    call_later, delays = loop.call_later, list[float]()

    def counted(delay: float, *arguments: Any) -> asyncio.TimerHandle:
        delays.append(delay)
        return call_later(delay, *arguments)

    async with client_of(shell_of(echo, seconds=1234)) as client:
        monkeypatch.setattr(loop, "call_later", counted)
        await asyncio.gather(*(client.post("/", content=b"x") for _ in range(50)))
        assert (await client.post("/", content=b"last")).text == "last"
    assert delays.count(1234) == 1


async def test_response_that_has_begun_may_last() -> None:
    late = asyncio.Event()

    async def slow_stream(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/never":
            return await never(scope, receive, send)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun, ", "more_body": True})
        await late.wait()
        await send({"type": "http.response.body", "body": b"ended"})
        return None

    async with client_of(shell_of(slow_stream, seconds=0.05)) as client:
        begun = asyncio.create_task(client.get("/stream"))
        assert (await client.get("/never")).status_code == 504
        late.set()
        assert (await begun).text == "begun, ended"


@pytest.mark.parametrize(("content", "status"), [(b"x" * 10, 200), (b"x" * 11, 413)])
async def test_body_up_to_the_limit_is_accepted(content: bytes, status: int) -> None:
    counts = Counts()
    async with client_of(shell_of(echo, counts)) as client:
        for sent in (
            content,
            chunks(content),
            chunks(content[:5], content[5:]),
            chunks(*(bytes([b]) for b in content)),
        ):
            response = await client.post("/", content=sent)
            assert response.status_code == status
            assert ("TOO_LARGE" in response.text) is (status == 413)
    assert counts.finished == [("none", status)] * 4


async def test_body_over_the_limit_after_the_response_began_fails() -> None:
    async def early(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await Request(scope, receive).body()

    counts = Counts()
    async with client_of(shell_of(early, counts)) as client:
        with pytest.raises(TooLarge):
            await client.post("/", content=chunks(b"x" * 11))
    assert counts.finished == [("none", 200)]


@pytest.mark.parametrize(
    ("length", "status"), [("10", 200), ("0010", 200), ("0" * 5000, 200), ("11", 413), ("9" * 5000, 413), ("x", 200)]
)
async def test_length_is_checked_before_the_body_is_read(length: str, status: int) -> None:
    messages = await responses(shell_of(PlainTextResponse("ok")), (b"content-length", length.encode()))
    assert messages[0]["status"] == status


async def test_cancelled_request_is_not_answered() -> None:
    counts = Counts()
    request = asyncio.create_task(responses(shell_of(never, counts)))
    await asyncio.sleep(0)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert counts.finished == [("none", 500)]


async def test_cancelled_request_that_is_also_late_stays_cancelled() -> None:
    async def cancelled_again(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await never(scope, receive, send)
        finally:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()  # by the client, while the timer's cancellation unwinds
            await asyncio.sleep(0)

    request = asyncio.create_task(responses(shell_of(cancelled_again, seconds=0.01)))
    with pytest.raises(asyncio.CancelledError):
        await request


async def test_late_request_leaves_its_task_uncancelled() -> None:
    messages = await responses(shell_of(never, seconds=0.01))
    task = asyncio.current_task()
    assert task is not None
    assert (messages[0]["status"], task.cancelling()) == (504, 0)


async def test_problem_of_a_route_has_its_status(database_url: str) -> None:
    async def read(request: Request) -> PlainTextResponse:
        return PlainTextResponse(await request.body())

    async with in_process_client(database_url) as client:
        shell = create_app(client.hub)
        cast(list[BaseRoute], shell.routes).append(Route("/read", read, methods=["POST"]))
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(shell), base_url="http://localhost") as http:
            tenth = b"x" * (client.hub.settings.server.max_request_bytes // 10)
            assert (await http.post("/read", content=chunks(*[tenth] * 10))).status_code == 200
            response = await http.post("/read", content=chunks(*[tenth] * 11))
            assert (response.status_code, response.headers["connection"]) == (413, "close")
            assert "TOO_LARGE" in response.text
