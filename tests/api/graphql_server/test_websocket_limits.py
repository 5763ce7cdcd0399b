"""Limits on what one WebSocket costs the hub, whatever its client sends and however little it reads."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import Message
from starlette.websockets import WebSocket

from tests.api.graphql_server.small_schema import FakeBackend, service
from tests.support.hub import until
from xzepr.api.graphql_server.connection import WebSocketConnection
from xzepr.api.graphql_server.limits import ConnectionLimiter, ConnectionLimits, SocketLimits
from xzepr.api.graphql_server.sessions import Sessions

RECORD = 'mutation { record(name: "x") }'
FOLLOW = "subscription { ticks(count: 1, pause: true) { id } }"


async def _do_nothing(_: Any) -> None:
    return None


class Client:
    """The other end of a connection without a network. Accepts writes only while it reads."""

    def __init__(self) -> None:
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.received: list[Any] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self.code: int | None = None
        self.reason = ""
        self.serving: asyncio.Task[None] | None = None
        self.answers_pings = True
        # Awaited with each message once it is received, before its writer continues.
        self.on_text: Callable[[Any], Awaitable[None]] = _do_nothing

    def put(self, *messages: Any) -> None:
        """Sends messages to the hub."""
        for message in messages:
            self._incoming.put_nowait({"type": "websocket.receive", "text": json.dumps(message)})

    def subscribe(self, id: str, query: str) -> None:
        self.put({"type": "subscribe", "id": id, "payload": {"query": query}})

    async def receive(self) -> Message:
        return await self._incoming.get()

    async def send(self, message: Message) -> None:
        await self.reading.wait()
        if message["type"] == "websocket.close":
            self.code, self.reason = message["code"], message["reason"]
        elif message["type"] == "websocket.send":
            self.received.append(json.loads(message["text"]))
            if self.answers_pings and self.received[-1]["type"] == "ping":
                self.put({"type": "pong"})
            await self.on_text(self.received[-1])

    def connect(self) -> None:
        self._incoming.put_nowait({"type": "websocket.connect"})

    def types(self, id: str) -> list[str]:
        return [message["type"] for message in self.received if message.get("id") == id]

    async def wait_until_closed(self) -> int | None:
        """Waits for the end of the connection; returns the code with which it was closed."""
        assert self.serving is not None
        await asyncio.wait_for(asyncio.shield(self.serving), 5)
        return self.code


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@asynccontextmanager
async def connected(
    backend: FakeBackend,
    limits: SocketLimits | None = None,
    token: str | None = "good",
    *,
    limiter: ConnectionLimiter | None = None,
) -> AsyncGenerator[Client]:
    """Yields a client after its acknowledgement; without a token it stays anonymous."""
    client = Client()
    client.connect()
    scope = {"type": "websocket", "path": "/graphql", "headers": [], "subprotocols": ["graphql-transport-ws"]}
    socket = WebSocket(scope, client.receive, client.send)
    await socket.accept("graphql-transport-ws")
    sessions = Sessions(backend.authenticate, backend, interval_seconds=0.02, timeout_seconds=0.05)
    limiter = limiter or ConnectionLimiter(None, backend)
    connection = WebSocketConnection(
        socket=socket, service=service(backend), sessions=sessions, limiter=limiter, limits=limits or SocketLimits()
    )
    client.serving = asyncio.create_task(connection.run())
    client.put({"type": "connection_init", "payload": {"token": token} if token else {}})
    await until(lambda: bool(client.received) or client.code is not None)
    try:
        yield client
    finally:
        client.serving.cancel()
        await asyncio.gather(client.serving, return_exceptions=True)


async def run_ready_tasks(count: int = 20) -> None:
    """Lets every task run that is ready."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_unread_errors_count_as_operations(backend: FakeBackend) -> None:
    async with connected(backend, token=None) as client:
        before = len(asyncio.all_tasks())
        client.reading.clear()
        for number in range(2000):
            client.subscribe(str(number), "{")
            if number % 50 == 49:
                await run_ready_tasks()
        assert len(asyncio.all_tasks()) - before <= SocketLimits().max_operations
        client.reading.set()
        await until(lambda: len(client.received) == 2001)
    assert {message["type"] for message in client.received[1:]} == {"error"}


@pytest.mark.parametrize(("query", "last"), [(RECORD, "complete"), ("{ nothing }", "error")])
async def test_drain_waits_for_unread_last_message(backend: FakeBackend, query: str, last: str) -> None:
    backend.may_record.set()

    async def stops_reading(message: Any) -> None:
        if message["type"] == "next":
            client.reading.clear()

    async with connected(backend) as client:
        client.on_text = stops_reading
        if last == "error":
            client.reading.clear()
        before = asyncio.all_tasks()
        client.subscribe("a", query)
        await until(lambda: len(asyncio.all_tasks() - before) == 1 and not client.reading.is_set())
        await asyncio.sleep(0.1)  # the last message waits to be read
        backend.drain.begin()
        await asyncio.sleep(2.2)  # longer than the timeout of a close
        assert client.code is None
        assert last not in client.types("a")
        client.reading.set()
        assert await client.wait_until_closed() == 1012
    assert client.types("a")[-1] == last


async def test_operation_id_is_free_once_its_end_is_written(backend: FakeBackend) -> None:
    async with connected(backend) as client:

        async def subscribe_again(message: Any) -> None:
            if message["type"] == "complete":
                client.subscribe("a", "{ hello }")

        client.on_text = subscribe_again
        client.subscribe("a", "{ hello }")
        await until(lambda: client.types("a").count("complete") >= 50)
        assert client.code is None


