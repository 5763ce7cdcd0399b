"""The hub's changes to uvicorn's WebSocket protocol, on a fake transport."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from tests.support.fake_transport import FakeTransport
from xzepr.server.uvicorn_protocols import WebSocketProtocol

HANDSHAKE = (
    b"GET /graphql HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
TEXT, PING, CLOSE, FIN = 0x01, 0x09, 0x08, 0x80


def frame(opcode: int, payload: bytes = b"", *, claimed: int | None = None) -> bytes:
    """Returns a masked frame. `claimed` is the length in its header if that differs from the payload."""
    length = len(payload) if claimed is None else claimed
    head = bytes([0x80 | length]) if length < 126 else b"\xff" + length.to_bytes(8, "big")
    return bytes([opcode]) + head + bytes(4) + payload


async def opened(app: ASGIApp) -> tuple[WebSocketProtocol, FakeTransport]:
    """Returns a connection after its handshake, and its transport."""
    config = uvicorn.Config(app, log_config=None, lifespan="off", ws_ping_interval=None, ws_max_size=1_000_000)
    config.load()
    transport = FakeTransport()
    connection = WebSocketProtocol(config, ServerState(), {})
    connection.connection_made(transport)
    connection.data_received(HANDSHAKE)
    while b"101 Switching" not in transport.written:
        await asyncio.sleep(0)
    transport.written.clear()
    return connection, transport


async def _listen(_: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def test_pings_of_a_client_that_does_not_read_get_one_pong() -> None:
    connection, transport = await opened(_listen)
    connection.pause_writing()
    for number in range(100):
        connection.data_received(b"".join(frame(FIN | PING, b"%d" % (number * 100 + at)) for at in range(100)))
    assert not transport.written
    assert transport.reads
    connection.resume_writing()
    assert transport.written == b"\x8a\x049999"
    connection.data_received(frame(FIN | PING, b"x"))
    assert transport.written == b"\x8a\x049999\x8a\x01x"


async def test_close_after_pending_pings_is_answered() -> None:
    connection, transport = await opened(_listen)
    connection.pause_writing()
    connection.data_received(frame(FIN | PING, b"x") + frame(FIN | CLOSE, (1000).to_bytes(2, "big")))
    assert transport.written == b"\x88\x02\x03\xe8"
    assert transport.closed
    connection.resume_writing()
    assert transport.written == b"\x88\x02\x03\xe8"


@pytest.mark.parametrize("fragment", [b"", b"x"])
async def test_fragments_of_a_message_are_merged(fragment: bytes) -> None:
    received = asyncio.get_running_loop().create_future()

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        received.set_result(await receive())

    connection, _ = await opened(app)
    connection.data_received(frame(TEXT, b"begin"))
    connection.data_received(frame(0, fragment) * 20_000)
    assert len(connection.frames) <= 1001
    connection.data_received(frame(FIN, b"end"))
    assert (await received)["text"] == "begin" + fragment.decode() * 20_000 + "end"


async def _assert_disconnected(send: Callable[[], Any]) -> None:
    with pytest.raises(OSError, match=r"^$"):
        await send()


async def test_send_during_a_too_large_frame_fails() -> None:
    outcome = asyncio.get_running_loop().create_future()

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        for message in ({"type": "websocket.send", "text": "x"}, {"type": "websocket.close", "code": 1000}):
            await _assert_disconnected(lambda message=message: send(message))
        outcome.set_result(await receive())

    connection, _ = await opened(app)
    connection.pause_writing()
    connection.data_received(frame(FIN | TEXT, b"hello"))
    await asyncio.sleep(0)
    connection.data_received(frame(FIN | TEXT, claimed=1_000_001))
    connection.resume_writing()
    assert (await outcome)["code"] == 1009


async def test_close_code_of_a_too_large_frame_precedes_the_reset() -> None:
    connection, transport = await opened(_listen)
    connection.linger_seconds = 0.05
    connection.data_received(frame(FIN | TEXT, claimed=5_000_000))
    assert transport.written[:1] == b"\x88"
    assert transport.written[2:4] == (1009).to_bytes(2, "big")
    assert (transport.ended, transport.closed, transport.reads) == (True, False, True)
    written = bytes(transport.written)
    for _ in range(50):
        connection.data_received(b"x" * 100_000)
    assert transport.written == written
    await asyncio.sleep(0.1)
    assert transport.aborted


async def test_frame_is_written_at_once_while_the_client_reads() -> None:
    connection, transport = await opened(_listen)
    assert connection.write_frame(b"\x81\x01a")
    connection.pause_writing()
    assert not connection.write_frame(b"\x81\x01b")
    connection.resume_writing()
    assert connection.write_frame(b"\x81\x01c")
    connection.data_received(frame(FIN | CLOSE, (1000).to_bytes(2, "big")))
    assert not connection.write_frame(b"\x81\x01d")
    assert transport.written == b"\x81\x01a\x81\x01c\x88\x02\x03\xe8"


async def test_headers_of_the_handshake_are_dropped() -> None:
    connection, _ = await opened(_listen)
    assert not connection.request.headers
    assert not connection.response.headers
