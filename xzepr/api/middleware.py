"""What every request passes, in this order: an id, a last answer once the process stops, the Host check, a bound on its
body, a bound on its time."""

import asyncio
import re

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xzepr.api.drain import Drain
from xzepr.api.errors import HostNotAllowed, RequestTooSlow, problem_response
from xzepr.api.hosts import AllowedHosts
from xzepr.core.errors import Problem, TimedOut, TooLarge
from xzepr.core.ids import new_id

_REQUEST_ID = "xzepr.request_id"
# Extensions of a scope, set by the server:
DROP = "xzepr.drop"  # a function that ends the connection at once
UNSENT = "xzepr.unsent"  # a function that returns how many bytes wait for the client to read
_GOOD_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id_of(scope: Scope) -> str:
    """The id of a request, which the log and the answer carry; made now where no middleware made one."""
    return scope.get(_REQUEST_ID) or scope.setdefault(_REQUEST_ID, new_id())


class RequestId:
    """Gives each request an id, the client's `X-Request-ID` if it is a modest one, and sends it back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI request."""
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        offered = Headers(scope=scope).get("x-request-id", "")
        request_id = scope[_REQUEST_ID] = offered if _GOOD_ID.fullmatch(offered) else new_id()

        async def send_with_id(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            return await self._app(scope, receive, send_with_id)


class CloseConnections:
    """Asks clients to connect anew once this process stops: by then, to another one."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start" and self._drain.begun:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        return await self._app(scope, receive, send_last)


class HostCheck:
    """Refuses requests and handshakes whose Host is not ours. Without a Host it was no browser, and may pass."""

    def __init__(self, app: ASGIApp, hosts: AllowedHosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI request."""
        if scope["type"] in ("http", "websocket"):
            named = Headers(scope=scope).getlist("host")
            if len(named) > 1 or not all(self._hosts.allow(name) for name in named):
                return await send_problem(HostNotAllowed(), scope, receive, send)
        return await self._app(scope, receive, send)


class BodyLimit:
    """Refuses bodies beyond `max_bytes`: by their announced length before reading, else while they arrive."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        announced = Headers(scope=scope).get("content-length", "")
        too_large = TooLarge(f"the body is larger than {self._max_bytes} bytes")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            return await send_problem(too_large, scope, receive, send)
        received, started = 0, False

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise too_large
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            return await self._app(scope, bounded, noted)
        except TooLarge as problem:
            if started or problem is not too_large:
                raise
            return await send_problem(problem, scope, receive, send)


class RequestTimeout:
    """Gives up a request whose answer has not begun in time. What has begun, such as a stream, may last."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        whole = False

        async def noted() -> Message:
            nonlocal whole
            message = await receive()
            whole = whole or not message.get("more_body", False)
            return message

        async def unbounded_once_begun(message: Message) -> None:
            limit.reschedule(None)
            await send(message)

        limit = asyncio.timeout(self._seconds)
        try:
            async with limit:
                return await self._app(scope, noted, unbounded_once_begun)
        except TimeoutError:
            if not limit.expired():
                raise
        return await send_problem(self._too_late(whole), scope, receive, send)

    def _too_late(self, whole: bool) -> Problem:
        if not whole:
            return RequestTooSlow(f"the request did not arrive within {self._seconds:g} seconds")
        return TimedOut(f"no answer within {self._seconds:g} seconds; what was asked may or may not have happened")


def drop(scope: Scope) -> bool:
    """Ends a connection at once, with whatever waits to be sent to who does not read. False where a server cannot."""
    if (now := scope.get("extensions", {}).get(DROP)) is None:
        return False
    now()
    return True


async def send_problem(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request, or a handshake that is not yet accepted, with a problem."""
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": problem.code})
    else:
        # Starlette names the messages for a handshake itself.
        await problem_response(problem)(scope, receive, send)
