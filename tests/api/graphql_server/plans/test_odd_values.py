"""Values that a plan leaves to graphql-core: each gives graphql-core's result, and costs one fallback."""

import asyncio
import types
from collections.abc import Callable, Generator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import strawberry
from graphql import GraphQLError, Undefined

from tests.api.graphql_server.plans.schema_pair import Data, Info, SchemaPair
from xzepr.core.errors import NotFound


@strawberry.type
class Row:
    """Resolved from any object."""

    number: int | None
    ratio: float | None
    text: str | None
    flag: bool | None
    numbers: list[int] | None
    rows: list["Row"] | None
    row: "Row | None"
    sure: int


@strawberry.type
class Query:
    """Returns what the test has chosen."""

    @strawberry.field(graphql_type=Row | None)
    @staticmethod
    def row(info: Info) -> object:
        info.context.calls.append("row")
        return info.context.get()

    @strawberry.field(graphql_type=list[list[Row | None]] | None)
    @staticmethod
    def rows(info: Info) -> object:
        info.context.calls.append("rows")
        return info.context.get()

    @strawberry.field(graphql_type=int | None)
    @staticmethod
    async def number(info: Info) -> object:
        info.context.calls.append("number")
        return info.context.get()


PAIR = SchemaPair(Query)

# An odd value can be a coroutine that graphql-core does not reach.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")


@pytest.fixture(autouse=True)
def no_fallbacks() -> None:
    """Forgets the fallbacks of other tests."""
    PAIR.reasons.clear()


async def _awaited(value: object) -> object:
    return value


@types.coroutine
def _generator() -> Generator[None, None, SimpleNamespace]:
    yield from asyncio.sleep(0).__await__()
    return SimpleNamespace()


def _items() -> Iterator[int]:
    yield from (1, 2)


@pytest.mark.parametrize(
    ("field", "new"),
    [
        ("number", lambda: 2**31),
        ("number", lambda: -(2**31) - 1),
        ("number", lambda: True),
        ("number", lambda: 1.0),
        ("number", lambda: 1.5),
        ("number", lambda: "5"),
        ("number", lambda: Undefined),
        ("number", lambda: ValueError("no")),
        ("number", lambda: NotFound("row", "1")),
        ("number", lambda: GraphQLError("no")),
        ("number", lambda: _awaited(5)),
        ("ratio", lambda: float("nan")),
        ("ratio", lambda: float("inf")),
        ("ratio", lambda: "high"),
        ("text", lambda: b"bytes"),
        ("text", lambda: ["a list"]),
        ("text", lambda: 5),
        ("flag", lambda: 1),
        ("flag", lambda: "true"),
        ("numbers", _items),
        ("numbers", lambda: iter([1, 2])),
        ("numbers", lambda: {1: "one"}),
        ("numbers", lambda: "12"),
        ("numbers", lambda: 12),
        ("numbers", lambda: [1, None]),
    ],
)
async def test_odd_value_has_the_result_of_graphql_core(field: str, new: Callable[[], object]) -> None:
    await PAIR.compare(f"{{ row {{ {field} }} }}", lambda: Data(lambda: SimpleNamespace(**{field: new()})))
    assert len(PAIR.reasons) == 1


@pytest.mark.parametrize(
    "new",
    [
        lambda: Undefined,
        lambda: ValueError("no"),
        lambda: _awaited(SimpleNamespace()),
        _generator,
        lambda: _awaited(_awaited(SimpleNamespace())),
    ],
)
async def test_odd_object_has_the_result_of_graphql_core(new: Callable[[], object]) -> None:
    # No field is read from the object, so only its type shows that it is odd.
    await PAIR.compare("{ row { __typename } }", lambda: Data(new))
    await PAIR.compare("{ row { row { __typename } } }", lambda: Data(lambda: SimpleNamespace(row=new())))


@pytest.mark.parametrize("value", [2**31 - 1, -(2**31), 0, None])
async def test_plain_value_needs_no_fallback(value: int | None) -> None:
    result = await PAIR.compare("{ row { number } }", lambda: Data(SimpleNamespace(number=value)))
    assert result.data == {"row": {"number": value}}
    assert PAIR.reasons == []


async def test_root_value_is_awaited_once() -> None:
    result = await PAIR.compare("{ number }", lambda: Data(lambda: 2**31))
    assert result.data == {"number": None}
    assert PAIR.reasons == ["value"]


async def test_errors_below_a_position_nulled_later_stay() -> None:
    def row() -> object:
        return SimpleNamespace(row=SimpleNamespace(number="x", sure=None))

    result = await PAIR.compare("{ row { row { number sure } } }", lambda: Data(row))
    assert result.data == {"row": {"row": None}}
    assert [error.path for error in result.errors or ()] == [["row", "row", "number"], ["row", "row", "sure"]]


class _Counted:
    """A row that counts how often it is read."""

    def __init__(self, number: object, reads: list[object]) -> None:
        self._number = number
        self._reads = reads

    @property
    def number(self) -> object:
        """The number; each time it is read counts."""
        self._reads.append(self._number)
        return self._number


async def test_bad_row_sends_its_list_to_graphql_core_once() -> None:
    reads: list[object] = []
    values: list[object] = [*range(20), "bad"]
    data = Data([[_Counted(value, reads) for value in values], [_Counted(30, reads)]])
    result = await PAIR.run("{ rows { number } }", data)
    assert result.data == {"rows": [[{"number": i} for i in range(20)] + [{"number": None}], [{"number": 30}]]}
    assert data.calls == ["rows"]
    assert PAIR.reasons == ["value"]
    assert all(reads.count(value) <= 2 for value in values)


async def test_null_and_absent_selections_differ() -> None:
    text = "query ($one: Boolean! = true) { row { number text @include(if: $one) } }"
    row = Data(SimpleNamespace(number=None, text=None))
    assert (await PAIR.run(text, row)).data == {"row": {"number": None, "text": None}}
    assert (await PAIR.run(text, row, {"one": False})).data == {"row": {"number": None}}
    assert (await PAIR.run(text, row, {"one": True})).data == {"row": {"number": None, "text": None}}
    assert PAIR.reasons == []


async def test_null_in_a_directive_is_an_error() -> None:
    text = "query ($one: Boolean = true) { row { number row { text @include(if: $one) } } }"
    result = await PAIR.compare(text, lambda: Data(SimpleNamespace(number=1, row=SimpleNamespace())), {"one": None})
    assert result.data == {"row": {"number": 1, "row": None}}
    assert PAIR.reasons == ["operation"]


async def test_null_in_a_directive_of_a_root_field_is_an_error() -> None:
    text = "query ($one: Boolean = true) { number @include(if: $one) }"
    result = await PAIR.compare(text, lambda: Data(1), {"one": None})
    assert result.data is None
    assert PAIR.reasons == ["operation"]


async def test_large_selections_are_left_to_graphql_core() -> None:
    def nested(depth: int) -> str:
        return "number" if depth == 0 else f"a: row {{ {nested(depth - 1)} }} b: row {{ {nested(depth - 1)} }}"

    await PAIR.compare(f"{{ {nested(11)} }}", lambda: Data(None))
    assert PAIR.reasons == ["operation"]


async def test_nested_lists_are_completed_like_single_values() -> None:
    def rows(depth: int) -> Any:
        return [] if depth == 0 else [SimpleNamespace(number=depth, rows=rows(depth - 1)) for _ in range(2)]

    text = "{ row { rows { number rows { number rows { number rows { number } } } } } }"
    await PAIR.compare(text, lambda: Data(SimpleNamespace(rows=rows(3))))
    assert PAIR.reasons == []
