"""The only layer around the applications: it identifies, checks, limits, times and counts requests.

For each request, in this order:

1. Its head is read once. It has the request's id, which all log lines of the request get.
2. The `checks` look at the head. The first problem is the response.
3. The application of its path runs: one of `http` or `websockets`, which are found without matching routes, or `app`.
   The body is limited to `max_bytes`, and the response must begin in `timeout_seconds`.
4. The response gets the id, and the headers that `decorate` adds.
5. `finished` gets the status and the duration, also of rejected requests. An event stream counts until it begins.

A new concern of every request is a function in one of the three lists, not another layer: a rate limit is a check, CORS
is a check and a decoration, an audit is called when a request has finished. The lists are in `app.py`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xzepr.api.deadlines import Deadlines
from xzepr.api.errors import RequestTooSlow, problem_response
from xzepr.api.request_head import Head, head_of
from xzepr.core.errors import NotFound, Problem, TimedOut, TooLarge
from xzepr.infra.telemetry.logs import REQUEST_ID
from xzepr.infra.telemetry.metrics import Metrics

_EVENT_STREAM = b"text/event-stream"
_MAX_DIGITS = 18  # of a Content-Length without leading zeros
RawHeaders = list[tuple[bytes, bytes]]
Check = Callable[[Head], Problem | None]  # before the application; also of WebSocket handshakes
Decorate = Callable[[Head, RawHeaders], None]  # changes the headers of a response
# Gets the status, which is 500 without a response, and the seconds: those of the whole response, or of an event stream
# those until it began.
Finished = Callable[[Head, int, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Concerns:
    """The functions that are called for every request. `decorate` and `finished` do not get WebSockets."""

    checks: Sequence[Check] = ()
    decorate: Sequence[Decorate] = ()
    finished: Sequence[Finished] = ()

    def rejection(self, head: Head) -> Problem | None:
        """Returns the first problem that a check finds; None if the request may proceed."""
        for check in self.checks:
            if (problem := check(head)) is not None:
                return problem
        return None


@dataclass(frozen=True, slots=True)
class _Terms:
    """The terms of all requests."""

    decorate: Sequence[Decorate]
    deadlines: Deadlines
    max_bytes: int
    timeout_seconds: float


class Shell:
    """The ASGI application of a process."""

    def __init__(
        self,
        app: ASGIApp,
        concerns: Concerns,
        *,
        max_bytes: int,
        timeout_seconds: float,
        http: Mapping[str, ASGIApp] | None = None,
        websockets: Mapping[str, ASGIApp] | None = None,
    ) -> None:
        """`http` and `websockets` have applications by their exact path; `app` gets all other requests.

        A response that has begun, such as a stream, may last longer than `timeout_seconds`.
        """
        self._app = app
        self.routes: Sequence[BaseRoute] = getattr(app, "routes", ())
        """The routes of a Starlette application."""
        self._http, self._websockets = dict(http or {}), dict(websockets or {})
        self._concerns = concerns
        self._terms = _Terms(concerns.decorate, Deadlines(timeout_seconds), max_bytes, timeout_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI request."""
        if scope["type"] != "http":
            return await self._handle_other(scope, receive, send)
        began, loop = perf_counter(), asyncio.get_running_loop()
        head = head_of(scope)
        exchange = _Exchange(head, receive, send, self._terms, asyncio.current_task(loop))
        log_context = REQUEST_ID.set(head.request_id)
        try:
            try:
                if (problem := self._concerns.rejection(head)) is None:
                    self._terms.deadlines.add(exchange, began, loop)
                    bounded = exchange.receive if head.has_body else receive
                    await self._application(scope, head)(scope, bounded, exchange)
            except (asyncio.CancelledError, TooLarge) as error:
                if (problem := exchange.broken_limit(error)) is None:
                    raise
            if problem is not None:
                await send_problem(problem, scope, receive, exchange)
        finally:
            REQUEST_ID.reset(log_context)
            self._finish(scope, exchange, (exchange.stream_began or perf_counter()) - began)
        return None

    def _application(self, scope: Scope, head: Head) -> ASGIApp:
        path = scope["path"]
        if (app := self._http.get(path)) is None:
            return self._app
        head.route = path
        return app

    def _finish(self, scope: Scope, exchange: "_Exchange", seconds: float) -> None:
        self._terms.deadlines.remove(exchange)
        head = exchange.head
        if (route := scope.get("route")) is not None:  # set by Starlette
            head.route = getattr(route, "path", "none")
        for finished in self._concerns.finished:
            finished(head, exchange.status or 500, seconds)

    async def _handle_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a WebSocket: its handshake is checked and gets the id of the request."""
        if scope["type"] != "websocket":
            return await self._app(scope, receive, send)
        head = head_of(scope)

        def send_with_id(message: Message) -> Awaitable[None]:
            if message["type"] == "websocket.accept":
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", head.request_id.encode())]
            return send(message)

        log_context = REQUEST_ID.set(head.request_id)
        try:
            if (problem := self._concerns.rejection(head)) is not None:
                return await send_problem(problem, scope, receive, send_with_id)
            if (app := self._websockets.get(scope["path"], self._app)) is self._app and self._websockets:
                return await send_problem(NotFound("WebSocket", scope["path"]), scope, receive, send_with_id)
            return await app(scope, receive, send_with_id)
        finally:
            REQUEST_ID.reset(log_context)


class _Exchange:
    """One request and its response. A call sends an ASGI message of the response."""

    __slots__ = (
        "_cancelling",
        "_is_complete",
        "_is_late",
        "_receive",
        "_received_bytes",
        "_send",
        "_task",
        "_terms",
        "_too_large",
        "head",
        "status",
        "stream_began",
    )

    def __init__(self, head: Head, receive: Receive, send: Send, terms: _Terms, task: asyncio.Task[Any] | None) -> None:
        assert task is not None, "ASGI applications run in tasks"
        self.head = head
        self.status = 0
        """The status of the response; 0 before it begins."""
        self.stream_began = 0.0
        """The `perf_counter` at which an event stream began; 0 for any other response."""
        self._receive, self._send = receive, send
        self._terms = terms
        self._received_bytes = 0
        self._is_complete, self._is_late = not head.has_body, False
        self._too_large: TooLarge | None = None
        self._task = task
        self._cancelling = task.cancelling()

    def __call__(self, message: Message) -> Awaitable[None]:
        """Sends a message. The first one ends the time limit."""
        if not self.status and message["type"] == "http.response.start":
            self._begin(message)
        return self._send(message)

    def _begin(self, message: Message) -> None:
        self._terms.deadlines.remove(self)
        self.status = message["status"]
        headers = message.get("headers", ())
        for name, value in headers:
            if name == b"content-type" and value.startswith(_EVENT_STREAM):
                self.stream_began = perf_counter()
        headers = [*headers, (b"x-request-id", self.head.request_id.encode())]
        for decorate in self._terms.decorate:
            decorate(self.head, headers)
        message["headers"] = headers

    async def receive(self) -> Message:
        """Receives a message of the request. Raises TooLarge if the body exceeds its limit."""
        message = await self._receive()
        self._received_bytes += len(message.get("body", b""))
        if self._received_bytes > self._terms.max_bytes:
            self._too_large = too_large(self._terms.max_bytes)
            raise self._too_large
        if not message.get("more_body", False):
            self._is_complete = True
        return message

    def expire(self) -> None:
        """Cancels the request, whose response has not begun in time."""
        self._is_late = True
        self._task.cancel()

    def broken_limit(self, error: BaseException) -> Problem | None:
        """Returns the problem of a limit that this error reports; None if the error has another cause."""
        if error is self._too_large:
            return None if self.status else self._too_large
        if not self._is_late or isinstance(error, TooLarge) or self._task.uncancel() > self._cancelling:
            return None
        seconds = self._terms.timeout_seconds
        if not self._is_complete:
            return RequestTooSlow(f"the complete request did not arrive within {seconds:g} seconds")
        return TimedOut(f"no result within {seconds:g} seconds; the operation may or may not have taken effect")


def too_large(max_bytes: int) -> TooLarge:
    """Returns the problem of a body that is larger than the limit."""
    return TooLarge(f"the body is larger than {max_bytes} bytes")


def length_check(max_bytes: int) -> Check:
    """Returns the check that rejects a body by its `Content-Length`, before it is read."""

    def check(head: Head) -> Problem | None:
        length = head.first(b"content-length")
        if length is None or head.is_handshake or not length.isdigit():
            return None
        # A longer number is larger than any limit, and Python may refuse to convert it.
        digits = length.lstrip(b"0") or b"0"
        return too_large(max_bytes) if len(digits) > _MAX_DIGITS or int(digits) > max_bytes else None

    return check


def request_count(metrics: Metrics) -> Finished:
    """Returns the function that counts and times requests by the route that handled them."""

    def count(head: Head, status: int, seconds: float) -> None:
        # Clients invent paths, so a path is never a label.
        metrics.request_answered(head.method, head.route, status, seconds)

    return count


async def send_problem(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """Responds with a problem to a request, or to a handshake that is not yet accepted."""
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": problem.code})
    else:
        # For a handshake, Starlette renames the ASGI messages itself.
        await problem_response(problem)(scope, receive, send)
