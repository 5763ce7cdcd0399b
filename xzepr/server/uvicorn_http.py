"""uvicorn's HTTP/1.1, extended for clients that do not read, and with less work for each request.

uvicorn's options `root_path`, `limit_concurrency` and `access_log` have no effect.
"""

import asyncio
import re
from collections.abc import Iterable
from contextvars import Context
from functools import lru_cache, partial
from time import perf_counter
from typing import Any
from urllib.parse import unquote
from weakref import WeakKeyDictionary

import httptools
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle
from uvicorn.server import ServerState

from xzepr.api.client_connection import DROP, UNSENT
from xzepr.api.deadlines import Deadlines
from xzepr.api.errors import BadRequest
from xzepr.server.bounded_http import MAX_HEADERS, BoundedHttpProtocol
from xzepr.server.request_starts import RequestStarts

_FORWARDED = frozenset({b"x-forwarded-for", b"x-forwarded-proto"})
_COPIED_BYTES = 64 * 1024  # a longer body is not copied behind its head
_KEPT = frozenset({b"cache-control", b"content-length", b"content-type", b"date"})  # headers with few values
_NO_NAME = re.compile(rb"[^a-z0-9!#$%&'*+.^_`|~-]")  # ASGI requires lower case
_MAX_LINES = 1000
_lines: dict[tuple[bytes, bytes], bytes] = {}  # how kept headers are sent


