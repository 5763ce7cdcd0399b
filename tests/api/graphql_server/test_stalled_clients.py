"""Clients that stop reading, on real sockets: slow clients receive everything, stalled ones are disconnected."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.api.graphql_server.small_schema import FakeBackend, app, served
from tests.support.hub import until
from xzepr.api.graphql_server import liveness
from xzepr.api.graphql_server.limits import SocketLimits

TICK_COUNT = 8_000
TICKS = f"subscription {{ ticks(count: {TICK_COUNT}, pause: true) {{ id text }} }}"  # 16 MB
ONE_TICK = "subscription { ticks(count: 1, pause: true) { id } }"
SHORT_LIMITS = SocketLimits(ping_seconds=0.1, stalled_seconds=0.5)
LONG_LIMITS = SocketLimits(ping_seconds=0.05, stalled_seconds=30)
TRANSPORTS = pytest.mark.parametrize("transport", ["websocket", "sse"])


@dataclass(frozen=True, slots=True)
class Client:
    """A client that reads only on request. `next_id` returns a tick's id, None at the end of the connection."""

    next_id: Callable[[], Awaitable[int | None]]
    close_code: Callable[[], int | None] = lambda: None


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@asynccontextmanager
async def following(backend: FakeBackend, transport: str, query: str, limits: SocketLimits) -> AsyncGenerator[Client]:
    """Yields a client whose subscription has begun and that has not read any message."""
    asgi = app(backend, sockets=limits, heartbeat_seconds=limits.ping_seconds, stalled_seconds=limits.stalled_seconds)
    open_client = _web_socket if transport == "websocket" else _event_stream
    async with served(asgi) as port, open_client(port, query) as client:
        await until(lambda: backend.subscribers[transport] == 1)
        yield client


