"""Frames that are written at once: their form, their sharing, and when they are refused."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.websockets import WebSocket
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from xzepr.api.client_connection import WRITE
from xzepr.api.graphql_server.liveness import ClientLiveness
from xzepr.api.graphql_server.operations import GraphQLResponse
from xzepr.api.graphql_server.socket_writer import NextFrames, SocketWriter, text_frame


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 100_000])
def test_frame_is_read_by_a_client(size: int) -> None:
    client = ClientProtocol(parse_uri("ws://hub/"), state=OPEN)
    client.receive_data(text_frame(b"x" * size))
    [frame] = client.events_received()
    assert isinstance(frame, Frame)
    assert (frame.opcode, frame.fin, bytes(frame.data)) == (0x1, True, b"x" * size)


def test_subscribers_with_equal_ids_share_one_frame() -> None:
    frames, response = NextFrames(), GraphQLResponse({"data": {"x": 1}}, "r")
    first = frames.frame(b'"a"', response)
    assert first == text_frame(b'{"type":"next","id":"a","payload":{"data":{"x":1}}}')
    assert frames.frame(b'"a"', response) is first
    assert frames.frame(b'"b"', response) == first.replace(b'"a"', b'"b"')
    assert frames.frame(b'"b"', GraphQLResponse({"data": {"x": 2}}, "r")) != frames.frame(b'"b"', response)


class Server:
    """A server with the extension that writes frames."""

    def __init__(self) -> None:
        self.accepts = True
        self.frames: list[bytes] = []
        self.messages: list[Any] = []

    def write(self, frame: bytes) -> bool:
        if self.accepts:
            self.frames.append(frame)
        return self.accepts

    async def send(self, message: Any) -> None:
        self.messages.append(message)

    async def receive(self) -> Any:
        return {"type": "websocket.connect"}


async def opened(server: Server, write: Callable[[bytes], bool] | None) -> SocketWriter:
    scope = {"type": "websocket", "extensions": {} if write is None else {WRITE: write}}
    socket = WebSocket(scope, server.receive, server.send)
    await socket.accept()
    server.messages.clear()
    return SocketWriter(socket, ClientLiveness(300))


async def test_message_is_written_at_once_if_possible() -> None:
    server = Server()
    writer = await opened(server, server.write)
    await writer.write(b"a")
    server.accepts = False
    assert not writer.write_now(text_frame(b"b"))
    await writer.write(b"c")
    assert server.frames == [text_frame(b"a")]
    assert [message["text"] for message in server.messages] == ["c"]


async def test_server_without_the_extension_gets_messages() -> None:
    server = Server()
    writer = await opened(server, None)
    assert not writer.write_now(text_frame(b"a"))
    await writer.write("ä".encode())
    assert [message["text"] for message in server.messages] == ["ä"]
