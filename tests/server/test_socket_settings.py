"""The WebSocket settings of a served hub, as a client sees them."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.support.server import ServedHub, serving
from xzepr.server.uvicorn_protocols import WebSocketProtocol

MAX_FRAME_BYTES = 2000
INIT_SECONDS = 3.5  # longer than the default
PING_SECONDS = 2


@pytest.fixture(scope="module")
def hub() -> Iterator[ServedHub]:
    environ = {
        "XZEPR__STREAM__MAX_FRAME_BYTES": str(MAX_FRAME_BYTES),
        "XZEPR__STREAM__CONNECTION_INIT_TIMEOUT_SECONDS": str(INIT_SECONDS),
        "XZEPR__STREAM__PING_SECONDS": str(PING_SECONDS),
    }
    with serving(environ=environ) as hub:
        yield hub


@asynccontextmanager
async def opened(hub: ServedHub, *, init: bool = True) -> AsyncGenerator[ClientConnection]:
    url, protocols = hub.url.replace("http://", "ws://") + "/graphql", [Subprotocol("graphql-transport-ws")]
    async with connect(url, subprotocols=protocols, proxy=None, ping_interval=None) as socket:
        if init:
            await socket.send('{"type": "connection_init"}')
            assert json.loads(await socket.recv()) == {"type": "connection_ack"}
        yield socket


async def closed(socket: ClientConnection) -> int | None:
    """Waits until the hub closes the connection and returns the close code. A frame before that is a failure."""
    with pytest.raises(ConnectionClosed):
        await asyncio.wait_for(socket.recv(), 30)
    return socket.close_code


def ping(size: int) -> str:
    """Returns a ping of `size` bytes."""
    frame = {"type": "ping", "payload": {"x": ""}}
    return json.dumps(frame | {"payload": {"x": "x" * (size - len(json.dumps(frame)))}})


@pytest.mark.parametrize("size", [MAX_FRAME_BYTES + 1, 10_000])
async def test_too_large_frame_closes_with_1009(hub: ServedHub, size: int) -> None:
    async with opened(hub) as socket:
        await socket.send(ping(MAX_FRAME_BYTES))
        assert json.loads(await socket.recv())["type"] == "pong"
        with suppress(ConnectionClosed):  # if the hub closes before all is sent
            await socket.send(ping(size))
        assert await closed(socket) == 1009
    assert "Traceback" not in "".join(hub.lines)


async def test_close_code_reaches_a_client_that_is_still_sending(hub: ServedHub) -> None:
    received, began = b"", float("-inf")
    async with asyncio.timeout(60):  # tries again if sending took longer than the hub lingers
        while not received and time.monotonic() - began >= WebSocketProtocol.linger_seconds:
            began = time.monotonic()
            received = await _send_too_large_frame(hub)
    assert received[:1] == b"\x88"
    assert received[2:4] == (1009).to_bytes(2, "big")


async def _send_too_large_frame(hub: ServedHub) -> bytes:
    """Sends a tenth of a huge frame, which is too large already. Returns the response, empty if it was cut off."""
    reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
    writer.write(
        b"GET /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"\x81\xff" + (50_000_000).to_bytes(8, "big") + bytes(4))
    try:
        for _ in range(100):
            writer.write(b"x" * 100_000)
            await writer.drain()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_client_without_init_is_closed_with_4408(hub: ServedHub) -> None:
    began = time.monotonic()
    async with opened(hub, init=False) as socket:
        assert await closed(socket) == 4408
    assert time.monotonic() - began >= INIT_SECONDS


@pytest.mark.slow
async def test_connection_closes_after_an_unanswered_ping(hub: ServedHub) -> None:
    began = time.monotonic()
    async with opened(hub) as socket:
        for _ in range(2):
            assert json.loads(await asyncio.wait_for(socket.recv(), 10)) == {"type": "ping"}
            await socket.send('{"type": "pong"}')
        assert 2 * PING_SECONDS <= time.monotonic() - began < 2 * PING_SECONDS + 10
        assert json.loads(await socket.recv()) == {"type": "ping"}
        assert await closed(socket) == 1001


async def test_frames_are_not_compressed(hub: ServedHub) -> None:
    async with opened(hub) as socket:
        assert socket.response is not None
        assert "Sec-WebSocket-Extensions" not in socket.response.headers
