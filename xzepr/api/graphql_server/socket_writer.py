"""Writes to a WebSocket: at once while its client reads, else when the client's buffers have space again."""

from collections.abc import Callable
from typing import cast

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from xzepr.api.client_connection import WRITE
from xzepr.api.graphql_server.liveness import ClientLiveness
from xzepr.api.graphql_server.operations import GraphQLResponse

DISCONNECTED = (WebSocketDisconnect, WebSocketDisconnected)  # exceptions of a write
_TEXT = b"\x81"  # an unfragmented text frame (RFC 6455, section 5.2)


def text_frame(payload: bytes) -> bytes:
    """Returns a complete frame of a server."""
    size = len(payload)
    if size < 126:
        return b"%b%c%b" % (_TEXT, size, payload)
    length = b"\x7e" + size.to_bytes(2, "big") if size < 65536 else b"\x7f" + size.to_bytes(8, "big")
    return b"%b%b%b" % (_TEXT, length, payload)


def next_message(id: bytes, response: GraphQLResponse) -> bytes:
    """Returns a `next` message. `id` is the operation's id as JSON."""
    return b'{"type":"next","id":%b,"payload":%b}' % (id, response.to_json())


class NextFrames:
    """Builds the frames of `next` messages. Successive calls for one response and operation id get the same bytes.

    Clients of one program mostly use equal ids, so the sockets that wait for the same message share its frame.
    """

    def __init__(self) -> None:
        self._response: GraphQLResponse | None = None
        self._id = self._frame = b""

    def frame(self, id: bytes, response: GraphQLResponse) -> bytes:
        """Returns a frame. `id` is the operation's id as JSON."""
        if response is not self._response or id != self._id:
            self._response, self._id = response, id
            self._frame = text_frame(next_message(id, response))
        return self._frame


class SocketWriter:
    """The writing side of one WebSocket."""

    __slots__ = ("_liveness", "_socket", "_write")

    def __init__(self, socket: WebSocket, liveness: ClientLiveness) -> None:
        self._socket = socket
        self._liveness = liveness
        extensions = socket.scope.get("extensions", {})
        self._write = cast("Callable[[bytes], bool]", extensions.get(WRITE, _cannot_write))

    def write_now(self, frame: bytes) -> bool:
        """Writes a complete frame. Returns False if that would have to wait, or if the socket is closing."""
        return self._liveness.write_now(self._write, frame)

    async def write(self, text: bytes) -> None:
        """Writes a text message, and waits while the client's buffers are full."""
        if not self.write_now(text_frame(text)):
            await self._liveness.track_write(self._socket.send_text(text.decode()), len(text))


def _cannot_write(_: bytes) -> bool:
    """Stands in for a server without the extension, such as that of a test."""
    return False
