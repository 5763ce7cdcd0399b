"""Clients that stop reading, on real sockets: slow ones are waited for and miss nothing, stalled ones are let go."""

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

from tests.api.graphql_server.small_schema import World, app, served
from tests.support.hub import until
from xzepr.api.graphql import pulse
from xzepr.api.graphql.connection import SocketLimits

MANY = 8_000
TICKS = f"subscription {{ ticks(count: {MANY}, pause: true) {{ id text }} }}"  # 16 MB
QUIET = "subscription { ticks(count: 1, pause: true) { id } }"
SOON = SocketLimits(ping_seconds=0.1, stalled_seconds=0.5)
PATIENT = SocketLimits(ping_seconds=0.05, stalled_seconds=30)
TRANSPORTS = pytest.mark.parametrize("transport", ["websocket", "sse"])


@dataclass(frozen=True, slots=True)
class Client:
    """Reads only when it is told to; `id` gives the next tick's, None at the end of the connection."""

    id: Callable[[], Awaitable[int | None]]
    close_code: Callable[[], int | None] = lambda: None


@pytest.fixture
def world() -> World:
    return World()


@asynccontextmanager
async def following(world: World, transport: str, query: str, limits: SocketLimits) -> AsyncGenerator[Client]:
    """A client whose subscription has begun, and which has read nothing of it."""
    asgi = app(world, sockets=limits, heartbeat_seconds=limits.ping_seconds, stalled_seconds=limits.stalled_seconds)
    opened = _web_socket if transport == "websocket" else _event_stream
    async with served(asgi) as port, opened(port, query) as client:
        await until(lambda: world.subscribers[transport] == 1)
        yield client


def _narrow(port: int) -> socket.socket:
    """A connection whose own buffer is small, so that the hub soon meets a full one."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
    one.connect(("127.0.0.1", port))
    return one


@asynccontextmanager
async def _web_socket(port: int, query: str) -> AsyncGenerator[Client]:
    protocols = [Subprotocol("graphql-transport-ws")]
    url = f"ws://127.0.0.1:{port}/graphql"
    async with connect(
        url, sock=_narrow(port), subprotocols=protocols, compression=None, ping_interval=None, close_timeout=0
    ) as one:
        await one.send('{"type": "connection_init", "payload": {"token": "good"}}')
        await one.recv()
        await one.send(json.dumps({"id": "a", "type": "subscribe", "payload": {"query": query}}))

        async def id() -> int | None:
            try:
                while (message := json.loads(await one.recv()))["type"] == "ping":
                    await one.send('{"type": "pong"}')
            except ConnectionClosed:
                return None
            return message["payload"]["data"]["ticks"]["id"]

        yield Client(id, lambda: one.close_code)


def _post(request: object) -> bytes:
    body = json.dumps(request).encode()
    return (
        b"POST /graphql HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer good\r\nAccept: text/event-stream\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    )


@asynccontextmanager
async def _event_stream(port: int, query: str) -> AsyncGenerator[Client]:
    reader, writer = await asyncio.open_connection(sock=_narrow(port))
    writer.write(_post({"query": query}))

    async def id() -> int | None:
        try:
            while (line := await reader.readline()).endswith(b"\n"):
                if line.startswith(b"data: "):
                    return json.loads(line.removeprefix(b"data: "))["data"]["ticks"]["id"]
        except ConnectionError:
            pass
        return None

    try:
        yield Client(id)
    finally:
        writer.close()


@TRANSPORTS
async def test_client_that_pauses_receives_everything_once(world: World, transport: str) -> None:
    async with following(world, transport, TICKS, PATIENT) as client:
        await asyncio.sleep(1)  # twenty pings
        assert world.sent < MANY
        assert world.subscribers[transport] == 1
        assert [await client.id() for _ in range(MANY)] == list(range(1, MANY + 1))


@TRANSPORTS
async def test_stalled_client_is_disconnected(world: World, transport: str) -> None:
    async with following(world, transport, TICKS, SOON) as client:
        await asyncio.wait_for(world.closed_stream.wait(), 10)
        await until(lambda: world.subscribers[transport] == 0)
        sent = world.sent
        read = 0
        while await asyncio.wait_for(client.id(), 5) is not None:
            read += 1
        assert read <= sent < MANY
        assert world.sent == sent


async def test_client_that_ignores_a_ping_is_closed(world: World) -> None:
    async with following(world, "websocket", QUIET, SocketLimits(ping_seconds=0.1, stalled_seconds=60)) as client:
        await until(lambda: world.subscribers["websocket"] == 0, seconds=3)
        assert await client.id() == 1
        assert await client.id() is None
        assert client.close_code() == 1001


class Clock:
    """Put forward by hand; counts how often it is looked at."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return self.now


@TRANSPORTS
async def test_slow_client_is_kept_beyond_the_stall_limit(
    world: World, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, read = Clock(), 0
    monkeypatch.setattr(pulse, "monotonic", clock)
    async with following(world, transport, TICKS, PATIENT) as client:
        for _ in range(8):
            clock.now += 0.6 * PATIENT.stalled_seconds
            sent, looks = world.sent, clock.looks
            await until(lambda since=looks: clock.looks > since)
            while world.sent < sent + 2:  # until another write went through
                read += 1
                assert await client.id() == read
        assert world.sent < MANY
        assert world.subscribers[transport] == 1


LARGE = {
    "query": "query ($n: String!) { " + " ".join(f"a{n}: hello(name: $n)" for n in range(40)) + " }",
    "variables": {"n": "x" * 500_000},
}
STRICT = SocketLimits(ping_seconds=0.1, stalled_seconds=3)


async def read_slowly(reader: asyncio.StreamReader, end: bytes) -> None:
    """Reads a little all the time, for longer than a client may stand still and than an end is waited for; then all of
    it, to the end."""
    loop = asyncio.get_running_loop()
    begun, read = loop.time(), 0
    while (seconds := loop.time() - begun) < 5:
        if read < seconds * 2_000_000:  # of twenty; the kernel takes more only when a third of what it holds is read
            read += len(await reader.read(16 * 1024))
        await asyncio.sleep(0.005)
    tail = b""
    while end not in tail:
        part = await asyncio.wait_for(reader.read(1 << 16), 5)
        assert part, "it was cut off"
        tail = tail[-100:] + part


@pytest.mark.slow
@pytest.mark.parametrize("limits", [SocketLimits(), STRICT])
async def test_large_sse_response_arrives_over_slow_link(world: World, limits: SocketLimits) -> None:
    asgi = app(world, heartbeat_seconds=limits.ping_seconds, stalled_seconds=limits.stalled_seconds)
    async with served(asgi) as port:
        reader, writer = await asyncio.open_connection(sock=_narrow(port), limit=16 * 1024)
        writer.write(_post(LARGE))
        await reader.readuntil(b"event: next\n")
        await read_slowly(reader, b"event: complete\ndata:\n\n\r\n0\r\n\r\n")
        writer.close()


@pytest.mark.slow
async def test_large_websocket_response_arrives_over_slow_link(world: World) -> None:
    async with served(app(world, sockets=STRICT)) as port:
        reader, writer = await asyncio.open_connection(sock=_narrow(port), limit=16 * 1024)
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
    """A frame as clients send it, masked with zeros."""
    text = json.dumps(message).encode()
    return b"\x81\xff" + len(text).to_bytes(8, "big") + bytes(4) + text
