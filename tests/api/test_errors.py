"""Error codes: their HTTP statuses, headers and descriptions, and the reference page of errors."""

import re
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from xzepr.api import errors as api_errors
from xzepr.api.errors import (
    STATUS,
    Internal,
    MethodNotAllowed,
    UnsupportedContentEncoding,
    error_objects,
    headers_of,
    problem_response,
)
from xzepr.core.errors import (
    InvalidInput,
    InvalidToken,
    NotFound,
    Overloaded,
    Problem,
    RateLimited,
    Unauthenticated,
    Violation,
)
from xzepr.server import refusals

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"


def kinds(parent: type[Problem] = Problem) -> Iterator[type[Problem]]:
    """Yields every subclass of a problem, at any depth."""
    for kind in parent.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_every_problem_code_has_a_status() -> None:
    codes = {
        kind.code
        for kind in kinds()
        if kind.__module__ in ("xzepr.core.errors", api_errors.__name__, refusals.__name__)
    }
    assert set(STATUS) == codes


def test_reference_lists_every_code_with_its_status() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (\d+) \| .+ \|$", PAGE.read_text(), re.MULTILINE)
    assert len(rows) == len(STATUS)
    assert {code: int(status) for code, status in rows} == dict(STATUS)


def test_described_problem_includes_its_details() -> None:
    assert error_objects(NotFound("event", "01X", field="id")) == [
        {"message": "there is no event '01X'", "extensions": {"code": "NOT_FOUND", "field": "id"}}
    ]
    assert error_objects(Overloaded("busy", retry_after=2)) == [
        {"message": "busy", "extensions": {"code": "OVERLOADED", "retryAfter": 2}}
    ]
    assert error_objects(Internal("r1")) == [
        {"message": "internal error", "extensions": {"code": "INTERNAL", "requestId": "r1"}}
    ]
    assert [
        error["extensions"] for error in error_objects(InvalidInput((Violation("a", "x"), Violation("b/0", "y"))))
    ] == [
        {"code": "INVALID_INPUT", "field": "a"},
        {"code": "INVALID_INPUT", "field": "b/0"},
    ]


@pytest.mark.parametrize(
    ("problem", "headers"),
    [
        (Unauthenticated(), {"WWW-Authenticate": "Bearer"}),
        (InvalidToken(), {"WWW-Authenticate": 'Bearer error="invalid_token"'}),
        (RateLimited("often", retry_after=1.2), {"Retry-After": "2"}),
        (RateLimited("often", retry_after=0), {"Retry-After": "1"}),
        (MethodNotAllowed("no", allow="GET"), {"Allow": "GET"}),
        (UnsupportedContentEncoding(), {"Accept-Encoding": "gzip"}),
        (NotFound("event", "x"), {}),
    ],
)
def test_problem_has_its_headers(problem: Problem, headers: dict[str, str]) -> None:
    assert headers_of(problem) == headers


def test_problem_becomes_a_complete_response() -> None:
    response = problem_response(NotFound("event", "x"))
    assert (response.status_code, response.headers["content-type"]) == (404, "application/json")
    assert list(orjson.loads(response.body)) == ["errors"]
