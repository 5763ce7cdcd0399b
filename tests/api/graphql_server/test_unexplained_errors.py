"""Errors in documents and variables: named for those who may read the schema, hidden from all others, and limited."""

from collections.abc import AsyncGenerator

import httpx2
import pytest

from tests.api.graphql_server.small_schema import BEARER, FakeBackend, app

DOCUMENT = "the document does not match the schema: sign in to see the errors"
VARIABLES = "the variables do not match their types: sign in to see the errors"


@pytest.fixture
async def client() -> AsyncGenerator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app(FakeBackend()))
    async with httpx2.AsyncClient(transport=transport, base_url="http://hub") as client:
        yield client


@pytest.mark.parametrize(
    "query",
    [
        "mutation ($t: Thng!) { login(name: $t) }",
        "mutation ($t: Thing!) { login(name: $t) }",
        "mutation { login }",
        "mutation { login(nam: 1) }",
        'mutation { login(name: "a") { token } }',
        "{ __typename ...F } fragment F on Tick { __typename }",
        "{ __typename } fragment F on Tock { idd }",
        "{ __typename @skp }",
    ],
)
async def test_anonymous_document_error_has_no_names(client: httpx2.AsyncClient, query: str) -> None:
    response = await client.post("/", json={"query": query})
    assert response.status_code == 400
    assert response.json() == {"errors": [{"message": DOCUMENT, "extensions": {"code": "GRAPHQL_VALIDATION_FAILED"}}]}


async def test_anonymous_variable_error_has_no_names(client: httpx2.AsyncClient) -> None:
    sent: list[dict[str, object]] = [{}, {"n": None}, {"n": [5]}]
    for variables in sent:
        request = {"query": "mutation ($n: String!) { login(name: $n) }", "variables": variables}
        response = await client.post("/", json=request)
        assert response.json() == {"errors": [{"message": VARIABLES, "extensions": {"code": "INVALID_INPUT"}}]}


async def test_user_gets_suggestions(client: httpx2.AsyncClient) -> None:
    query = "mutation ($t: Thng!) { create(thing: $t) }"
    response = await client.post("/", json={"query": query}, headers=BEARER)
    (error,) = response.json()["errors"]
    assert "Did you mean 'Thing'" in error["message"]
    assert error["locations"]


async def test_user_gets_at_most_20_errors(client: httpx2.AsyncClient) -> None:
    create = "mutation ($thing: Thing!) { create(thing: $thing) }"
    for request in (
        {"query": "{ " + " ".join(f"x{n}" for n in range(60)) + " }"},
        {"query": create, "variables": {"thing": {"name": "a", "tags": ["x"] * 60}}},
    ):
        response = await client.post("/", json=request, headers=BEARER)
        messages = [error["message"] for error in response.json()["errors"]]
        assert len(messages) == 20
        assert "error limit reached" in messages[-1]