async def test_completed_mutation_keeps_its_slot(backend: FakeBackend) -> None:
    async with connected(backend, SocketLimits(max_operations=1)) as client:
        client.subscribe("a", RECORD)
        await asyncio.wait_for(backend.recording.wait(), 5)
        client.put({"type": "complete", "id": "a"})
        for number in range(20):
            client.subscribe(str(number), RECORD)
            client.put({"type": "complete", "id": str(number)})
        await until(lambda: len(client.received) == 21)
        assert len(backend.drain.mutations) == 1
        backend.may_record.set()
        await until(lambda: not backend.drain.mutations)
        client.subscribe("a", "{ hello }")
        await until(lambda: client.types("a") == ["next", "complete"])
    assert backend.recorded == ["x"]
    assert {message["payload"][0]["extensions"]["code"] for message in client.received[1:21]} == {"TOO_MANY_OPERATIONS"}


async def test_completed_subscription_frees_its_slot_at_once(backend: FakeBackend) -> None:
    async with connected(backend, SocketLimits(max_operations=1)) as client:
        for number in range(20):
            client.subscribe(str(number), FOLLOW)
            client.put({"type": "complete", "id": str(number)})
        client.subscribe("last", "{ hello }")
        await until(lambda: client.types("last") == ["next", "complete"])
    assert not [message for message in client.received if message["type"] == "error"]


async def test_subscription_at_drain_start_does_not_delay_close(backend: FakeBackend) -> None:
    async with connected(backend) as client:
        client.subscribe("a", FOLLOW)
        backend.drain.begin()
        assert await client.wait_until_closed() == 1012
    assert client.types("a") == []


async def test_subscriptions_during_drain_do_not_delay_close(
    backend: FakeBackend,
) -> None:
    async with connected(backend) as client:
        client.subscribe("m", RECORD)
        await asyncio.wait_for(backend.recording.wait(), 5)
        backend.drain.begin()
        await run_ready_tasks()
        backend.may_record.set()
        for number in range(40):
            await asyncio.sleep(0)
            client.subscribe(str(number), FOLLOW)
        assert await client.wait_until_closed() == 1012
    assert client.types("m") == ["next", "complete"]
    assert len(client.received) == 3


async def test_socket_closes_before_cancelled_operations_end(backend: FakeBackend) -> None:
    ending, may_end = asyncio.Event(), asyncio.Event()

    async def ends_slowly(_: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await may_end.wait()

    async with connected(backend) as client:
        client.on_text = ends_slowly
        client.subscribe("a", FOLLOW)
        await until(lambda: client.types("a") == ["next"])
        client.reading.clear()
        backend.token_states["good"] = "old"
        await asyncio.wait_for(ending.wait(), 5)
        client.reading.set()
        await until(lambda: client.code is not None)
        assert client.code == 4403
        await run_ready_tasks()
        assert client.serving is not None
        assert not client.serving.done()
        may_end.set()
        await client.wait_until_closed()


async def test_client_is_closed_once_it_ignores_pings(backend: FakeBackend) -> None:
    async with connected(backend, SocketLimits(ping_seconds=0.01)) as client:
        await until(lambda: client.received.count({"type": "ping"}) >= 4)
        client.answers_pings = False
        assert await client.wait_until_closed() == 1001


async def test_anonymous_connection_is_closed_after_limit(backend: FakeBackend) -> None:
    limits = SocketLimits(anonymous_seconds=0.05)
    async with connected(backend, limits) as authenticated, connected(backend, limits, None) as anonymous:
        assert await anonymous.wait_until_closed() == 4401
        authenticated.subscribe("a", "{ hello }")
        await until(lambda: authenticated.types("a") == ["next", "complete"])


@pytest.mark.parametrize("token", ["good", None])
async def test_connections_of_one_actor_are_limited(backend: FakeBackend, token: str | None) -> None:
    limiter = ConnectionLimiter(ConnectionLimits(max_connections_per_actor=1), backend)
    async with connected(backend, token=token, limiter=limiter):
        async with connected(backend, token=token, limiter=limiter) as second:
            assert await second.wait_until_closed() == 1013
            assert second.reason.startswith("TOO_MANY_CONNECTIONS: ")
        async with connected(backend, token="bob", limiter=limiter) as other:
            assert other.received == [{"type": "connection_ack"}]
    async with connected(backend, token=token, limiter=limiter) as later:
        assert later.received == [{"type": "connection_ack"}]


@pytest.mark.parametrize("part", ["variables", "extensions"])
async def test_data_kept_by_a_subscription_is_limited(backend: FakeBackend, part: str) -> None:
    large = {"x": "y" * 64 * 1024}
    async with connected(backend) as client:
        for id, query in (("a", FOLLOW), ("b", "{ hello }")):
            client.put({"type": "subscribe", "id": id, "payload": {"query": query, part: large}})
        await until(lambda: len(client.received) == 4)
    assert client.types("b") == ["next", "complete"]
    [error] = [message["payload"][0] for message in client.received if message["type"] == "error"]
    assert error["extensions"]["code"] == "TOO_LARGE"
    assert backend.subscribers.total() == 0


@pytest.mark.parametrize("kind", ["subscribe", "complete"])
async def test_operation_id_has_at_most_255_characters(backend: FakeBackend, kind: str) -> None:
    async with connected(backend) as client:
        client.subscribe("x" * 255, "{ hello }")
        await until(lambda: client.types("x" * 255) == ["next", "complete"])
        client.put({"type": kind, "id": "x" * 256, "payload": {"query": "{ hello }"}})
        assert await client.wait_until_closed() == 4400
