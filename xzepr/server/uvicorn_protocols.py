"""uvicorn's WebSocket, extended for clients that do not read: bounded memory, and a close that does not wait."""

import asyncio
from typing import Any, cast

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from xzepr.api.client_connection import DROP, UNSENT, WRITE

_MAX_FRAGMENTS = 1000


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """A WebSocket. The application can drop the connection and read how many bytes are unsent."""

    linger_seconds = 2.0  # a client that sent an invalid frame may keep sending for this long
    queue: Any  # a `_Messages`
    writable: "_Flag"
    _pong = b""  # the reply to the newest ping of a client that does not read
    _failed = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Takes uvicorn's arguments."""
        super().__init__(*args, **kwargs)
        # uvicorn's queue and event have five deques, which take 4 KB a connection.
        self.queue, self.writable = _Messages(), _Flag()

    async def run_asgi(self) -> None:
        """Runs the application, then closes soon. uvicorn would wait until the client has read everything."""
        extensions = cast("dict[str, Any]", self.scope)["extensions"]
        extensions[DROP] = self.transport.abort
        extensions[UNSENT] = self.transport.get_write_buffer_size
        extensions[WRITE] = self.write_frame
        await super().run_asgi()
        if self in self.connections:
            self.loop.call_later(self.close_timeout, self.transport.abort)

    def write_frame(self, frame: bytes) -> bool:
        """Writes a complete frame. Returns False if the client does not read, or if the connection is closing.

        Other frames than those of one message may not come between its fragments; the hub sends no fragments.
        """
        if self.close_sent or not self.writable.is_set() or self.transport.is_closing():
            return False
        self.transport.write(frame)
        return True

    async def send(self, message: Any) -> None:
        """Sends for the application. After an invalid frame the client counts as disconnected."""
        await self.writable.wait()
        if self.close_sent:
            raise ClientDisconnected
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True  # by an HTTP response; uvicorn would report an error of the application
        if message["type"] == "websocket.accept":
            self.request.headers.clear()  # 2 KB that would stay as long as the connection
            self.response.headers.clear()

    async def receive(self) -> Any:
        """Returns the next message for the application. The client is read again once the application has them all."""
        messages = self.queue
        while not messages:
            await messages.wait()
        message = messages.pop(0)
        if self.read_paused and not messages:
            self.read_paused = False
            self.transport.resume_reading()
        return message

    def send_receive_event_to_app(self) -> None:
        """Passes a message to the application, or closes with 1007 if its text is not UTF-8.

        uvicorn would log a traceback.
        """
        if self.curr_msg_data_type == "text" and not self.close_sent:
            self.frames = [b"".join(self.frames)]
            try:
                self.frames[0].decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.send_close(1007)
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    def handle_ping(self) -> None:
        """Replies; while the client does not read, to the newest ping only (RFC 6455, section 5.5.3).

        Otherwise pongs could fill the memory. Pausing reads would keep the client's pongs from the application.
        """
        if self.writable.is_set():
            return super().handle_ping()
        if output := [frame for frame in self.conn.data_to_send() if frame]:
            self._pong = output[-1]  # or the reply to a close that came with the ping
        return None

    def resume_writing(self) -> None:
        """Sends the pending pong once the client reads again."""
        super().resume_writing()
        self._send_pong()

    def handle_close(self, event: Frame) -> None:
        """Sends the pending pong, then replies to the close."""
        self._send_pong()
        super().handle_close(event)

    def _send_pong(self) -> None:
        pong, self._pong = self._pong, b""
        if pong and not self.close_sent and not self.transport.is_closing():
            self.transport.write(pong)

    def handle_cont(self, event: Frame) -> None:
        """Joins the fragments of a message once they are many: empty ones cost memory and no bytes of the limit."""
        super().handle_cont(event)
        if len(self.frames) > _MAX_FRAGMENTS:
            self.frames = [b"".join(self.frames)]

    def data_received(self, data: bytes) -> None:
        """Parses incoming bytes. After an invalid frame all further bytes are ignored."""
        if not self._failed:
            super().data_received(data)

    def handle_parser_exception(self) -> None:
        """Sends the close code, and keeps reading for a moment.

        Closing with unread input resets the connection, and the client may then lose the code.
        """
        closing = self.conn.close_sent
        assert closing is not None, "a parser that fails sends a close frame"
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


class _Messages(list[Any]):
    """Replaces an asyncio.Queue with one consumer and few messages."""

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        super().__init__()
        self._waiter: asyncio.Future[None] | None = None

    def put_nowait(self, message: Any) -> None:
        """Adds a message."""
        self.append(message)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def wait(self) -> "asyncio.Future[None]":
        """Returns a future that is done once a message is added."""
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter


class _Flag:
    """Replaces an asyncio.Event that is mostly set. It begins set."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: asyncio.Event | None = None  # while the flag is not set

    def is_set(self) -> bool:
        """Returns whether the flag is set."""
        return self._event is None

    def set(self) -> None:
        """Sets the flag and wakes all that wait for it."""
        if self._event is not None:
            self._event.set()
            self._event = None

    def clear(self) -> None:
        """Unsets the flag."""
        if self._event is None:
            self._event = asyncio.Event()

    async def wait(self) -> None:
        """Waits until the flag is set."""
        if self._event is not None:
            await self._event.wait()
