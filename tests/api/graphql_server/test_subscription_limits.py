"""Subscription limits and counts of a whole hub, as its settings and `/metrics` have them."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.api.graphql_server.small_schema import served
from tests.support.hub import until
from tests.support.requests import InProcessClient, in_process_client
from xzepr.app import create_app

FOLLOW = "subscription { stream { __typename } }"


@asynccontextmanager
async def hub(database_url: str, **stream: Any) -> AsyncGenerator[tuple[InProcessClient, int]]:
    """Serves a hub with these `stream` settings; yields its client and its port."""
    settings = {"stream": stream, "database": {"min_connections": 1, "max_connections": 4}}
    async with in_process_client(database_url, settings) as client, served(create_app(client.hub)) as port:
        yield client, port


@asynccontextmanager
async def socket(port: int, secret: str) -> AsyncGenerator[ClientConnection]:
    """Yields a socket after its acknowledgement."""
    protocols = [Subprotocol("graphql-transport-ws")]
    async with connect(f"ws://127.0.0.1:{port}/graphql", subprotocols=protocols) as connection:
        await connection.send(json.dumps({"type": "connection_init", "payload": {"apiKey": secret}}))
        assert json.loads(await connection.recv()) == {"type": "connection_ack"}
        yield connection


async def follow(socket: ClientConnection, id: str) -> str:
    """Starts another subscription; returns `next` or the code of the error."""
    await socket.send(json.dumps({"type": "subscribe", "id": id, "payload": {"query": FOLLOW}}))
    while (response := json.loads(await socket.recv()))["id"] != id:
        pass
    return response["type"] if response["type"] == "next" else response["payload"][0]["extensions"]["code"]


async def subscribers(port: int) -> dict[str, int]:
    """Returns the open subscriptions that `/metrics` reports, by transport."""
    async with httpx2.AsyncClient() as http:
        lines = (await http.get(f"http://127.0.0.1:{port}/metrics")).text.splitlines()
    samples = [line.split() for line in lines if line.startswith("xzepr_subscribers{")]
    return {name.split('"')[1]: int(float(value)) for name, value in samples}


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"max_operations": 1}, "TOO_MANY_OPERATIONS"),
        ({"max_subscriptions_per_actor": 1}, "TOO_MANY_SUBSCRIPTIONS"),
        ({"max_subscriptions": 1}, "SUBSCRIPTIONS_FULL"),
    ],
)
async def test_settings_limit_subscriptions(database_url: str, limits: dict[str, int], code: str) -> None:
    async with hub(database_url, **limits) as (client, port), socket(port, client.secret) as connection:
        assert await follow(connection, "a") == "next"
        assert await follow(connection, "b") == code
        assert await subscribers(port) == {"websocket": 1}


async def test_user_limit_counts_all_api_keys(database_url: str) -> None:
    async with hub(database_url, max_subscriptions_per_actor=1) as (client, port):
        other = await client.key(client.admin.permissions)
        async with socket(port, client.secret) as first, socket(port, other) as second:
            assert await follow(first, "a") == "next"
            assert await follow(second, "a") == "TOO_MANY_SUBSCRIPTIONS"


async def test_connection_limit_spans_both_transports(database_url: str) -> None:
    async with hub(database_url, max_connections_per_actor=1) as (client, port), socket(port, client.secret):
        async with connect(
            f"ws://127.0.0.1:{port}/graphql", subprotocols=[Subprotocol("graphql-transport-ws")]
        ) as second:
            await second.send(json.dumps({"type": "connection_init", "payload": {"apiKey": client.secret}}))
            with pytest.raises(ConnectionClosed):
                await second.recv()
        assert (second.close_code, (second.close_reason or "").partition(":")[0]) == (1013, "TOO_MANY_CONNECTIONS")
        async with httpx2.AsyncClient() as http:
            headers = {"X-API-Key": client.secret, "Accept": "text/event-stream"}
            response = await http.post(f"http://127.0.0.1:{port}/graphql", json={"query": FOLLOW}, headers=headers)
        assert response.status_code == 429
        assert response.json()["errors"][0]["extensions"] == {"code": "TOO_MANY_CONNECTIONS", "retryAfter": 10}


async def test_subscribers_are_counted_by_transport(database_url: str) -> None:
    async with hub(database_url) as (client, port), httpx2.AsyncClient() as http:
        headers = {"X-API-Key": client.secret, "Accept": "text/event-stream"}
        async with socket(port, client.secret) as connection:
            assert await follow(connection, "a") == "next"
            assert await follow(connection, "b") == "next"
            stream = http.stream("POST", f"http://127.0.0.1:{port}/graphql", json={"query": FOLLOW}, headers=headers)
            async with stream as response:
                assert response.status_code == 200
                assert await subscribers(port) == {"websocket": 2, "sse": 1}

        async def subscribers_have_left() -> bool:
            return await subscribers(port) == {"websocket": 0, "sse": 0}

        await until(subscribers_have_left)


async def test_created_ticket_opens_an_event_stream(database_url: str) -> None:
    async with hub(database_url) as (client, port), httpx2.AsyncClient() as http:
        ticket = (await client("mutation { createStreamTicket { ticket expiresAt } }")).data["createStreamTicket"][
            "ticket"
        ]
        stream = http.stream(
            "GET",
            f"http://127.0.0.1:{port}/graphql",
            params={"query": FOLLOW, "ticket": ticket},
            headers={"Accept": "text/event-stream"},
        )
        async with stream as response:
            assert response.status_code == 200
            lines = [line async for line in _until_data(response)]
        assert json.loads(lines[-1].removeprefix("data: ")) == {"data": {"stream": {"__typename": "Checkpoint"}}}


async def _until_data(response: httpx2.Response) -> AsyncGenerator[str]:
    async for line in response.aiter_lines():
        yield line
        if line.startswith("data: "):
            return
