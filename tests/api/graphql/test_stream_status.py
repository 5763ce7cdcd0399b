"""`streamStatus` and `/health`: the stream, its routes and the hub's processes."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from tests.api.graphql_server.small_schema import served
from tests.api.graphql_server.test_subscription_limits import FOLLOW, follow, socket
from tests.support.hub import execute, until
from tests.support.requests import InProcessClient, in_process_client
from xzepr.app import create_app

ROUTE = "somewhere.else"
STATUS = """
{
  streamStatus {
    position cursor time deadLetters
    routes { route state detail since published lag lagSeconds led leader updatedAt deadLetters }
    processes {
      id host pid role version startedAt seenAt silentSeconds recorderQueue
      feed { position lag lagSeconds } slowestSubscriber { position lag lagSeconds }
      clients { websockets eventStreams subscriptions } relay { route state leads }
    }
  }
}
"""


@asynccontextmanager
async def hub(database_url: str, **kafka: Any) -> AsyncGenerator[tuple[InProcessClient, int]]:
    """Serves a hub with these `kafka` settings; yields its client and its port."""
    settings = {"kafka": {"topic": ROUTE, **kafka}, "database": {"min_connections": 1, "max_connections": 4}}
    async with in_process_client(database_url, settings) as client, served(create_app(client.hub)) as port:
        yield client, port


async def status(client: InProcessClient) -> Any:
    """Returns the `streamStatus` of the hub."""
    return (await client(STATUS)).data["streamStatus"]


async def test_status_counts_connected_clients(database_url: str) -> None:
    async with hub(database_url) as (client, port), httpx2.AsyncClient() as http:
        assert (await status(client))["time"] is None
        await client.receiver()
        headers = {"X-API-Key": client.secret, "Accept": "text/event-stream"}
        stream = http.stream("POST", f"http://127.0.0.1:{port}/graphql", json={"query": FOLLOW}, headers=headers)
        async with socket(port, client.secret) as connection, stream:
            for id in ("a", "b"):
                assert await follow(connection, id) == "next"

            async def clients_are_counted() -> bool:
                [process] = (await status(client))["processes"]
                return process["clients"] == {"websockets": 1, "eventStreams": 1, "subscriptions": 3}

            await until(clients_are_counted)
            report = await status(client)
            [process] = report["processes"]
            assert process["id"] == client.hub.process.id
            assert process["role"] == "serve"
            assert process["feed"] == process["slowestSubscriber"] == {"position": 1, "lag": 0, "lagSeconds": 0.0}
            assert process["relay"] == {"route": ROUTE, "state": "WAITING_FOR_BROKERS", "leads": False}
            assert (report["position"], report["routes"], report["deadLetters"]) == (1, [], 0)
            assert report["time"] is not None
            metrics = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
            assert 'xzepr_connections{transport="websocket"} 1.0' in metrics
            assert 'xzepr_connections{transport="sse"} 1.0' in metrics

        async def clients_have_left() -> bool:
            [process] = (await status(client))["processes"]
            return process["slowestSubscriber"] is None and set(process["clients"].values()) == {0}

        await until(clients_have_left)


@pytest.mark.parametrize("led", [True, False], ids=["led before", "never led"])
@pytest.mark.parametrize(("age", "kafka"), [(0, "healthy"), (120, "degraded")])
async def test_process_without_relay_degrades_on_high_lag(database_url: str, age: int, kafka: str, led: bool) -> None:
    if led:
        await execute(
            database_url, "INSERT INTO relay_routes (route, state, detail) VALUES (%s, 'following', '')", (ROUTE,)
        )
    async with (
        hub(database_url, enabled=False, brokers=["127.0.0.1:1"]) as (client, port),
        httpx2.AsyncClient() as http,
    ):
        await client.receiver()
        await execute(database_url, "UPDATE messages SET time = time - %s * interval '1 second'", (age,))

        async def lag_is_measured() -> bool:
            lag = client.hub.process.lags.relay
            return lag is not None and lag.lag == 1 and lag.lag_seconds >= age

        await until(lag_is_measured)
        response = await http.get(f"http://127.0.0.1:{port}/health")
        assert (response.status_code, response.json()["components"]["kafka"]) == (200, kafka)
        metrics = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
        assert f'xzepr_relay_lag_messages{{route="{ROUTE}"}} 1.0' in metrics
        [route] = (await status(client))["routes"]
        assert (route["lag"], route["led"], route["leader"]) == (1, False, None)
        assert route["lagSeconds"] >= age
        assert (route["state"], "no process has led it yet" in route["detail"]) == (
            ("FOLLOWING", False) if led else ("STANDBY", True)
        )


async def test_process_without_brokers_reports_no_relay(database_url: str) -> None:
    async with hub(database_url, enabled=False) as (client, port), httpx2.AsyncClient() as http:
        await client.receiver()

        async def process_is_listed() -> bool:
            return bool((await status(client))["processes"])

        await until(process_is_listed)
        report = await status(client)
        assert (report["routes"], report["processes"][0]["relay"]) == ([], None)
        assert "kafka" not in (await http.get(f"http://127.0.0.1:{port}/health")).json()["components"]


async def test_routes_are_listed_by_name_even_if_never_led(database_url: str) -> None:
    for name in ("a", "z"):
        await execute(database_url, "INSERT INTO relay_routes (route, state) VALUES (%s, 'following')", (name,))
    async with hub(database_url, enabled=False, brokers=["127.0.0.1:1"]) as (client, _):

        async def routes_are_listed() -> bool:
            return [route["route"] for route in (await status(client))["routes"]] == ["a", ROUTE, "z"]

        await until(routes_are_listed)
