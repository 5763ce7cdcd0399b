"""What one WebSocket can cost the hub, whatever its client sends and however little it reads."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import Message
from starlette.websockets import WebSocket

from tests.api.graphql_server.small_schema import World, service
from tests.support.hub import until
from xzepr.api.graphql.capacity import Capacity, CapacityLimits
from xzepr.api.graphql.connection import Connection, SocketLimits
from xzepr.api.graphql.sessions import Sessions

RECORD = 'mutation { record(name: "x") }'
FOLLOW = "subscription { ticks(count: 1, pause: true) { id } }"


async def _nothing(_: Any) -> None:
    return None


class Client:
    """The other end of a connection that no network delays: it takes what is written only while it reads."""

    def __init__(self) -> None:
        self._said: asyncio.Queue[Message] = asyncio.Queue()
        self.heard: list[Any] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.code: int | None = None
        self.reason = ""
        self.serving: asyncio.Task[None] | None = None
        self.answers_pings = True
        self.on_text: Callable[[Any], Awaitable[None]] = _nothing
        """Awaited with each message after it was taken, before its writer goes on."""

    def say(self, *messages: Any) -> None:
        for message in messages:
            self._said.put_nowait({"type": "websocket.receive", "text": json.dumps(message)})

    def ask(self, id: str, query: str) -> None:
        self.say({"type": "subscribe", "id": id, "payload": {"query": query}})

    async def receive(self) -> Message:
        return await self._said.get()

    async def send(self, message: Message) -> None:
        await self.reads.wait()
        if message["type"] == "websocket.close":
            self.code, self.reason = message["code"], message["reason"]
        elif message["type"] == "websocket.send":
            self.heard.append(json.loads(message["text"]))
            if self.answers_pings and self.heard[-1]["type"] == "ping":
                self.say({"type": "pong"})
            await self.on_text(self.heard[-1])

    def connects(self) -> None:
        self._said.put_nowait({"type": "websocket.connect"})

    def types(self, id: str) -> list[str]:
        return [message["type"] for message in self.heard if message.get("id") == id]

    async def ended(self) -> int | None:
        """Waits for the end of the connection; gives the code with which it was closed."""
        assert self.serving is not None
        await asyncio.wait_for(asyncio.shield(self.serving), 5)
        return self.code


@pytest.fixture
def world() -> World:
    return World()


@asynccontextmanager
async def connected(
    world: World,
    limits: SocketLimits | None = None,
    token: str | None = "good",
    *,
    capacity: Capacity | None = None,
) -> AsyncGenerator[Client]:
    """A client after its acknowledgement; without a token nobody knows who it is."""
    client = Client()
    client.connects()
    scope = {"type": "websocket", "path": "/graphql", "headers": [], "subprotocols": ["graphql-transport-ws"]}
    socket = WebSocket(scope, client.receive, client.send)
    await socket.accept("graphql-transport-ws")
    sessions = Sessions(world.authenticate, world, round_seconds=0.02, patience_seconds=0.05)
    places = capacity or Capacity(None, world)
    connection = Connection(socket, service(world), sessions, places, limits or SocketLimits())
    client.serving = asyncio.create_task(connection.run())
    client.say({"type": "connection_init", "payload": {"token": token} if token else {}})
    await until(lambda: bool(client.heard) or client.code is not None)
    try:
        yield client
    finally:
        client.serving.cancel()
        await asyncio.gather(client.serving, return_exceptions=True)


async def rounds(count: int = 20) -> None:
    """Lets everything run that can."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_unread_errors_count_as_operations(world: World) -> None:
    async with connected(world, token=None) as client:
        before = len(asyncio.all_tasks())
        client.reads.clear()
        for number in range(2000):
            client.ask(str(number), "{")
            if number % 50 == 49:
                await rounds()
        assert len(asyncio.all_tasks()) - before <= SocketLimits().max_operations
        client.reads.set()
        await until(lambda: len(client.heard) == 2001)
    assert {message["type"] for message in client.heard[1:]} == {"error"}


@pytest.mark.parametrize(("query", "last"), [(RECORD, "complete"), ("{ nothing }", "error")])
async def test_drain_waits_for_unread_last_message(world: World, query: str, last: str) -> None:
    world.may_record.set()

    async def stops_reading(message: Any) -> None:
        if message["type"] == "next":
            client.reads.clear()

    async with connected(world) as client:
        client.on_text = stops_reading
        if last == "error":
            client.reads.clear()
        before = asyncio.all_tasks()
        client.ask("a", query)
        await until(lambda: len(asyncio.all_tasks() - before) == 1 and not client.reads.is_set())
        await asyncio.sleep(0.1)  # its last message waits
        world.drain.begin()
        await asyncio.sleep(2.2)  # longer than a close waits
        assert client.code is None
        assert last not in client.types("a")
        client.reads.set()
        assert await client.ended() == 1012
    assert client.types("a")[-1] == last


async def test_operation_id_is_free_once_its_end_is_written(world: World) -> None:
    async with connected(world) as client:

        async def again(message: Any) -> None:
            if message["type"] == "complete":
                client.ask("a", "{ hello }")

        client.on_text = again
        client.ask("a", "{ hello }")
        await until(lambda: client.types("a").count("complete") >= 50)
        assert client.code is None


