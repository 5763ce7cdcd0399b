"""GraphQL over server-sent events on a real server: framing, resuming, heartbeats and ends of streams."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest

from tests.api.graphql_server.small_schema import BEARER, FakeBackend, app, served
from tests.support.hub import until
from xzepr.api.graphql_server.limits import ConnectionLimits

EVENTS = BEARER | {"Accept": "text/event-stream"}


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
async def client(backend: FakeBackend) -> AsyncGenerator[httpx2.AsyncClient]:
    async with served(app(backend)) as port, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield client


async def post(client: httpx2.AsyncClient, query: str, headers: dict[str, str] | None = None) -> httpx2.Response:
    return await client.post("/graphql", json={"query": query}, headers=EVENTS | (headers or {}))


def payloads(response: httpx2.Response) -> list[Any]:
    """Returns the payload of each `next` message."""
    lines = response.text.splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


async def test_subscription_frames_carry_cursors(client: httpx2.AsyncClient) -> None:
    response = await post(client, "subscription { ticks(count: 2) { id } }")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.text == (
        ":\n\n"
        'id: 1\nevent: next\ndata: {"data":{"ticks":{"id":1}}}\n\n'
        'id: 2\nevent: next\ndata: {"data":{"ticks":{"id":2}}}\n\n'
        "event: complete\ndata:\n\n"
    )


async def test_subscription_by_get_resumes_at_last_event_id(client: httpx2.AsyncClient, backend: FakeBackend) -> None:
    response = await client.get(
        "/graphql",
        params={"query": 'subscription { ticks(count: 1, after: "3") { id } }'},
        headers=EVENTS | {"Last-Event-ID": "41"},
    )
    assert payloads(response) == [{"data": {"ticks": {"id": 42}}}]
    assert [context.last_event_id for context in backend.contexts] == ["41", None]


async def test_every_message_has_its_own_loaders(client: httpx2.AsyncClient, backend: FakeBackend) -> None:
    await post(client, "subscription { ticks(count: 3) { square } }")
    assert backend.loads == [[1], [2], [3]]
    assert len(backend.contexts) == 4


async def test_event_stream_runs_query_or_mutation(client: httpx2.AsyncClient) -> None:
    for query, data in (
        ("{ hello }", {"hello": "hello world"}),
        ('mutation { login(name: "a") }', {"login": "token of a"}),
    ):
        response = await post(client, query)
        assert payloads(response) == [{"data": data}]
        assert response.text.endswith("event: complete\ndata:\n\n")


async def test_invalid_credential_rejects_the_request(client: httpx2.AsyncClient) -> None:
    response = await post(client, "subscription { ticks { id } }", {"Authorization": "Bearer old"})
    assert response.status_code == 401


async def test_failed_stream_ends_with_its_errors(client: httpx2.AsyncClient) -> None:
    for query, code, before in (
        ("subscription { nothing }", "GRAPHQL_VALIDATION_FAILED", 0),
        ("subscription { ticks(count: 99999999999) { id } }", "GRAPHQL_VALIDATION_FAILED", 0),
        ("subscription {", "GRAPHQL_PARSE_FAILED", 0),
        ('subscription { ticks(after: "1000") { id } }', "STREAM_DIVERGED", 0),
        ("subscription { rejected }", "NOT_FOUND", 0),
        ("subscription { breaking }", "INTERNAL", 1),
    ):
        response = await post(client, query)
        assert response.status_code == 200
        assert "hunter2" not in response.text
        assert [error["extensions"]["code"] for error in payloads(response)[before]["errors"]] == [code]
        assert response.text.endswith("event: complete\ndata:\n\n")


async def test_silent_stream_sends_heartbeats_until_disconnect(backend: FakeBackend) -> None:
    asgi = app(backend, heartbeat_seconds=0.05)
    async with (
        served(asgi) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
        client.stream(
            "POST",
            "/graphql",
            json={"query": "subscription { ticks(count: 1, pause: true) { id } }"},
            headers=EVENTS,
        ) as response,
    ):
        text = ""
        async for chunk in response.aiter_text():
            text += chunk
            if text.count(":\n\n") >= 4:
                break
        assert not backend.stream_closed.is_set()
        await response.aclose()
        await asyncio.wait_for(backend.stream_closed.wait(), 5)
    assert ("subscription", "ok") in backend.observed


async def test_mutation_continues_after_disconnect(backend: FakeBackend) -> None:
    async with served(app(backend)) as port, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        async with client.stream("POST", "/graphql", json={"query": 'mutation { record(name: "x") }'}, headers=EVENTS):
            await asyncio.wait_for(backend.recording.wait(), 5)
        backend.may_record.set()
        await asyncio.wait_for(backend.operation_observed.wait(), 5)
    assert backend.recorded == ["x"]


async def test_stream_outlives_the_request_timeout(backend: FakeBackend) -> None:
    asgi = app(backend, heartbeat_seconds=0.05, timeout_seconds=1)
    async with (
        served(asgi) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
        client.stream(
            "POST", "/graphql", json={"query": "subscription { ticks(pause: true) { id } }"}, headers=EVENTS
        ) as response,
    ):
        began, text = time.monotonic(), ""
        async for chunk in response.aiter_text():
            text += chunk
            if time.monotonic() > began + 1.1:
                break
        else:
            pytest.fail("the stream ended")
    assert text.count("event: next") == 3


PAUSED = {"query": "subscription { ticks(count: 1, pause: true) { id } }"}


@pytest.mark.parametrize(("state", "code"), [("old", "TOKEN_EXPIRED"), ("revoked", "INVALID_TOKEN")])
async def test_invalidated_token_ends_the_stream_with_its_error(
    client: httpx2.AsyncClient, backend: FakeBackend, state: str, code: str
) -> None:
    async with client.stream("POST", "/graphql", json=PAUSED, headers=EVENTS) as response:
        text = ""
        async for chunk in response.aiter_text():
            text += chunk
            if '"id":1' in text and not backend.token_states:
                assert backend.subscribers == {"sse": 1}
                backend.token_states["good"] = state
    last = text.split("\n\n")[-3:]
    assert last[0].startswith("event: next\ndata: ")
    assert json.loads(last[0].removeprefix("event: next\ndata: "))["errors"][0]["extensions"]["code"] == code
    assert last[1:] == ["event: complete\ndata:", ""]
    await asyncio.wait_for(backend.stream_closed.wait(), 5)
    await until(lambda: backend.subscribers["sse"] == 0)


@pytest.mark.parametrize(
    ("limits", "status", "code"),
    [
        (ConnectionLimits(max_connections_per_actor=1), 429, "TOO_MANY_CONNECTIONS"),
        (ConnectionLimits(max_subscriptions_per_actor=1), 429, "TOO_MANY_SUBSCRIPTIONS"),
        (ConnectionLimits(max_subscriptions=1), 503, "SUBSCRIPTIONS_FULL"),
        (ConnectionLimits(max_connections=1), 503, "CONNECTIONS_FULL"),
    ],
)
async def test_rejected_stream_names_the_limit(
    backend: FakeBackend, limits: ConnectionLimits, status: int, code: str
) -> None:
    async with (
        served(app(backend, connection_limits=limits)) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        async with client.stream("POST", "/graphql", json=PAUSED, headers=EVENTS) as response:
            assert response.status_code == 200
            rejection = await post(client, PAUSED["query"])
            assert rejection.status_code == status
            assert rejection.headers["Retry-After"] == "10"
            assert rejection.json()["errors"][0]["extensions"] == {"code": code, "retryAfter": 10}

        async def stream_is_accepted() -> bool:
            return (await post(client, "subscription { ticks(count: 1) { id } }")).status_code == 200

        await until(stream_is_accepted)


async def test_subscription_with_large_variables_is_rejected(client: httpx2.AsyncClient, backend: FakeBackend) -> None:
    large = PAUSED | {"variables": {"x": "y" * 64 * 1024}}
    response = await client.post("/graphql", json=large, headers=EVENTS)
    assert (response.status_code, response.json()["errors"][0]["extensions"]["code"]) == (413, "TOO_LARGE")
    assert backend.subscribers.total() == 0


BY_TICKET = {"query": "subscription { ticks(count: 1) { id } }", "ticket": "ticket"}
BARE = {"Accept": "text/event-stream"}


async def test_ticket_opens_one_event_stream(client: httpx2.AsyncClient, backend: FakeBackend) -> None:
    response = await client.get("/graphql", params=BY_TICKET, headers=BARE | {"Last-Event-ID": "41"})
    assert payloads(response) == [{"data": {"ticks": {"id": 42}}}]
    second = await client.get("/graphql", params=BY_TICKET, headers=BARE)
    assert (second.status_code, second.json()["errors"][0]["extensions"]["code"]) == (401, "INVALID_TOKEN")
    assert len([context for context in backend.contexts if context.last_event_id]) == 1


async def test_stream_opened_by_ticket_ends_with_its_credential(
    client: httpx2.AsyncClient, backend: FakeBackend
) -> None:
    async with client.stream("GET", "/graphql", params=BY_TICKET | PAUSED, headers=BARE) as response:
        text = ""
        async for chunk in response.aiter_text():
            text += chunk
            backend.token_states["good"] = "old"
    assert '"code":"TOKEN_EXPIRED"' in text
    assert text.endswith("event: complete\ndata:\n\n")


async def test_other_credential_in_the_url_is_ignored(client: httpx2.AsyncClient) -> None:
    response = await client.get("/graphql", params={"query": BY_TICKET["query"], "token": "good"}, headers=BARE)
    assert [error["extensions"]["code"] for error in payloads(response)[0]["errors"]] == ["UNAUTHENTICATED"]


async def test_ticket_is_valid_only_for_event_streams(client: httpx2.AsyncClient, backend: FakeBackend) -> None:
    as_header = {"Authorization": "Bearer ticket"}
    for method, params, headers, status in (
        ("GET", BY_TICKET, {"Accept": "application/json"}, 401),
        ("GET", BY_TICKET, BARE | BEARER, 401),
        ("GET", BY_TICKET, BARE | as_header, 401),
        ("GET", {"query": BY_TICKET["query"]}, BARE | as_header, 401),
        ("POST", {"ticket": "ticket"}, BARE, 401),
        ("POST", {"ticket": "ticket"}, BARE | BEARER, 401),
        ("POST", {"ticket": "ticket"}, BEARER, 401),
    ):
        json = {"query": BY_TICKET["query"]} if method == "POST" else None
        response = await client.request(method, "/graphql", params=params, headers=headers, json=json)
        assert (response.status_code, response.headers["content-type"][:16]) == (status, "application/grap")
    assert backend.tickets == {"ticket": 1}
    for query in ("{ hello }", 'mutation { login(name: "a") }'):
        backend.tickets["ticket"] = 1
        response = await client.get("/graphql", params={"query": query, "ticket": "ticket"}, headers=BARE)
        assert response.status_code == 401
    assert backend.contexts == []
