"""Operations that are not executed: the status and the form of their errors, by the type that the client accepts."""

from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import orjson
import pytest

from tests.api.graphql_server.small_schema import BEARER, FakeBackend, app
from xzepr.api.errors import PersistedQueryNotSupported
from xzepr.api.graphql_server.limits import ConnectionLimits
from xzepr.api.graphql_server.protocol import Subscribe, parse_message

TYPE = {"Content-Type": "application/json"}
EVENTS = {"Accept": "text/event-stream"}
RESPONSE_JSON = "application/graphql-response+json"
ACCEPTED = [
    ("*/*", 400, RESPONSE_JSON),
    ("", 400, RESPONSE_JSON),
    (RESPONSE_JSON, 400, RESPONSE_JSON),
    (f"{RESPONSE_JSON}, application/json", 400, RESPONSE_JSON),
    ("application/json", 200, "application/json"),
    ("application/json, */*;q=0.1", 200, "application/json"),
    ("text/event-stream, application/json;q=0.9", 200, "application/json"),
]
TICKS = "subscription ($n: Int!) { ticks(count: $n) { id } }"
HASH_ONLY = {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "00"}}}


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
async def client(backend: FakeBackend) -> AsyncGenerator[httpx2.AsyncClient]:
    async with client_of(backend) as client:
        yield client


def client_of(backend: FakeBackend, headers: dict[str, str] | None = None, **options: Any) -> httpx2.AsyncClient:
    """Returns a client of an application in this process; `options` are those of `app`."""
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app(backend, **options)),
        base_url="http://hub",
        headers=BEARER if headers is None else headers,
    )


def body(query: object, **members: object) -> bytes:
    return orjson.dumps({"query": query, **members})


def codes(response: httpx2.Response) -> list[str]:
    return [error["extensions"]["code"] for error in response.json()["errors"]]


def event_codes(response: httpx2.Response) -> list[str]:
    """Returns the codes in an event stream that consists of one `next` with errors, and `complete`."""
    assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    before, after = ":\n\nevent: next\ndata: ", "\n\nevent: complete\ndata:\n\n"
    assert response.text.startswith(before)
    assert response.text.endswith(after)
    payload = orjson.loads(response.text.removeprefix(before).removesuffix(after))
    assert list(payload) == ["errors"]
    return [error["extensions"]["code"] for error in payload["errors"]]


REJECTED = pytest.mark.parametrize(
    ("content", "code"),
    [
        (body(""), "GRAPHQL_PARSE_FAILED"),
        (body("{ hello"), "GRAPHQL_PARSE_FAILED"),
        (body("{" * 5000), "GRAPHQL_PARSE_FAILED"),
        (body("{ nothing }"), "GRAPHQL_VALIDATION_FAILED"),
        (body("type A { b: Int } { hello }"), "GRAPHQL_VALIDATION_FAILED"),
        (body("{ hello @defer }"), "GRAPHQL_VALIDATION_FAILED"),
        (body("query a { hello } query b { hello }"), "OPERATION_RESOLUTION_FAILURE"),
        (body("query a { hello }", operationName="b"), "OPERATION_RESOLUTION_FAILURE"),
        (body("fragment A on Query { hello }"), "OPERATION_RESOLUTION_FAILURE"),
        (body("query ($n: Int!) { hello }", variables={"n": 1}), "GRAPHQL_VALIDATION_FAILED"),
        (body("query ($n: String!) { hello(name: $n) }", variables={"n": 1}), "INVALID_INPUT"),
        (body("query ($n: String!) { hello(name: $n) }"), "INVALID_INPUT"),
        (body("{ " + "a: hello " * 100_000 + "}"), "DOCUMENT_TOO_COMPLEX"),
        (body("{ hello } " + "#\n" * 20_000), "DOCUMENT_TOO_COMPLEX"),
        (body("{ " + "hello " * 20_000 + "}"), "DOCUMENT_TOO_COMPLEX"),
        (body("subscription { ticks @skip(if: true) { id } }"), "GRAPHQL_VALIDATION_FAILED"),
        (orjson.dumps(HASH_ONLY), "PERSISTED_QUERY_NOT_SUPPORTED"),
    ],
)


@REJECTED
async def test_rejected_operation_has_status_of_its_type(
    client: httpx2.AsyncClient, backend: FakeBackend, content: bytes, code: str
) -> None:
    for accept, status, content_type in ACCEPTED:
        response = await client.post("/graphql", content=content, headers=TYPE | {"Accept": accept})
        assert (response.status_code, codes(response)[0]) == (status, code)
        assert response.headers["content-type"] == content_type + "; charset=utf-8"
        assert "data" not in response.json()
    assert backend.contexts == [] or code == "INVALID_INPUT"