async def test_completed_mutation_keeps_its_slot(world: World) -> None:
    async with connected(world, SocketLimits(max_operations=1)) as client:
        client.ask("a", RECORD)
        await asyncio.wait_for(world.recording.wait(), 5)
        client.say({"type": "complete", "id": "a"})
        for number in range(20):
            client.ask(str(number), RECORD)
            client.say({"type": "complete", "id": str(number)})
        await until(lambda: len(client.heard) == 21)
        assert len(world.drain.mutations) == 1
        world.may_record.set()
        await until(lambda: not world.drain.mutations)
        client.ask("a", "{ hello }")
        await until(lambda: client.types("a") == ["next", "complete"])
    assert world.recorded == ["x"]
    assert {message["payload"][0]["extensions"]["code"] for message in client.heard[1:21]} == {"TOO_MANY_OPERATIONS"}


async def test_completed_subscription_frees_its_slot_at_once(world: World) -> None:
    async with connected(world, SocketLimits(max_operations=1)) as client:
        for number in range(20):
            client.ask(str(number), FOLLOW)
            client.say({"type": "complete", "id": str(number)})
        client.ask("last", "{ hello }")
        await until(lambda: client.types("last") == ["next", "complete"])
    assert not [message for message in client.heard if message["type"] == "error"]


async def test_subscription_at_drain_start_does_not_delay_close(world: World) -> None:
    async with connected(world) as client:
        client.ask("a", FOLLOW)
        world.drain.begin()
        assert await client.ended() == 1012
    assert client.types("a") == []


async def test_subscriptions_during_drain_do_not_delay_close(
    world: World,
) -> None:
    async with connected(world) as client:
        client.ask("m", RECORD)
        await asyncio.wait_for(world.recording.wait(), 5)
        world.drain.begin()
        await rounds()
        world.may_record.set()
        for number in range(40):
            await asyncio.sleep(0)
            client.ask(str(number), FOLLOW)
        assert await client.ended() == 1012
    assert client.types("m") == ["next", "complete"]
    assert len(client.heard) == 3


async def test_socket_closes_before_cancelled_operations_end(world: World) -> None:
    ending, may_end = asyncio.Event(), asyncio.Event()

    async def takes_its_time(_: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await may_end.wait()

    async with connected(world) as client:
        client.on_text = takes_its_time
        client.ask("a", FOLLOW)
        await until(lambda: client.types("a") == ["next"])
        client.reads.clear()
        world.now["good"] = "old"
        await asyncio.wait_for(ending.wait(), 5)
        client.reads.set()
        await until(lambda: client.code is not None)
        assert client.code == 4403
        await rounds()
        assert client.serving is not None
        assert not client.serving.done()
        may_end.set()
        await client.ended()


async def test_client_is_closed_once_it_ignores_pings(world: World) -> None:
    async with connected(world, SocketLimits(ping_seconds=0.01)) as client:
        await until(lambda: client.heard.count({"type": "ping"}) >= 4)
        client.answers_pings = False
        assert await client.ended() == 1001


async def test_anonymous_connection_is_closed_after_limit(world: World) -> None:
    limits = SocketLimits(anonymous_seconds=0.05)
    async with connected(world, limits) as known, connected(world, limits, None) as unknown:
        assert await unknown.ended() == 4401
        known.ask("a", "{ hello }")
        await until(lambda: known.types("a") == ["next", "complete"])


@pytest.mark.parametrize("token", ["good", None])
async def test_connections_of_one_actor_are_limited(world: World, token: str | None) -> None:
    places = Capacity(CapacityLimits(max_connections_per_actor=1), world)
    async with connected(world, token=token, capacity=places):
        async with connected(world, token=token, capacity=places) as second:
            assert await second.ended() == 1013
            assert second.reason.startswith("TOO_MANY_CONNECTIONS: ")
        async with connected(world, token="bob", capacity=places) as other:
            assert other.heard == [{"type": "connection_ack"}]
    async with connected(world, token=token, capacity=places) as later:
        assert later.heard == [{"type": "connection_ack"}]


@pytest.mark.parametrize("part", ["variables", "extensions"])
async def test_variables_kept_by_a_subscription_are_limited(world: World, part: str) -> None:
    large = {"x": "y" * 64 * 1024}
    async with connected(world) as client:
        for id, query in (("a", FOLLOW), ("b", "{ hello }")):
            client.say({"type": "subscribe", "id": id, "payload": {"query": query, part: large}})
        await until(lambda: len(client.heard) == 4)
    assert client.types("b") == ["next", "complete"]
    [error] = [message["payload"][0] for message in client.heard if message["type"] == "error"]
    assert error["extensions"]["code"] == "TOO_LARGE"
    assert world.subscribers.total() == 0


@pytest.mark.parametrize("kind", ["subscribe", "complete"])
async def test_operation_id_has_at_most_255_characters(world: World, kind: str) -> None:
    async with connected(world) as client:
        client.ask("x" * 255, "{ hello }")
        await until(lambda: client.types("x" * 255) == ["next", "complete"])
        client.say({"type": kind, "id": "x" * 256, "payload": {"query": "{ hello }"}})
        assert await client.ended() == 4400
