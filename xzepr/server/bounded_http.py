"""HTTP/1.1 requests with bounds: of the head's size, of its time, and of what follows an upgrade that is declined.

Everything is bounded before it is kept. A request that breaks a bound, or HTTP, gets an error in the same format as all
others, and its connection is closed.
"""

import asyncio
from collections import deque
from time import perf_counter
from typing import Any, Self, cast

import httptools
from starlette.responses import Response
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from xzepr.api.deadlines import Deadlines
from xzepr.api.errors import BadRequest, RequestTooSlow, problem_response
from xzepr.core.errors import Problem
from xzepr.server.refusals import HeadTooLarge, UnknownTransferCoding, UriTooLong

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 100
_LINGER_SECONDS = 2.0  # closing with unread input resets a connection, and the client may then lose the response
_FREE_OVERHEAD = 17  # bytes of framing for each byte of a chunked body, enough for chunks of one byte
_FRAMING = (b"content-length", b"transfer-encoding")


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, of which a subclass starts the requests."""

    head_seconds = 30.0
    """The time for a head, and for the first byte of a connection. A subclass for a server may have another."""

    _heads: Deadlines  # of the connections whose head is not complete
    _timed = False  # whether this connection is among them
    _in_head = True  # whether the next byte belongs to a head
    _begun = False  # whether a byte of that head was parsed
    _head_bytes = 0  # received of this head
    _body_bytes = 0  # of the body in the bytes that are parsed now
    _overhead = 0  # bytes of chunk extensions and trailers
    _refused = False  # whether all further input is ignored
    _declined = False  # whether the request asks for an upgrade that it does not get
    _resuming = False  # whether the parser reads a head that the client did not send
    running: Any = None
    """The request that was started last; a subclass sets it."""

    @classmethod
    def with_head_seconds(cls, seconds: float) -> type[Self]:
        """Returns a protocol whose heads have this time."""
        return cast("type[Self]", type(cls.__name__, (cls,), {"head_seconds": seconds}))

    def connection_made(self, transport: Any) -> None:
        """Starts the time of the first head."""
        super().connection_made(transport)
        self._timed = True
        self._heads.add(self, perf_counter(), self.loop)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the time of a head, and tells all requests of the connection. uvicorn would tell the last one only."""
        self._heads.remove(self)
        for cycle in self.unanswered():
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def unanswered(self) -> "list[Any]":
        """Returns the request whose response is under way, and those that wait behind it."""
        running: Any = self.running
        waiting: list[Any] = [cycle for cycle, _ in reversed(self.pipeline)]
        return waiting if running is None or running.response_complete else [running, *waiting]

    def data_received(self, data: bytes) -> None:
        """Parses incoming bytes, at most those that a head may still have."""
        if self._refused:
            return
        if self._in_head and not self._begun and not data.strip(b"\r\n"):
            return  # RFC 9112, section 2.2: empty lines before a request are ignored, and the time goes by
        self._unset_keepalive_if_required()
        if not self._in_head:
            self._receive_body(data)
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._receive_in_parts(data)
            return
        self._feed(data)
        if self._in_head and self._head_bytes and not self._timed:
            self._timed = True
            self._heads.add(self, perf_counter(), self.loop)

    def _receive_in_parts(self, data: bytes) -> None:
        """Parses what a head may still have. The rest follows if the head was complete before that."""
        room = MAX_HEAD_BYTES - (self._head_bytes - len(data))
        self._head_bytes = MAX_HEAD_BYTES
        self._feed(data[:room])
        if self._in_head and self._head_bytes == MAX_HEAD_BYTES:
            self.refuse(HeadTooLarge() if self.headers else UriTooLong())
        self.data_received(data[room:])

    def _receive_body(self, data: bytes) -> None:
        self._body_bytes = 0
        self._feed(data)
        self._overhead += max(0, len(data) - self._body_bytes * _FREE_OVERHEAD)
        if self._overhead > MAX_HEAD_BYTES and not self._in_head:
            self.refuse(HeadTooLarge())

    def _feed(self, data: bytes) -> None:
        parser: Any = self.parser
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._refused:
                return
            if self._declined:
                self._continue_without_upgrade(data[cast("tuple[int]", upgrade.args)[0] :])
            else:
                self.handle_websocket_upgrade()
        except httptools.HttpParserError:
            if not self._refused:
                self.refuse(BadRequest("the request is not valid HTTP/1.1"))

    def _continue_without_upgrade(self, rest: bytes) -> None:
        """Reads the body of a request whose upgrade is declined (RFC 9110, section 7.8), and the requests after it.

        The parser takes everything after such a head for another protocol. Another parser gets a head with the same
        framing, and then the rest.
        """
        self._declined = False
        if self.scope["method"] == "CONNECT":  # what follows is meant for another server
            self._refused = True
            self.cycle.keep_alive = False
            return
        scope, framed = self.scope, [header for header in self.scope["headers"] if header[0] in _FRAMING]
        self.parser = parser = httptools.HttpRequestParser(self)
        head = b"POST / HTTP/1.1\r\n" + b"".join(b"%b: %b\r\n" % header for header in framed) + b"\r\n"
        self._resuming = True
        cast("Any", parser).feed_data(head)
        self._resuming, self.scope = False, scope
        if rest:
            self.data_received(rest)

    def _should_upgrade(self) -> bool:
        """Returns whether the request opens a WebSocket. Proxies may set `Upgrade` for all requests."""
        return (
            self.scope["method"] == "GET"
            and any(name == b"sec-websocket-key" for name, _ in self.headers)
            and super()._should_upgrade()
        )

    def on_message_begin(self) -> None:
        """Begins a request."""
        super().on_message_begin()
        self._begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Adds a header. The first one beyond the bound is kept, so that the head is refused."""
        headers = self.headers
        if len(headers) <= MAX_HEADERS:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            headers.append((name, value))

    def begin_body(self) -> bool:
        """Ends the head. Returns whether the request may start."""
        if self._resuming or self._refused:
            return False
        self._in_head, self._head_bytes, self._overhead = False, 0, 0
        if self._timed:
            self._timed = False
            self._heads.remove(self)
        return True

    def invalid_head(self, version: str, hosts: int, codings: int) -> Problem | None:
        """Returns the problem of a head by its numbers of Host and Transfer-Encoding headers.

        RFC 9112, section 3.2: HTTP/1.1 has one Host, and section 6.1: a coding that is not understood is 501.
        """
        if len(self.headers) > MAX_HEADERS:
            return HeadTooLarge()
        if hosts > 1 or (not hosts and version != "1.0"):
            return BadRequest("a request has exactly one Host header")
        if codings and [value.strip().lower() for name, value in self.headers if name == _FRAMING[1]] != [b"chunked"]:
            return UnknownTransferCoding()
        return None

    def on_body(self, body: bytes) -> None:
        """Adds a part of the body."""
        self._body_bytes += len(body)
        cycle = cast("Any", self.cycle)
        if cycle is None or cycle.response_complete or self._refused:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Completes the request, unless its body comes after a declined upgrade."""
        if self._declined or self._refused:
            return
        self._in_head, self._begun, self._head_bytes = True, False, 0
        cycle = cast("Any", self.cycle)
        if cycle is not None and not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    def refuse(self, problem: Problem) -> None:
        """Responds with a problem and closes the connection.

        If earlier responses are under way, the connection is closed after them, without the problem.
        """
        self._refused = True
        self._heads.remove(self)
        newest: Any = self.cycle
        requests = self.unanswered()
        if newest is not None and newest.more_body and newest in requests:  # its body will not come
            requests.remove(newest)
            newest.disconnected = True
            newest.message_event.set()
            self.pipeline = deque(entry for entry in self.pipeline if entry[0] is not newest)
        if requests:
            requests[-1].keep_alive = False
        elif not self.transport.is_closing():
            if self.running is None or not self.running.response_started or self.running.response_complete:
                self.transport.write(_rendered(problem_response(problem)))
            _close_soon(self.transport, self.loop)

    def expire(self) -> None:
        """Closes the connection: it was idle for too long, or its head did not arrive in time."""
        if self._head_bytes:
            self.refuse(RequestTooSlow(f"the head did not arrive within {self.head_seconds:g} seconds"))
        else:
            self.transport.close()


def _close_soon(transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
    transport.pause_reading()
    if transport.can_write_eof():
        transport.write_eof()
    loop.call_later(_LINGER_SECONDS, transport.abort)


def _rendered(response: Response) -> bytes:
    headers = [*response.raw_headers, *([] if "connection" in response.headers else [(b"connection", b"close")])]
    head = b"".join(b"%b: %b\r\n" % header for header in headers)
    return STATUS_LINE[response.status_code] + head + b"\r\n" + bytes(response.body)