@REJECTED
async def test_rejected_operation_is_an_event(
    client: httpx2.AsyncClient, backend: FakeBackend, content: bytes, code: str
) -> None:
    response = await client.post("/graphql", content=content, headers=TYPE | EVENTS)
    assert event_codes(response)[0] == code
    assert backend.subscribers.total() == 0


async def test_subscription_with_invalid_variables_is_an_event(
    client: httpx2.AsyncClient, backend: FakeBackend
) -> None:
    for accept in ("text/event-stream", "application/json, text/event-stream"):
        content = body(TICKS, variables={"n": "x"})
        response = await client.post("/graphql", content=content, headers=TYPE | {"Accept": accept})
        assert event_codes(response) == ["INVALID_INPUT"]
    assert backend.observed == [("subscription", "INVALID_INPUT")] * 2
    assert backend.subscribers.total() == 0


async def test_rejected_get_is_an_event(client: httpx2.AsyncClient) -> None:
    for params, code in (
        ({"query": "subscription { nothing }"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "subscription {"}, "GRAPHQL_PARSE_FAILED"),
        ({"query": TICKS, "variables": "{}"}, "INVALID_INPUT"),
        ({"extensions": orjson.dumps(HASH_ONLY["extensions"]).decode()}, "PERSISTED_QUERY_NOT_SUPPORTED"),
    ):
        assert event_codes(await client.get("/graphql", params=params, headers=EVENTS)) == [code]


async def test_rejected_operation_with_ticket_is_an_event(backend: FakeBackend) -> None:
    async with client_of(backend, {}) as client:
        params = {"query": "subscription { nothing }", "ticket": "ticket"}
        assert event_codes(await client.get("/graphql", params=params, headers=EVENTS)) == ["GRAPHQL_VALIDATION_FAILED"]
        response = await client.get("/graphql", params=params, headers=EVENTS)
        assert (response.status_code, codes(response)) == (401, ["INVALID_TOKEN"])


async def test_rejected_stream_frees_its_connection(backend: FakeBackend) -> None:
    async with client_of(backend, connection_limits=ConnectionLimits(max_connections=1)) as client:
        for _ in range(3):
            response = await client.post("/graphql", content=body("{ nothing }"), headers=TYPE | EVENTS)
            assert event_codes(response) == ["GRAPHQL_VALIDATION_FAILED"]


async def test_operation_without_credentials_gets_401_or_event(backend: FakeBackend) -> None:
    async with client_of(backend, {}) as client:
        for query in ("{ hello }", "subscription { ticks { id } }", "{ nothing }"):
            for accept in ("*/*", "application/json", RESPONSE_JSON):
                response = await client.post("/", content=body(query), headers=TYPE | {"Accept": accept})
                assert (response.status_code, codes(response)) == (401, ["UNAUTHENTICATED"])
                assert response.headers["www-authenticate"] == "Bearer"
            response = await client.post("/", content=body(query), headers=TYPE | EVENTS)
            assert event_codes(response) == ["UNAUTHENTICATED"]
    assert backend.contexts == []


async def test_invalid_credential_gets_401_in_any_type(backend: FakeBackend) -> None:
    async with client_of(backend, {"Authorization": "Bearer old"}) as client:
        for accept in ("application/json", RESPONSE_JSON, "text/event-stream"):
            response = await client.post("/", content=body("{ nothing }"), headers=TYPE | {"Accept": accept})
            assert (response.status_code, codes(response)) == (401, ["TOKEN_EXPIRED"])


async def test_unreadable_request_keeps_its_status_in_any_type(backend: FakeBackend) -> None:
    async with client_of(backend, max_bytes=1000) as client:
        for accept in ("application/json", RESPONSE_JSON, "text/event-stream"):
            for content_type, content, status in (
                ("text/plain", body("{ hello }"), 415),
                ("application/json", b" " * 1001, 413),
                ("application/json", b"{", 400),
            ):
                headers = {"Content-Type": content_type, "Accept": accept}
                assert (await client.post("/", content=content, headers=headers)).status_code == status


async def test_persisted_query_has_the_message_clients_expect(client: httpx2.AsyncClient) -> None:
    for accept in ("application/json", RESPONSE_JSON):
        response = await client.post("/", json=HASH_ONLY, headers={"Accept": accept})
        assert response.json()["errors"] == [
            {"message": "PersistedQueryNotSupported", "extensions": {"code": "PERSISTED_QUERY_NOT_SUPPORTED"}}
        ]


async def test_persisted_query_with_its_text_is_executed(client: httpx2.AsyncClient) -> None:
    response = await client.post("/", json={"query": "{ hello }", **HASH_ONLY})
    assert response.json() == {"data": {"hello": "hello world"}}


def test_persisted_query_over_websocket_is_an_error() -> None:
    frame = orjson.dumps({"id": "1", "type": "subscribe", "payload": HASH_ONLY}).decode()
    message = parse_message(frame)
    assert isinstance(message, Subscribe)
    assert isinstance(message.request, PersistedQueryNotSupported)