def _small_buffer_socket(port: int) -> socket.socket:
    """Returns a connected socket with a small receive buffer, so that the hub's writes soon block."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
    connection.connect(("127.0.0.1", port))
    return connection


@asynccontextmanager
async def _web_socket(port: int, query: str) -> AsyncGenerator[Client]:
    protocols = [Subprotocol("graphql-transport-ws")]
    url = f"ws://127.0.0.1:{port}/graphql"
    async with connect(
        url,
        sock=_small_buffer_socket(port),
        subprotocols=protocols,
        compression=None,
        ping_interval=None,
        close_timeout=0,
    ) as websocket:
        await websocket.send('{"type": "connection_init", "payload": {"token": "good"}}')
        await websocket.recv()
        await websocket.send(json.dumps({"id": "a", "type": "subscribe", "payload": {"query": query}}))

        async def next_id() -> int | None:
            try:
                while (message := json.loads(await websocket.recv()))["type"] == "ping":
                    await websocket.send('{"type": "pong"}')
            except ConnectionClosed:
                return None
            return message["payload"]["data"]["ticks"]["id"]

        yield Client(next_id, lambda: websocket.close_code)


def _post(request: object) -> bytes:
    body = json.dumps(request).encode()
    return (
        b"POST /graphql HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer good\r\nAccept: text/event-stream\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    )


@asynccontextmanager
async def _event_stream(port: int, query: str) -> AsyncGenerator[Client]:
    reader, writer = await asyncio.open_connection(sock=_small_buffer_socket(port))
    writer.write(_post({"query": query}))

    async def next_id() -> int | None:
        try:
            while (line := await reader.readline()).endswith(b"\n"):
                if line.startswith(b"data: "):
                    return json.loads(line.removeprefix(b"data: "))["data"]["ticks"]["id"]
        except ConnectionError:
            pass
        return None

    try:
        yield Client(next_id)
    finally:
        writer.close()


@TRANSPORTS
async def test_client_that_pauses_receives_everything_once(backend: FakeBackend, transport: str) -> None:
    async with following(backend, transport, TICKS, LONG_LIMITS) as client:
        await asyncio.sleep(1)  # twenty pings
        assert backend.sent < TICK_COUNT
        assert backend.subscribers[transport] == 1
        assert [await client.next_id() for _ in range(TICK_COUNT)] == list(range(1, TICK_COUNT + 1))


@TRANSPORTS
async def test_stalled_client_is_disconnected(backend: FakeBackend, transport: str) -> None:
    async with following(backend, transport, TICKS, SHORT_LIMITS) as client:
        await asyncio.wait_for(backend.stream_closed.wait(), 10)
        await until(lambda: backend.subscribers[transport] == 0)
        sent = backend.sent
        read = 0
        while await asyncio.wait_for(client.next_id(), 5) is not None:
            read += 1
        assert read <= sent < TICK_COUNT
        assert backend.sent == sent


async def test_client_that_ignores_a_ping_is_closed(backend: FakeBackend) -> None:
    async with following(backend, "websocket", ONE_TICK, SocketLimits(ping_seconds=0.1, stalled_seconds=60)) as client:
        await until(lambda: backend.subscribers["websocket"] == 0, seconds=3)
        assert await client.next_id() == 1
        assert await client.next_id() is None
        assert client.close_code() == 1001


class Clock:
    """A clock that the test advances. Counts how often it is read."""

    def __init__(self) -> None:
        self.now = 0.0
        self.reads = 0

    def __call__(self) -> float:
        self.reads += 1
        return self.now


@TRANSPORTS
async def test_slow_client_is_kept_beyond_the_stall_limit(
    backend: FakeBackend, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, read = Clock(), 0
    monkeypatch.setattr(liveness, "monotonic", clock)
    async with following(backend, transport, TICKS, LONG_LIMITS) as client:
        for _ in range(8):
            clock.now += 0.6 * LONG_LIMITS.stalled_seconds
            sent, reads = backend.sent, clock.reads
            await until(lambda since=reads: clock.reads > since)
            while backend.sent < sent + 2:  # until another write has finished
                read += 1
                assert await client.next_id() == read
        assert backend.sent < TICK_COUNT
        assert backend.subscribers[transport] == 1


LARGE = {
    "query": "query ($n: String!) { " + " ".join(f"a{n}: hello(name: $n)" for n in range(40)) + " }",
    "variables": {"n": "x" * 500_000},
}
STRICT_LIMITS = SocketLimits(ping_seconds=0.1, stalled_seconds=3)


async def read_slowly(reader: asyncio.StreamReader, end: bytes) -> None:
    """Reads at most 2 MB/s for 5 s, then quickly up to `end`.

    The slow part takes longer than the stall limit and the close timeout.
    """
    loop = asyncio.get_running_loop()
    begun, read = loop.time(), 0
    while (seconds := loop.time() - begun) < 5:
        # 2 of 20 MB a second. The kernel accepts more data only once a third of its buffer has been read.
        if read < seconds * 2_000_000:
            read += len(await reader.read(16 * 1024))
        await asyncio.sleep(0.005)
    tail = b""
    while end not in tail:
        chunk = await asyncio.wait_for(reader.read(1 << 16), 5)
        assert chunk, "the connection was closed before the end of the response"
        tail = tail[-100:] + chunk


@pytest.mark.slow
@pytest.mark.parametrize("limits", [SocketLimits(), STRICT_LIMITS])
async def test_large_sse_response_arrives_over_slow_link(backend: FakeBackend, limits: SocketLimits) -> None:
    asgi = app(backend, heartbeat_seconds=limits.ping_seconds, stalled_seconds=limits.stalled_seconds)
    async with served(asgi) as port:
        reader, writer = await asyncio.open_connection(sock=_small_buffer_socket(port), limit=16 * 1024)
        writer.write(_post(LARGE))
        await reader.readuntil(b"event: next\n")
        await read_slowly(reader, b"event: complete\ndata:\n\n\r\n0\r\n\r\n")
        writer.close()


@pytest.mark.slow
async def test_large_websocket_response_arrives_over_slow_link(backend: FakeBackend) -> None:
    async with served(app(backend, sockets=STRICT_LIMITS)) as port:
        reader, writer = await asyncio.open_connection(sock=_small_buffer_socket(port), limit=16 * 1024)
        writer.write(
            b"GET /graphql HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        writer.write(_frame({"type": "connection_init", "payload": {"token": "good"}}))
        for id, payload in (("a", LARGE), ("b", {"query": "{ hello }"})):
            writer.write(_frame({"id": id, "type": "subscribe", "payload": payload}))
        await reader.readuntil(b"connection_ack")
        await read_slowly(reader, b'{"type":"complete","id":"b"}')
        writer.close()


def _frame(message: object) -> bytes:
    """Returns a text frame as clients send it, masked with zeros."""
    text = json.dumps(message).encode()
    return b"\x81\xff" + len(text).to_bytes(8, "big") + bytes(4) + text
