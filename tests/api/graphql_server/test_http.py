"""GraphQL over HTTP: statuses and codes of malformed requests, and responses to valid ones."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import orjson
import pytest

from tests.api.graphql_server.small_schema import BEARER, FakeBackend, app

TYPE = {"Content-Type": "application/json"}


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


def body(query: object = "{ hello }", **members: object) -> bytes:
    return orjson.dumps({"query": query, **members})


def codes(response: httpx2.Response) -> list[str]:
    return [error["extensions"]["code"] for error in response.json()["errors"]]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "BAD_REQUEST"),
        (b"null", "BAD_REQUEST"),
        (b"5", "BAD_REQUEST"),
        (b'"x"', "BAD_REQUEST"),
        (b"{}", "BAD_REQUEST"),
        (b"[]", "BAD_REQUEST"),
        (b'[{"query":"{ hello }"}]', "BAD_REQUEST"),
        (b"[" * 100_000, "BAD_REQUEST"),
        (b'{"query":"{ hello }"', "BAD_REQUEST"),
        (b'{"query":"\xff"}', "BAD_REQUEST"),
        (body(None), "BAD_REQUEST"),
        (body(5), "BAD_REQUEST"),
        (body(["{ hello }"]), "BAD_REQUEST"),
        (body(operationName=5), "BAD_REQUEST"),
        (body(variables=[1]), "BAD_REQUEST"),
        (body(variables="{}"), "BAD_REQUEST"),
        (body(extensions=1), "BAD_REQUEST"),
        (b'{"query":"{ hello }","variables":{"a":12345678901234567890123}}', "INVALID_INPUT"),
        (b'{"query":"{ hello }","variables":{"a":1e999}}', "INVALID_INPUT"),
        (b'{"query":"{ hello }","variables":{"a":"\\u0000"}}', "INVALID_INPUT"),
        (b'{"query":"{ hello }","variables":{"a":"\\ud800"}}', "INVALID_INPUT"),
    ],
)
async def test_malformed_request_gets_400_in_any_media_type(
    client: httpx2.AsyncClient, backend: FakeBackend, content: bytes, code: str
) -> None:
    for accept in ("*/*", "application/json", "application/graphql-response+json", "text/event-stream"):
        response = await client.post("/graphql", content=content, headers=TYPE | {"Accept": accept})
        assert (response.status_code, codes(response)[0]) == (400, code)
        assert "data" not in response.json()
    assert backend.contexts == []


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/graphql", "multipart/form-data", "application/json; charset=latin-1"],
)
async def test_body_of_other_type_is_rejected(client: httpx2.AsyncClient, content_type: str) -> None:
    response = await client.post("/graphql", content=body(), headers={"Content-Type": content_type})
    assert (response.status_code, codes(response)) == (415, ["UNSUPPORTED_MEDIA_TYPE"])


async def test_utf8_charset_is_accepted(client: httpx2.AsyncClient) -> None:
    response = await client.post("/", content=body(), headers={"Content-Type": 'application/json; Charset="UTF-8"'})
    assert response.json() == {"data": {"hello": "hello world"}}


async def test_other_method_gets_405_with_allow_header(client: httpx2.AsyncClient) -> None:
    for method in ("PUT", "DELETE", "PATCH", "HEAD"):
        response = await client.request(method, "/graphql")
        assert (response.status_code, response.headers["allow"]) == (405, "GET, POST")


async def test_mutation_by_get_is_rejected(client: httpx2.AsyncClient, backend: FakeBackend) -> None:
    backend.may_record.set()
    for accept in ("*/*", "text/event-stream"):
        response = await client.get(
            "/graphql", params={"query": 'mutation { record(name: "x") }'}, headers={"Accept": accept}
        )
        assert (response.status_code, response.headers["allow"], codes(response)) == (
            405,
            "POST",
            ["METHOD_NOT_ALLOWED"],
        )
    assert backend.recorded == []


async def test_extensions_reach_resolvers_by_get_or_post(client: httpx2.AsyncClient, backend: FakeBackend) -> None:
    await client.post("/", content=body(extensions={"a": [1]}), headers=TYPE)
    await client.get("/", params={"query": "{ hello }", "extensions": '{"a":[1]}'})
    await client.post("/", content=body(extensions=None), headers=TYPE)
    assert [context.extensions for context in backend.contexts] == [{"a": [1]}, {"a": [1]}, {}]


async def test_query_by_get_is_answered(client: httpx2.AsyncClient) -> None:
    response = await client.get(
        "/graphql",
        params={
            "query": "query a($n: String!) { hello(name: $n) } query b { hello }",
            "operationName": "a",
            "variables": '{"n":"Ä"}',
        },
    )
    assert response.json() == {"data": {"hello": "hello Ä"}}


@pytest.mark.parametrize(
    "query_string",
    [
        "",
        "query=%ff",
        "query={hello}&variables=[",
        "query={hello}&variables=[1]",
        "query={hello}&extensions=1",
        "&".join(["query={hello}"] * 30),
    ],
)
async def test_malformed_get_is_rejected(client: httpx2.AsyncClient, query_string: str) -> None:
    response = await client.get("/graphql?" + query_string)
    assert (response.status_code, codes(response)) == (400, ["BAD_REQUEST"])


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, "application/graphql-response+json"),
        ("*/*", "application/graphql-response+json"),
        ("application/*", "application/graphql-response+json"),
        ("application/json", "application/json"),
        ("application/json, */*;q=0.1", "application/json"),
        ("application/graphql-response+json, application/json;q=0.9", "application/graphql-response+json"),
        ("application/json;q=0.2, application/graphql-response+json;q=0.1", "application/json"),
        ("*/*, application/graphql-response+json;q=0", "application/json"),
        ("text/event-stream, application/json", "application/json"),
        ("text/html, Application/JSON", "application/json"),
    ],
)
async def test_response_type_follows_accept_header(
    client: httpx2.AsyncClient, accept: str | None, content_type: str
) -> None:
    request = client.build_request("POST", "/graphql", content=body(), headers=TYPE)
    del request.headers["accept"]
    if accept is not None:
        request.headers["accept"] = accept
    response = await client.send(request)
    assert response.headers["content-type"] == content_type + "; charset=utf-8"


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "image/png, text/plain", "x;q=z"])
async def test_unacceptable_type_is_rejected_before_execution(
    client: httpx2.AsyncClient, backend: FakeBackend, accept: str
) -> None:
    response = await client.post("/graphql", content=body(), headers=TYPE | {"Accept": accept})
    assert (response.status_code, codes(response)) == (406, ["NOT_ACCEPTABLE"])
    assert backend.contexts == []


async def test_subscription_without_event_stream_gets_406(client: httpx2.AsyncClient) -> None:
    response = await client.post("/graphql", content=body("subscription { ticks { id } }"), headers=TYPE)
    assert (response.status_code, codes(response)) == (406, ["NOT_ACCEPTABLE"])
    assert "text/event-stream" in response.json()["errors"][0]["message"]


async def test_body_beyond_the_limit_is_rejected(backend: FakeBackend) -> None:
    async def chunks() -> AsyncGenerator[bytes]:
        for _ in range(20):
            yield b"x" * 100

    async with client_of(backend, max_bytes=1000) as client:
        for content in (b"x" * 1001, chunks()):
            response = await client.post("/graphql", content=content, headers=TYPE)
            assert (response.status_code, codes(response)) == (413, ["TOO_LARGE"])


async def test_resolver_error_is_returned_with_status_200(client: httpx2.AsyncClient) -> None:
    for accept in ("application/json", "application/graphql-response+json"):
        response = await client.post("/", content=body("{ hello\n missing }"), headers=TYPE | {"Accept": accept})
        assert response.status_code == 200
        assert response.json() == {
            "data": {"hello": "hello world", "missing": None},
            "errors": [
                {
                    "message": "there is no event '01X'",
                    "path": ["missing"],
                    "locations": [{"line": 2, "column": 2}],
                    "extensions": {"code": "NOT_FOUND", "field": "id"},
                }
            ],
        }


async def test_all_violations_are_returned_together(client: httpx2.AsyncClient) -> None:
    query = 'mutation { create(thing: {name: "", tags: []}) }'
    response = await client.post("/", content=body(query), headers=TYPE)
    assert [(e["message"], e["path"], e["extensions"]) for e in response.json()["errors"]] == [
        ("name is empty", ["create"], {"code": "INVALID_INPUT", "field": "name"}),
        ("no such tag", ["create"], {"code": "INVALID_INPUT", "field": "tags/0"}),
    ]


async def test_invalid_variable_is_named_by_its_field(client: httpx2.AsyncClient) -> None:
    query = "mutation ($thing: Thing!) { create(thing: $thing) }"
    response = await client.post(
        "/", content=body(query, variables={"thing": {"name": 5, "tags": [1, "x"]}}), headers=TYPE
    )
    assert response.status_code == 400
    assert [error["extensions"] for error in response.json()["errors"]] == [
        {"code": "INVALID_INPUT", "field": "name"},
        {"code": "INVALID_INPUT", "field": "tags/1"},
    ]


async def test_lossy_variables_are_named_by_pointer(client: httpx2.AsyncClient) -> None:
    body = b'{"query":"{ hello }","variables":{"thing":{"a/b":[0,1e999]},"first":1e999}}'
    variables = '{"thing":{"a/b":[0,1e999]},"first":1e999}'
    for response in (
        await client.post("/", content=body, headers=TYPE),
        await client.get("/", params={"query": "{ hello }", "variables": variables}),
    ):
        assert response.status_code == 400
        assert [e["extensions"]["field"] for e in response.json()["errors"]] == ["a~1b/1", "first"]


async def test_null_for_non_null_argument_is_an_input_error(client: httpx2.AsyncClient) -> None:
    query = "query ($n: String) { hello(name: $n) }"
    response = await client.post("/", content=body(query, variables={"n": None}), headers=TYPE)
    assert response.json()["errors"][0]["extensions"] == {"code": "INVALID_INPUT", "field": "name"}


async def test_internal_error_is_masked_with_request_id(client: httpx2.AsyncClient) -> None:
    response = await client.post("/", content=body("{ hello broken }"), headers=TYPE | {"X-Request-ID": "abc-1"})
    assert response.headers["x-request-id"] == "abc-1"
    assert "hunter2" not in response.text
    assert response.json()["data"] == {"hello": "hello world", "broken": None}
    (error,) = response.json()["errors"]
    assert (error["message"], error["extensions"]) == ("internal error", {"code": "INTERNAL", "requestId": "abc-1"})


async def test_unserialisable_result_is_an_internal_error(client: httpx2.AsyncClient) -> None:
    response = await client.post("/", content=body("{ unwritable }"), headers=TYPE)
    assert codes(response) == ["INTERNAL"]


async def test_internal_error_in_authentication_is_masked(backend: FakeBackend) -> None:
    async with client_of(backend, {"X-API-Key": "broken"}) as client:
        response = await client.post("/", content=body(), headers=TYPE)
    assert (response.status_code, codes(response)) == (500, ["INTERNAL"])
    assert "hunter2" not in response.text


async def test_longest_retry_time_is_in_retry_after_header(client: httpx2.AsyncClient) -> None:
    response = await client.post("/", content=body("{ busy limited }"), headers=TYPE)
    assert response.headers["retry-after"] == "30"
    assert [error["extensions"] for error in response.json()["errors"]] == [
        {"code": "OVERLOADED", "retryAfter": 1.5},
        {"code": "RATE_LIMITED", "retryAfter": 30},
    ]


async def test_raw_json_is_written_unchanged(client: httpx2.AsyncClient) -> None:
    response = await client.post("/", content=body("{ raw at }"), headers=TYPE)
    assert response.text == '{"data":{"raw":{"b":1.10,"a":[]},"at":"2026-01-02T03:04:05+00:00"}}'


async def test_failed_row_does_not_affect_other_rows(client: httpx2.AsyncClient) -> None:
    response = await client.post("/", content=body("{ rows { id square own } }"), headers=TYPE)
    assert response.json()["data"] == {
        "rows": [{"id": 1, "square": 1, "own": 1}, None, {"id": 3, "square": 9, "own": 3}]
    }
    assert codes(response) == ["NOT_FOUND"]


async def test_rows_of_one_operation_share_a_load(client: httpx2.AsyncClient, backend: FakeBackend) -> None:
    for _ in range(2):
        await client.post("/", content=body("{ rows { square } }"), headers=TYPE)
    assert backend.loads == [[1, 2, 3], [1, 2, 3]]


async def test_mutation_continues_after_request_timeout(backend: FakeBackend) -> None:
    async with client_of(backend, timeout_seconds=0.05) as client:
        response = await client.post("/", content=body('mutation { record(name: "x") }'), headers=TYPE)
        assert (response.status_code, codes(response)) == (504, ["TIMEOUT"])
        assert backend.recorded == []
        backend.may_record.set()
        await asyncio.wait_for(backend.operation_observed.wait(), 5)
    assert backend.recorded == ["x"]
    assert backend.observed == [("mutation", "ok")]


async def test_operation_is_observed_with_its_outcome(client: httpx2.AsyncClient, backend: FakeBackend) -> None:
    for query in ("{ hello }", "{ missing }", 'mutation { login(name: "a") }', "{ nothing }"):
        await client.post("/", content=body(query), headers=TYPE)
    assert backend.observed == [
        ("query", "ok"),
        ("query", "NOT_FOUND"),
        ("mutation", "ok"),
        ("unknown", "GRAPHQL_VALIDATION_FAILED"),
    ]


@pytest.mark.parametrize(
    "query",
    [
        "{ hello }",
        "{ __schema { types { name } } }",
        '{ __type(name: "Query") { name } }',
        "{ __typename ... on Query { ... { x: hello } } }",
        "query { ...A } fragment A on Query { ...B } fragment B on Query { hello }",
        'mutation { login(name: "a") record(name: "x") }',
        "{ nothing }",
        "subscription { __typename }",
        "query { login }",
        'query a { __typename } mutation b { record(name: "x") }',
    ],
)
async def test_anonymous_operation_is_rejected(backend: FakeBackend, query: str) -> None:
    async with client_of(backend, {}) as client:
        response = await client.post(
            "/", content=body(query, operationName="b" if " b " in query else None), headers=TYPE
        )
    assert (response.status_code, codes(response)) == (401, ["UNAUTHENTICATED"])
    assert response.headers["www-authenticate"] == "Bearer"
    assert backend.contexts == []


@pytest.mark.parametrize(
    ("query", "data"),
    [
        ('mutation { login(name: "a") }', {"login": "token of a"}),
        ('mutation { __typename t: login(name: "a") }', {"__typename": "Mutation", "t": "token of a"}),
        ("{ __typename }", {"__typename": "Query"}),
    ],
)
async def test_anonymous_caller_may_log_in_or_query_typename(backend: FakeBackend, query: str, data: object) -> None:
    async with client_of(backend, {}) as client:
        response = await client.post("/", content=body(query), headers=TYPE)
    assert response.json() == {"data": data}


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Authorization": "Bearer wrong"}, "INVALID_TOKEN"),
        ({"Authorization": "Bearer old"}, "TOKEN_EXPIRED"),
        ({"Authorization": "Bearer"}, "INVALID_TOKEN"),
        ({"Authorization": "Basic Z29vZA=="}, "INVALID_TOKEN"),
        ({"X-API-Key": "wrong"}, "INVALID_TOKEN"),
        ({"Authorization": "Bearer good", "X-API-Key": "wrong"}, "INVALID_TOKEN"),
    ],
)
async def test_invalid_credential_is_rejected_even_for_login(
    backend: FakeBackend, headers: dict[str, str], code: str
) -> None:
    async with client_of(backend, headers) as client:
        response = await client.post("/", content=body('mutation { login(name: "a") }'), headers=TYPE)
    assert (response.status_code, codes(response)) == (401, [code])
    assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert backend.contexts == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "bearer  good"},
        {"X-API-Key": "good"},
        {"Authorization": "Bearer good", "X-API-Key": "good"},
        {"Authorization": "", "X-API-Key": "good"},
        {"Authorization": "Bearer of-the-proxy", "X-API-Key": "good"},
        {"Authorization": "Basic cHJveHk6cHJveHk=", "X-API-Key": "good"},
    ],
)
async def test_credential_is_accepted_in_either_header(backend: FakeBackend, headers: dict[str, str]) -> None:
    async with client_of(backend, headers) as client:
        response = await client.post("/", content=body("{ me }"), headers=TYPE)
    assert response.json() == {"data": {"me": "ada"}}


async def test_credential_in_the_url_is_ignored(backend: FakeBackend) -> None:
    async with client_of(backend, {}) as client:
        for name in ("token", "access_token", "apiKey", "Authorization"):
            response = await client.get("/", params={"query": "{ me }", name: "good"})
            assert (response.status_code, codes(response)) == (401, ["UNAUTHENTICATED"])


async def test_unavailable_authentication_gets_503(backend: FakeBackend) -> None:
    async with client_of(backend, {"X-API-Key": "offline"}) as client:
        response = await client.post("/", content=body(), headers=TYPE)
    assert (response.status_code, codes(response)) == (503, ["UNAVAILABLE"])
