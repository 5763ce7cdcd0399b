"""GraphQL over HTTP: every malformed request has its status and code, and every good one its answer."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import orjson
import pytest

from tests.api.graphql_server.small_schema import BEARER, World, app

TYPE = {"Content-Type": "application/json"}


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def client(world: World) -> AsyncGenerator[httpx2.AsyncClient]:
    async with client_of(world) as one:
        yield one


def client_of(world: World, headers: dict[str, str] | None = None, **options: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app(world, **options)),
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
    ],
)
async def test_a_malformed_request_is_told_so_in_either_media_type(
    client: httpx2.AsyncClient, world: World, content: bytes, code: str
) -> None:
    for accept in ("*/*", "application/json", "application/graphql-response+json"):
        response = await client.post("/graphql", content=content, headers=TYPE | {"Accept": accept})
        assert (response.status_code, codes(response)[0]) == (400, code)
        assert "data" not in response.json()
    assert world.contexts == [] or code == "INVALID_INPUT"


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/graphql", "multipart/form-data", "application/json; charset=latin-1"],
)
async def test_a_body_of_another_type_is_not_read(client: httpx2.AsyncClient, content_type: str) -> None:
    response = await client.post("/graphql", content=body(), headers={"Content-Type": content_type})
    assert (response.status_code, codes(response)) == (415, ["UNSUPPORTED_MEDIA_TYPE"])


async def test_charset_utf8_is_welcome(client: httpx2.AsyncClient) -> None:
    response = await client.post("/", content=body(), headers={"Content-Type": 'application/json; Charset="UTF-8"'})
    assert response.json() == {"data": {"hello": "hello world"}}


async def test_other_methods_are_named_with_those_that_are_allowed(client: httpx2.AsyncClient) -> None:
    for method in ("PUT", "DELETE", "PATCH", "HEAD"):
        response = await client.request(method, "/graphql")
        assert (response.status_code, response.headers["allow"]) == (405, "GET, POST")


async def test_a_mutation_by_get_is_refused_and_changes_nothing(client: httpx2.AsyncClient, world: World) -> None:
    world.may_record.set()
    for accept in ("*/*", "text/event-stream"):
        response = await client.get(
            "/graphql", params={"query": 'mutation { record(name: "x") }'}, headers={"Accept": accept}
        )
        assert (response.status_code, response.headers["allow"], codes(response)) == (
            405,
            "POST",
            ["METHOD_NOT_ALLOWED"],
        )
    assert world.recorded == []


async def test_extensions_reach_the_resolvers_by_either_method(client: httpx2.AsyncClient, world: World) -> None:
    await client.post("/", content=body(extensions={"a": [1]}), headers=TYPE)
    await client.get("/", params={"query": "{ hello }", "extensions": '{"a":[1]}'})
    await client.post("/", content=body(extensions=None), headers=TYPE)
    assert [context.extensions for context in world.contexts] == [{"a": [1]}, {"a": [1]}, {}]


async def test_a_query_by_get_is_answered(client: httpx2.AsyncClient) -> None:
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
async def test_a_malformed_get_is_told_so(client: httpx2.AsyncClient, query_string: str) -> None:
    response = await client.get("/graphql?" + query_string)
    assert (response.status_code, codes(response)) == (400, ["BAD_REQUEST"])


@pytest.mark.parametrize(
    ("accept", "answer"),
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
async def test_the_answer_has_the_type_that_the_client_wants(
    client: httpx2.AsyncClient, accept: str | None, answer: str
) -> None:
    request = client.build_request("POST", "/graphql", content=body(), headers=TYPE)
    del request.headers["accept"]
    if accept is not None:
        request.headers["accept"] = accept
    response = await client.send(request)
    assert response.headers["content-type"] == answer + "; charset=utf-8"


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "image/png, text/plain", "x;q=z"])
async def test_nothing_acceptable_is_told_before_anything_runs(
    client: httpx2.AsyncClient, world: World, accept: str
) -> None:
    response = await client.post("/graphql", content=body(), headers=TYPE | {"Accept": accept})
    assert (response.status_code, codes(response)) == (406, ["NOT_ACCEPTABLE"])
    assert world.contexts == []


async def test_a_subscription_without_an_event_stream_is_told_what_it_needs(client: httpx2.AsyncClient) -> None:
    response = await client.post("/graphql", content=body("subscription { ticks { id } }"), headers=TYPE)
    assert (response.status_code, codes(response)) == (406, ["NOT_ACCEPTABLE"])
    assert "text/event-stream" in response.json()["errors"][0]["message"]


async def test_a_body_beyond_the_limit_is_refused_announced_or_not(world: World) -> None:
    async def chunks() -> AsyncGenerator[bytes]:
        for _ in range(20):
            yield b"x" * 100

    async with client_of(world, max_bytes=1000) as client:
        for content in (b"x" * 1001, chunks()):
            response = await client.post("/graphql", content=content, headers=TYPE)
            assert (response.status_code, codes(response)) == (413, ["TOO_LARGE"])


async def test_what_a_resolver_refuses_is_answered_200_with_path_place_and_code(client: httpx2.AsyncClient) -> None:
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


async def test_several_violations_come_back_together(client: httpx2.AsyncClient) -> None:
    query = 'mutation { create(thing: {name: "", tags: []}) }'
    response = await client.post("/", content=body(query), headers=TYPE)
    assert [(e["message"], e["path"], e["extensions"]) for e in response.json()["errors"]] == [
        ("name is empty", ["create"], {"code": "INVALID_INPUT", "field": "name"}),
        ("no such tag", ["create"], {"code": "INVALID_INPUT", "field": "tags/0"}),
    ]


async def test_each_variable_that_does_not_fit_is_named_by_its_field(client: httpx2.AsyncClient) -> None:
    query = "mutation ($thing: Thing!) { create(thing: $thing) }"
    response = await client.post(
        "/", content=body(query, variables={"thing": {"name": 5, "tags": [1, "x"]}}), headers=TYPE
    )
    assert response.status_code == 400
    assert [error["extensions"] for error in response.json()["errors"]] == [
        {"code": "INVALID_INPUT", "field": "name"},
        {"code": "INVALID_INPUT", "field": "tags/1"},
    ]


async def test_values_that_would_be_altered_are_named_from_below_their_variable(client: httpx2.AsyncClient) -> None:
    body = b'{"query":"{ hello }","variables":{"thing":{"a/b":[0,1e999]},"first":1e999}}'
    variables = '{"thing":{"a/b":[0,1e999]},"first":1e999}'
    for response in (
        await client.post("/", content=body, headers=TYPE),
        await client.get("/", params={"query": "{ hello }", "variables": variables}),
    ):
        assert response.status_code == 400
        assert [e["extensions"]["field"] for e in response.json()["errors"]] == ["a~1b/1", "first"]


async def test_a_null_variable_in_a_place_that_needs_a_value_is_an_input_error(client: httpx2.AsyncClient) -> None:
    query = "query ($n: String) { hello(name: $n) }"
    response = await client.post("/", content=body(query, variables={"n": None}), headers=TYPE)
    assert response.json()["errors"][0]["extensions"] == {"code": "INVALID_INPUT", "field": "name"}


async def test_our_own_faults_are_masked_and_carry_the_request_id(client: httpx2.AsyncClient) -> None:
    response = await client.post("/", content=body("{ hello broken }"), headers=TYPE | {"X-Request-ID": "abc-1"})
    assert response.headers["x-request-id"] == "abc-1"
    assert "hunter2" not in response.text
    assert response.json()["data"] == {"hello": "hello world", "broken": None}
    (error,) = response.json()["errors"]
    assert (error["message"], error["extensions"]) == ("internal error", {"code": "INTERNAL", "requestId": "abc-1"})


async def test_a_result_that_json_cannot_hold_is_our_fault_and_masked(client: httpx2.AsyncClient) -> None:
    response = await client.post("/", content=body("{ unwritable }"), headers=TYPE)
    assert codes(response) == ["INTERNAL"]


async def test_a_fault_while_authenticating_is_masked(world: World) -> None:
    async with client_of(world, {"X-API-Key": "broken"}) as client:
        response = await client.post("/", content=body(), headers=TYPE)
    assert (response.status_code, codes(response)) == (500, ["INTERNAL"])
    assert "hunter2" not in response.text


async def test_the_longest_wait_is_the_retry_after_header(client: httpx2.AsyncClient) -> None:
    response = await client.post("/", content=body("{ busy limited }"), headers=TYPE)
    assert response.headers["retry-after"] == "30"
    assert [error["extensions"] for error in response.json()["errors"]] == [
        {"code": "OVERLOADED", "retryAfter": 1.5},
        {"code": "RATE_LIMITED", "retryAfter": 30},
    ]


async def test_raw_json_and_times_are_written_as_they_are(client: httpx2.AsyncClient) -> None:
    response = await client.post("/", content=body("{ raw at }"), headers=TYPE)
    assert response.text == '{"data":{"raw":{"b":1.10,"a":[]},"at":"2026-01-02T03:04:05+00:00"}}'


async def test_one_rows_failure_costs_no_other_row(client: httpx2.AsyncClient) -> None:
    response = await client.post("/", content=body("{ rows { id square own } }"), headers=TYPE)
    assert response.json()["data"] == {
        "rows": [{"id": 1, "square": 1, "own": 1}, None, {"id": 3, "square": 9, "own": 3}]
    }
    assert codes(response) == ["NOT_FOUND"]


async def test_the_rows_of_an_operation_share_one_load_and_two_operations_none(
    client: httpx2.AsyncClient, world: World
) -> None:
    for _ in range(2):
        await client.post("/", content=body("{ rows { square } }"), headers=TYPE)
    assert world.loads == [[1, 2, 3], [1, 2, 3]]


async def test_a_mutation_goes_on_when_its_caller_is_given_up(world: World) -> None:
    async with client_of(world, timeout_seconds=0.05) as client:
        response = await client.post("/", content=body('mutation { record(name: "x") }'), headers=TYPE)
        assert (response.status_code, codes(response)) == (504, ["TIMEOUT"])
        assert world.recorded == []
        world.may_record.set()
        await asyncio.wait_for(world.heard.wait(), 5)
    assert world.recorded == ["x"]
    assert world.observed == [("mutation", "ok")]


async def test_each_operation_is_observed_with_its_outcome(client: httpx2.AsyncClient, world: World) -> None:
    for query in ("{ hello }", "{ missing }", 'mutation { login(name: "a") }', "{ nothing }"):
        await client.post("/", content=body(query), headers=TYPE)
    assert world.observed == [
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
async def test_anonymous_callers_learn_and_do_nothing(world: World, query: str) -> None:
    async with client_of(world, {}) as client:
        response = await client.post(
            "/", content=body(query, operationName="b" if " b " in query else None), headers=TYPE
        )
    assert (response.status_code, codes(response)) == (401, ["UNAUTHENTICATED"])
    assert response.headers["www-authenticate"] == "Bearer"
    assert world.contexts == []


@pytest.mark.parametrize(
    ("query", "data"),
    [
        ('mutation { login(name: "a") }', {"login": "token of a"}),
        ('mutation { __typename t: login(name: "a") }', {"__typename": "Mutation", "t": "token of a"}),
        ("{ __typename }", {"__typename": "Query"}),
    ],
)
async def test_anyone_may_log_in_and_ask_for_the_typename(world: World, query: str, data: object) -> None:
    async with client_of(world, {}) as client:
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
        ({"Authorization": "Bearer good", "X-API-Key": "other"}, "INVALID_TOKEN"),
    ],
)
async def test_a_bad_credential_is_refused_even_where_none_is_needed(
    world: World, headers: dict[str, str], code: str
) -> None:
    async with client_of(world, headers) as client:
        response = await client.post("/", content=body('mutation { login(name: "a") }'), headers=TYPE)
    assert (response.status_code, codes(response)) == (401, [code])
    assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert world.contexts == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "bearer  good"},
        {"X-API-Key": "good"},
        {"Authorization": "Bearer good", "X-API-Key": "good"},
        {"Authorization": "", "X-API-Key": "good"},
    ],
)
async def test_a_good_credential_is_accepted_in_either_header(world: World, headers: dict[str, str]) -> None:
    async with client_of(world, headers) as client:
        response = await client.post("/", content=body("{ me }"), headers=TYPE)
    assert response.json() == {"data": {"me": "ada"}}


async def test_a_credential_in_the_address_is_nobody(world: World) -> None:
    async with client_of(world, {}) as client:
        for name in ("token", "access_token", "apiKey", "Authorization"):
            response = await client.get("/", params={"query": "{ me }", name: "good"})
            assert (response.status_code, codes(response)) == (401, ["UNAUTHENTICATED"])


async def test_an_authority_that_is_away_is_not_a_wrong_token(world: World) -> None:
    async with client_of(world, {"X-API-Key": "offline"}) as client:
        response = await client.post("/", content=body(), headers=TYPE)
    assert (response.status_code, codes(response)) == (503, ["UNAVAILABLE"])


async def test_an_empty_subscription_is_refused(client: httpx2.AsyncClient) -> None:
    for query in ("subscription { ticks @skip(if: true) { id } }", "subscription { }"):
        response = await client.post("/", content=body(query), headers=TYPE | {"Accept": "text/event-stream"})
        assert response.status_code == 400
