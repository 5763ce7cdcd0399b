"""What clients meet once a process drains: what runs is answered, nothing begins, and who follows is sent elsewhere."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tests.api.graphql_server.small_schema import BEARER, World, app, served
from tests.support.hub import until
from xzepr.api.drain import Drain
from xzepr.api.health import Health, health_routes

EVENTS = BEARER | {"Accept": "text/event-stream"}
FOLLOW = "subscription { ticks(count: 1, pause: true) { id } }"
RECORD = 'mutation { record(name: "x") }'
INIT = '{"type": "connection_init", "payload": {"token": "good"}}'
GRAPHQL_WS = [Subprotocol("graphql-transport-ws")]


@pytest.fixture
def world() -> World:
    return World()


@asynccontextmanager
async def opened(port: int) -> AsyncGenerator[ClientConnection]:
    """A socket after its acknowledgement."""
    async with connect(f"ws://127.0.0.1:{port}/graphql", subprotocols=GRAPHQL_WS) as socket:
        await socket.send(INIT)
        assert await hear(socket) == {"type": "connection_ack"}
        yield socket


async def ask(socket: ClientConnection, id: str, query: str) -> None:
    await socket.send(json.dumps({"id": id, "type": "subscribe", "payload": {"query": query}}))


async def hear(socket: ClientConnection) -> Any:
    return json.loads(await asyncio.wait_for(socket.recv(), 5))


async def closed(socket: ClientConnection) -> int | None:
    """The code with which the server closes; it must say nothing before."""
    with pytest.raises(ConnectionClosed):
        await asyncio.wait_for(socket.recv(), 5)
    return socket.close_code


async def test_drain_closes_subscription_without_complete(world: World) -> None:
    async with served(app(world)) as port, opened(port) as socket:
        await ask(socket, "a", FOLLOW)
        await hear(socket)
        world.drain.begin()
        assert await closed(socket) == 1012
        assert world.closed_stream.is_set()
    assert world.subscribers["websocket"] == 0


async def test_drain_answers_running_mutation_before_close(world: World) -> None:
    async with served(app(world)) as port, opened(port) as socket:
        await ask(socket, "a", RECORD)
        await asyncio.wait_for(world.recording.wait(), 5)
        world.drain.begin()
        await asyncio.sleep(0.1)
        assert len(world.drain.mutations) == 1
        world.may_record.set()
        assert await hear(socket) == {"id": "a", "type": "next", "payload": {"data": {"record": "x"}}}
        assert await hear(socket) == {"id": "a", "type": "complete"}
        assert await closed(socket) == 1012
    assert not world.drain.mutations


async def test_drain_rejects_new_operations(world: World) -> None:
    async with served(app(world)) as port, opened(port) as socket:
        await ask(socket, "a", RECORD)
        await asyncio.wait_for(world.recording.wait(), 5)
        world.drain.begin()
        before = len(world.contexts)
        for query in ("{ hello }", 'mutation { login(name: "a") }'):
            await ask(socket, "b", query)
            refused = await hear(socket)
            assert (refused["id"], refused["type"]) == ("b", "error")
            [error] = refused["payload"]
            assert error["extensions"] == {"code": "DRAINING", "retryAfter": 1}
        await ask(socket, "c", FOLLOW)  # is neither begun nor refused: clients ask again on the next socket
        await asyncio.sleep(0.1)
        world.may_record.set()
        assert (await hear(socket))["id"] == "a"
        assert (await hear(socket))["type"] == "complete"
        assert await closed(socket) == 1012
    assert len(world.contexts) == before
    assert world.recorded == ["x"]


@pytest.mark.parametrize("said", [[], [INIT]])
async def test_drain_closes_unauthenticated_socket(world: World, said: list[str]) -> None:
    world.now["good"] = "slow"
    async with served(app(world)) as port, connect(f"ws://127.0.0.1:{port}/graphql", subprotocols=GRAPHQL_WS) as socket:
        for message in said:
            await socket.send(message)
            await until(lambda: world.asked["good"] == 1)
        world.drain.begin()
        assert await closed(socket) == 1012


async def test_drain_rejects_new_connections_with_503(world: World) -> None:
    async with served(app(world)) as port, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        world.drain.begin()
        with pytest.raises(InvalidStatus) as refused:
            async with opened(port):
                pass
        assert (refused.value.response.status_code, refused.value.response.headers["Retry-After"]) == (503, "1")
        stream = await client.post("/graphql", json={"query": FOLLOW}, headers=EVENTS)
        assert (stream.status_code, stream.headers["retry-after"]) == (503, "1")
        assert stream.json()["errors"][0]["extensions"]["code"] == "DRAINING"
    assert not world.closed_stream.is_set()
    assert world.subscribers.total() == 0


async def test_drain_ends_streams_with_spread_retry_times(world: World) -> None:
    async with served(app(world)) as port, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        texts = [""] * 20

        async def follow(number: int) -> None:
            async with client.stream("POST", "/graphql", json={"query": FOLLOW}, headers=EVENTS) as response:
                async for part in response.aiter_text():
                    texts[number] += part

        following = asyncio.gather(*map(follow, range(20)))
        await until(lambda: all("id: 1" in text for text in texts))
        world.drain.begin()
        await asyncio.wait_for(following, 5)
    ends = [re.fullmatch(r':\n\nid: 1\nevent: next\ndata: \{"data":.*\}\n\nretry: (\d+)\n\n', text) for text in texts]
    pauses = {int(end[1]) for end in ends if end}
    assert None not in ends
    assert len(pauses) > 10
    assert 1000 <= min(pauses) <= max(pauses) <= 5000
    assert world.subscribers["sse"] == 0


async def test_drain_answers_mutation_over_event_stream(world: World) -> None:
    async with served(app(world)) as port, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        answering = asyncio.create_task(client.post("/graphql", json={"query": RECORD}, headers=EVENTS))
        await asyncio.wait_for(world.recording.wait(), 5)
        world.drain.begin()
        await asyncio.sleep(0.1)
        world.may_record.set()
        text = (await asyncio.wait_for(answering, 5)).text
    assert text.endswith('data: {"data":{"record":"x"}}\n\nevent: complete\ndata:\n\n')


async def test_drain_closes_connection_after_response(world: World) -> None:
    async with served(app(world)) as port, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        first = await client.post("/graphql", json={"query": "{ hello }"}, headers=BEARER)
        assert "connection" not in first.headers
        world.drain.begin()
        last = await client.post("/graphql", json={"query": "{ hello }"}, headers=BEARER)
        assert last.json() == {"data": {"hello": "hello world"}}
        assert last.headers["connection"] == "close"


def test_health_reports_draining_without_checks() -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    drain = Drain()
    client = TestClient(Starlette(routes=health_routes(Health(never, lambda: None, drain), None)))
    drain.begin()
    for path in ("/health", "/health/ready"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["status"]) == (503, "draining")
    assert client.get("/health/live").status_code == 200