class HttpProtocol(BoundedHttpProtocol):
    """HTTP/1.1. The application can drop the connection and read how many bytes are unsent."""

    def connection_made(self, transport: Any) -> None:
        """Prepares what is the same for all requests of the connection."""
        state = self.server_state
        if (shared := _shared.get(state)) is None:
            times = Deadlines(self.timeout_keep_alive), Deadlines(self.head_seconds)
            shared = _shared[state] = *times, RequestStarts()
        self._idle, self._heads, self._starts = shared
        super().connection_made(transport)
        self._behind_proxies: Any = vars(self)["app"]
        is_wrapped = isinstance(self._behind_proxies, ProxyHeadersMiddleware)
        self._direct = self._behind_proxies.app if is_wrapped else self._behind_proxies
        self._extensions = {DROP: transport.abort, UNSENT: transport.get_write_buffer_size}

    def on_headers_complete(self) -> None:
        """Starts the request, or queues it behind earlier ones of the connection. uvicorn would make another cycle."""
        if not self.begin_body():
            return
        untyped: Any = self
        scope: dict[str, Any] = untyped.scope
        parser = untyped.parser
        scope["extensions"] = self._extensions
        scope["method"] = parser.get_method().decode("ascii")
        scope["http_version"] = version = parser.get_http_version()
        if (app := self._checked_app(version)) is None:
            return
        if parser.should_upgrade():
            if self._should_upgrade():
                if self.unanswered():
                    self.refuse(BadRequest("a WebSocket cannot be opened behind a request without a response"))
                return
            self._declined = True
        self.headers = []  # of trailers, which are dropped
        url = self.url
        scope["path"], scope["raw_path"], scope["query_string"] = _split(url) if b"?" in url else _known_split(url)
        cycle = Cycle(self, keep_alive=version != "1.0" and parser.should_keep_alive())
        earlier, self.cycle = untyped.cycle, cycle
        if earlier is None or earlier.response_complete:
            self._start_asgi_task(cycle, app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, app))

    def _checked_app(self, version: str) -> Any:
        """Returns the application for the request; None if its head is refused.

        uvicorn's layer for proxies is left out unless one has sent its headers.
        """
        app, hosts, codings = self._direct, 0, 0
        for name, _ in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding":
                codings += 1
            elif name in _FORWARDED:
                app = self._behind_proxies
        if len(self.headers) > MAX_HEADERS or hosts != 1 or codings:
            problem = self.invalid_head(version, hosts, codings)
            if problem is not None:
                self.refuse(problem)
                return None
        return app

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self.running = cycle
        self._starts.add(partial(cycle.start, app), self.loop)

    def on_response_complete(self) -> None:
        """Starts the next request of the connection, or waits for it with a time limit.

        uvicorn would set a timer for each response. Here one timer serves all idle connections.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._idle.add(self, perf_counter(), self.loop)

    def _unset_keepalive_if_required(self) -> None:
        self._idle.remove(self)


# Of each server: its idle connections, those whose head is not complete, and the new requests.
_shared: WeakKeyDictionary[ServerState, tuple[Deadlines, Deadlines, RequestStarts]] = WeakKeyDictionary()


def _split(url: bytes) -> tuple[str, bytes, bytes]:
    """Returns the path, the path as it was sent, and the query string."""
    parsed = httptools.parse_url(url)
    path = parsed.path.decode("ascii")
    return unquote(path) if "%" in path else path, parsed.path, parsed.query or b""


_known_split = lru_cache(maxsize=64)(_split)


class Cycle(RequestResponseCycle):
    """A request and its response. The head of the response is written together with the first part of the body.

    Until then nothing is sent, as ASGI requires. If the application fails in between, the response is 500.
    """

    disconnected = False
    more_body = True
    response_started = False  # whether something was written
    response_complete = False
    chunked_encoding: bool | None = None
    expected_content_length = 0
    _head = b""
    _ends_with_connection = False

    def __init__(self, protocol: HttpProtocol, *, keep_alive: bool) -> None:  # pyright: ignore[reportMissingSuperCall]
        self.scope = protocol.scope
        self.transport = protocol.transport
        self.flow = protocol.flow
        self.logger = protocol.logger
        self.default_headers = protocol.server_state.default_headers
        self.message_event = asyncio.Event()
        self.on_response = protocol.on_response_complete
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = protocol.expect_100_continue
        self.body = bytearray()
        self._loop, self._tasks = protocol.loop, protocol.tasks
        self._task: asyncio.Task[None] | None = None

    def start(self, app: Any, context: Context) -> None:
        """Starts the task of the request. Nothing cancels a task before its first step."""
        self._task = self._loop.create_task(self.run_asgi(app), context=context)
        self._tasks.add(self._task)

    async def run_asgi(self, app: Any) -> None:
        """Runs the application. uvicorn handles errors and incomplete responses."""
        try:
            try:
                result = await app(self.scope, self.receive, self.send)
            except BaseException as error:
                await super().run_asgi(partial(_raise, error))
                return
            if result is not None or not self.response_complete:
                await super().run_asgi(partial(_return, result))
        finally:
            self._tasks.discard(self._task)
            self.on_response = _do_nothing  # else the protocol and its last cycle would refer to each other

    async def send(self, message: Any) -> None:
        """Sends an ASGI message of the response. Waits while the client does not read, and ignores one that is gone."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if kind == "http.response.body" and self._head and not self.response_complete:
            self._send_body(message.get("body", b""), message.get("more_body", False))
        elif kind == "http.response.start" and not self.response_started:
            self._head = self._rendered_head(message["status"], message.get("headers", ()))
        else:
            raise RuntimeError(f"unexpected ASGI message {kind!r}")

    def _rendered_head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        self.chunked_encoding, self.expected_content_length = None, 0
        head, closes = STATUS_LINE[status], False
        for header in (*self.default_headers, *headers):
            head += _lines.get(header) or _line(header)
            name, value = header
            if name == b"content-length" and self.chunked_encoding is None:
                self.expected_content_length, self.chunked_encoding = int(value), False
            elif name == b"transfer-encoding" and value.lower() == b"chunked":
                self.expected_content_length, self.chunked_encoding = 0, True
            elif name == b"connection" and b"close" in [token.strip() for token in value.lower().split(b",")]:
                self.keep_alive, closes = False, True
        if not self.keep_alive and not closes:
            head += b"connection: close\r\n"
        if self.chunked_encoding is None and self.scope["method"] != "HEAD" and status not in (204, 304):
            # RFC 9112, section 6.1: HTTP/1.0 has no chunks; the end of the connection ends the body.
            self.chunked_encoding = self.scope["http_version"] != "1.0"
            if self.chunked_encoding:
                head += b"transfer-encoding: chunked\r\n"
            else:
                self._ends_with_connection = True
        return head + b"\r\n"

    def _send_body(self, body: bytes, more_body: bool) -> None:
        if self.scope["method"] == "HEAD":
            self.expected_content_length, body = 0, b""
        elif self.chunked_encoding:
            body = _chunk(body, more_body)
        elif not self._ends_with_connection:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("the body is longer than its Content-Length")
        self._write(body)
        if more_body:
            return
        if self.expected_content_length:
            raise RuntimeError("the body is shorter than its Content-Length")
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def _write(self, body: bytes) -> None:
        if self.response_started:
            self.transport.write(body)
            return
        self.response_started, self.waiting_for_100_continue = True, False
        if len(body) > _COPIED_BYTES:
            self.transport.writelines((self._head, body))
        else:
            self.transport.write(self._head + body)


def _do_nothing() -> None:
    return None


async def _raise(error: BaseException, *_: object) -> None:
    raise error


async def _return(result: Any, *_: object) -> Any:
    return result


def _chunk(body: bytes, more_body: bool) -> bytes:
    chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
    return chunk if more_body else chunk + b"0\r\n\r\n"


def _line(header: tuple[bytes, bytes]) -> bytes:
    """Returns a header as it is sent. Raises RuntimeError if it is not valid."""
    name, value = header
    if _NO_NAME.search(name) or HEADER_VALUE_RE.search(value):
        raise RuntimeError("invalid HTTP header")
    line = b"%b: %b\r\n" % (name, value)
    if name in _KEPT:
        if len(_lines) >= _MAX_LINES:
            _lines.clear()
        _lines[header] = line
    return line
