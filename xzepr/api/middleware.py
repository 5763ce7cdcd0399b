"""The middleware of every request, in this order: request id, connection close while draining, Host check, body limit,
time limit."""

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

_REQUEST_ID_KEY = "xzepr.request_id"
# Extensions of an ASGI scope, set by the server:
DROP = "xzepr.drop"  # a function that ends the connection at once
UNSENT = "xzepr.unsent"  # a function that returns how many bytes wait for the client to read
_REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id_of(scope: Scope) -> str:
    """Returns the id of a request, as in the log and the response; creates one if no middleware did."""
    return scope.get(_REQUEST_ID_KEY) or scope.setdefault(_REQUEST_ID_KEY, new_id())


class RequestId:
    """Gives each request an id and returns it in `X-Request-ID`. A valid `X-Request-ID` of the client is kept."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI request."""
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        requested_id = Headers(scope=scope).get("x-request-id", "")
        request_id = scope[_REQUEST_ID_KEY] = requested_id if _REQUEST_ID_PATTERN.fullmatch(requested_id) else new_id()

        async def send_with_id(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            return await self._app(scope, receive, send_with_id)


class CloseConnections:
    """Sends `Connection: close` while this process shuts down, so that clients connect to another one."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_with_close(message: Message) -> None:
            if message["type"] == "http.response.start" and self._drain.begun:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        return await self._app(scope, receive, send_with_close)


class HostCheck:
    """Rejects requests and handshakes whose Host is not allowed.

    Requests without a Host header do not come from a browser and are allowed.
    """

    def __init__(self, app: ASGIApp, hosts: AllowedHosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI request."""
        if scope["type"] in ("http", "websocket"):
            host_headers = Headers(scope=scope).getlist("host")
            if len(host_headers) > 1 or not all(self._hosts.allow(name) for name in host_headers):
                return await send_problem(HostNotAllowed(), scope, receive, send)
        return await self._app(scope, receive, send)


class BodyLimit:
    """Rejects bodies larger than `max_bytes`: by `Content-Length` before reading, otherwise while reading."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        declared_length = Headers(scope=scope).get("content-length", "")
        too_large = TooLarge(f"the body is larger than {self._max_bytes} bytes")
        if declared_length.isdecimal() and int(declared_length) > self._max_bytes:
            return await send_problem(too_large, scope, receive, send)
        received, started = 0, False

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise too_large
            return message

        async def send_and_note_start(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            return await self._app(scope, receive_limited, send_and_note_start)
        except TooLarge as problem:
            if started or problem is not too_large:
                raise
            return await send_problem(problem, scope, receive, send)


class RequestTimeout:
    """Cancels a request whose response has not begun in time. A response that has begun, such as a stream, may last."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        complete = False

        async def receive_and_note_end() -> Message:
            nonlocal complete
            message = await receive()
            complete = complete or not message.get("more_body", False)
            return message

        async def send_without_timeout(message: Message) -> None:
            limit.reschedule(None)
            await send(message)

        limit = asyncio.timeout(self._seconds)
        try:
            async with limit:
                return await self._app(scope, receive_and_note_end, send_without_timeout)
        except TimeoutError:
            if not limit.expired():
                raise
        return await send_problem(self._problem(complete), scope, receive, send)

    def _problem(self, complete: bool) -> Problem:
        if not complete:
            return RequestTooSlow(f"the complete request did not arrive within {self._seconds:g} seconds")
        return TimedOut(f"no result within {self._seconds:g} seconds; the operation may or may not have taken effect")


def drop(scope: Scope) -> bool:
    """Ends a connection at once and discards unsent data. Returns False if the server does not support it."""
    if (drop_connection := scope.get("extensions", {}).get(DROP)) is None:
        return False
    drop_connection()
    return True


async def send_problem(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """Responds with a problem to a request, or to a handshake that is not yet accepted."""
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": problem.code})
    else:
        # For a handshake, Starlette renames the ASGI messages itself.
        await problem_response(problem)(scope, receive, send)
