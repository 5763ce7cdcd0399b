"""A draining process: running operations are answered, new ones are rejected and subscribers are disconnected."""

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

from tests.api.graphql_server.small_schema import BEARER, FakeBackend, app, served
from tests.support.hub import until
from xzepr.api.drain import Drain
from xzepr.api.health import Health, health_routes

EVENTS = BEARER | {"Accept": "text/event-stream"}
FOLLOW = "subscription { ticks(count: 1, pause: true) { id } }"
RECORD = 'mutation { record(name: "x") }'
INIT = '{"type": "connection_init", "payload": {"token": "good"}}'
GRAPHQL_WS = [Subprotocol("graphql-transport-ws")]


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@asynccontextmanager
async def opened(port: int) -> AsyncGenerator[ClientConnection]:
    """Yields a socket after its acknowledgement."""
    async with connect(f"ws://127.0.0.1:{port}/graphql", subprotocols=GRAPHQL_WS) as socket:
        await socket.send(INIT)
        assert await receive(socket) == {"type": "connection_ack"}
        yield socket


async def subscribe(socket: ClientConnection, id: str, query: str) -> None:
    await socket.send(json.dumps({"id": id, "type": "subscribe", "payload": {"query": query}}))


async def receive(socket: ClientConnection) -> Any:
    return json.loads(await asyncio.wait_for(socket.recv(), 5))


async def close_code_of(socket: ClientConnection) -> int | None:
    """Returns the code with which the server closes; fails if a message comes before."""
    with pytest.raises(ConnectionClosed):
        await asyncio.wait_for(socket.recv(), 5)
    return socket.close_code


async def test_drain_closes_subscription_without_complete(backend: FakeBackend) -> None:
    async with served(app(backend)) as port, opened(port) as socket:
        await subscribe(socket, "a", FOLLOW)
        await receive(socket)
        backend.drain.begin()
        assert await close_code_of(socket) == 1012
        assert backend.stream_closed.is_set()
    assert backend.subscribers["websocket"] == 0


async def test_drain_answers_running_mutation_before_close(backend: FakeBackend) -> None:
    async with served(app(backend)) as port, opened(port) as socket:
        await subscribe(socket, "a", RECORD)
        await asyncio.wait_for(backend.recording.wait(), 5)
        backend.drain.begin()
        await asyncio.sleep(0.1)
        assert len(backend.drain.mutations) == 1
        backend.may_record.set()
        assert await receive(socket) == {"id": "a", "type": "next", "payload": {"data": {"record": "x"}}}
        assert await receive(socket) == {"id": "a", "type": "complete"}
        assert await close_code_of(socket) == 1012
    assert not backend.drain.mutations


async def test_drain_rejects_new_operations(backend: FakeBackend) -> None:
    async with served(app(backend)) as port, opened(port) as socket:
        await subscribe(socket, "a", RECORD)
        await asyncio.wait_for(backend.recording.wait(), 5)
        backend.drain.begin()
        before = len(backend.contexts)
        for query in ("{ hello }", 'mutation { login(name: "a") }'):
            await subscribe(socket, "b", query)
            rejection = await receive(socket)
            assert (rejection["id"], rejection["type"]) == ("b", "error")
            [error] = rejection["payload"]
            assert error["extensions"] == {"code": "DRAINING", "retryAfter": 1}
        # A new subscription is neither begun nor rejected: clients repeat it on their next socket.
        await subscribe(socket, "c", FOLLOW)
        await asyncio.sleep(0.1)
        backend.may_record.set()
        assert (await receive(socket))["id"] == "a"
        assert (await receive(socket))["type"] == "complete"
        assert await close_code_of(socket) == 1012
    assert len(backend.contexts) == before
    assert backend.recorded == ["x"]


@pytest.mark.parametrize("messages", [[], [INIT]])
async def test_drain_closes_unauthenticated_socket(backend: FakeBackend, messages: list[str]) -> None:
    backend.token_states["good"] = "slow"
    async with (
        served(app(backend)) as port,
        connect(f"ws://127.0.0.1:{port}/graphql", subprotocols=GRAPHQL_WS) as socket,
    ):
        for message in messages:
            await socket.send(message)
            await until(lambda: backend.lookups["good"] == 1)
        backend.drain.begin()
        assert await close_code_of(socket) == 1012


async def test_drain_rejects_new_connections_with_503(backend: FakeBackend) -> None:
    async with served(app(backend)) as port, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        backend.drain.begin()
        with pytest.raises(InvalidStatus) as rejection:
            async with opened(port):
                pass
        assert (rejection.value.response.status_code, rejection.value.response.headers["Retry-After"]) == (503, "1")
        stream = await client.post("/graphql", json={"query": FOLLOW}, headers=EVENTS)
        assert (stream.status_code, stream.headers["retry-after"]) == (503, "1")
        assert stream.json()["errors"][0]["extensions"]["code"] == "DRAINING"
    assert not backend.stream_closed.is_set()
    assert backend.subscribers.total() == 0


async def test_drain_ends_streams_with_spread_retry_times(backend: FakeBackend) -> None:
    async with served(app(backend)) as port, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        texts = [""] * 20

        async def follow(number: int) -> None:
            async with client.stream("POST", "/graphql", json={"query": FOLLOW}, headers=EVENTS) as response:
                async for chunk in response.aiter_text():
                    texts[number] += chunk

        following = asyncio.gather(*map(follow, range(20)))
        await until(lambda: all("id: 1" in text for text in texts))
        backend.drain.begin()
        await asyncio.wait_for(following, 5)
    ends = [re.fullmatch(r':\n\nid: 1\nevent: next\ndata: \{"data":.*\}\n\nretry: (\d+)\n\n', text) for text in texts]
    retry_times = {int(end[1]) for end in ends if end}
    assert None not in ends
    assert len(retry_times) > 10
    assert 1000 <= min(retry_times) <= max(retry_times) <= 5000
    assert backend.subscribers["sse"] == 0


async def test_drain_answers_mutation_over_event_stream(backend: FakeBackend) -> None:
    async with served(app(backend)) as port, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        request = asyncio.create_task(client.post("/graphql", json={"query": RECORD}, headers=EVENTS))
        await asyncio.wait_for(backend.recording.wait(), 5)
        backend.drain.begin()
        await asyncio.sleep(0.1)
        backend.may_record.set()
        text = (await asyncio.wait_for(request, 5)).text
    assert text.endswith('data: {"data":{"record":"x"}}\n\nevent: complete\ndata:\n\n')


async def test_drain_closes_connection_after_response(backend: FakeBackend) -> None:
    async with served(app(backend)) as port, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        first = await client.post("/graphql", json={"query": "{ hello }"}, headers=BEARER)
        assert "connection" not in first.headers
        backend.drain.begin()
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
        response = client.get(path)
        assert (response.status_code, response.json()["status"]) == (503, "draining")
    assert client.get("/health/live").status_code == 200
