"""uvicorn's connections, and what they lack for clients that do not read: an end that does not wait for them, and a
bound on what is kept for them."""

from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from xzepr.api.middleware import DROP, UNSENT

_MAX_FRAGMENTS = 1000


class HttpProtocol(HttpToolsProtocol):
    """HTTP/1.1; the application may drop it, and ask how much waits to be sent."""

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)["extensions"] = {
            DROP: self.transport.abort,
            UNSENT: self.transport.get_write_buffer_size,
        }


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """A WebSocket; the application may drop it, and ask how much waits to be sent. Once it has ended nothing waits for
    long to be read."""

    linger_seconds = 2.0
    """That a client is heard out that sent what cannot be read."""
    _pong = b""
    """What answers the newest ping of a client that does not read."""
    _failed = False

    async def run_asgi(self) -> None:
        """Runs the application. uvicorn would then wait until the client has read everything, however long."""
        extensions = cast("dict[str, Any]", self.scope)["extensions"]
        extensions[DROP] = self.transport.abort
        extensions[UNSENT] = self.transport.get_write_buffer_size
        await super().run_asgi()
        if self in self.connections:
            self.loop.call_later(self.close_timeout, self.transport.abort)

    async def send(self, message: Any) -> None:
        """Sends for the application. A close that came of what the client sent looks to it like a client that left."""
        await self.writable.wait()
        if self.close_sent:
            raise ClientDisconnected
        await super().send(message)

    def handle_ping(self) -> None:
        """Answers; only the newest of the pings that come while the client does not read (RFC 6455, 5.5.3). It could
        fill the memory with pongs, and to read no more would keep its pongs from the application."""
        if self.writable.is_set():
            return super().handle_ping()
        if output := [frame for frame in self.conn.data_to_send() if frame]:
            self._pong = output[-1]  # where a close came with the ping, what answers that
        return None

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._send_pong()

    def handle_close(self, event: Frame) -> None:
        """The client closes."""
        self._send_pong()
        super().handle_close(event)

    def _send_pong(self) -> None:
        pong, self._pong = self._pong, b""
        if pong and not self.close_sent and not self.transport.is_closing():
            self.transport.write(pong)

    def handle_cont(self, event: Frame) -> None:
        """One more piece of a message. The limit counts bytes, and a piece may have none, but takes its place."""
        super().handle_cont(event)
        if len(self.frames) > _MAX_FRAGMENTS:
            self.frames = [b"".join(self.frames)]

    def data_received(self, data: bytes) -> None:
        """Takes what came. After a frame that cannot be read nothing can."""
        if not self._failed:
            super().data_received(data)

    def handle_parser_exception(self) -> None:
        """Says with which code it closes, and reads on for a moment without looking at it. A connection that is closed
        on input is reset, and the client may then lose the code."""
        closing = self.conn.close_sent
        assert closing is not None, "a parser that fails has written why"
        self.queue.put_nowait({"type": "websocket.disconnect", "code": closing.code, "reason": closing.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self._failed = self.close_sent = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        if self.close_timer is not None:
            self.close_timer.cancel()
        self.close_timer = self.loop.call_later(self.linger_seconds, self.transport.abort)
