"""Batch edges are called once for each level, and a failure of one concerns its objects only."""

import asyncio
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
import strawberry

from tests.api.graphql_server.plans.schema_pair import Data, Info, Parent, SchemaPair, resolved_by
from xzepr.api.graphql_server.plans.resolvers import BATCH
from xzepr.core.errors import NotFound


async def _double(roots: Parent, info: Info, times: int = 2) -> object:
    info.context.calls.append(("double", [root.number for root in roots]))
    await asyncio.sleep(0)
    return [NotFound("row", "2") if root.number == 2 else root.number * times for root in roots]


def _rows(roots: Parent, info: Info) -> object:
    info.context.calls.append(("rows", [root.number for root in roots]))
    return [[SimpleNamespace(number=root.number + 10 + i) for i in range(root.number % 3)] for root in roots]


def _short(roots: Parent, info: Info) -> object:
    return [1 for _ in roots[1:]]


def _failing(roots: Parent, info: Info) -> object:
    raise NotFound("all", "rows")


def _shared(roots: Parent, info: Info) -> object:
    return info.context.value


def _of_a(roots: Parent, info: Info) -> object:
    return [f"a{root.text}" for root in roots]


def _of_b(roots: Parent, info: Info) -> object:
    return [f"b{root.text}" for root in roots]


def _edge(resolver: Any, graphql_type: Any) -> Any:
    return resolved_by(resolver, graphql_type, metadata=BATCH)


AnyRow = Annotated["Row", strawberry.lazy("tests.api.graphql_server.plans.test_edges")]


@strawberry.type
class Row:
    """A row with edges."""

    number: int
    odd: int | None
    double: int | None = _edge(_double, int | None)
    rows: list["Row"] = _edge(_rows, list[AnyRow])
    short: int | None = _edge(_short, int | None)
    failing: int | None = _edge(_failing, int | None)
    shared: int | None = _edge(_shared, int | None)


@strawberry.interface
class Named:
    """An object whose types resolve a field differently."""

    text: str
    odd: int | None
    name: str = _edge(_of_a, str)


@strawberry.type
class A(Named):
    """A named object."""

    name: str = _edge(_of_a, str)


@strawberry.type
class B(Named):
    """Another named object."""

    name: str = _edge(_of_b, str)


@strawberry.type
class Query:
    """Returns what the test has chosen."""

    @strawberry.field(graphql_type=list[Row])
    @staticmethod
    def rows(info: Info) -> object:
        return [SimpleNamespace(number=number, odd=None) for number in info.context.get()]

    @strawberry.field(graphql_type=list[Row])
    @staticmethod
    def one(info: Info) -> object:
        return [SimpleNamespace(number=1, odd=None)]

    @strawberry.field(graphql_type=list[Named | None])
    @staticmethod
    def named(info: Info) -> object:
        kinds: dict[str, Any] = {"a": A, "b": B, "?": SimpleNamespace}
        return [kinds[kind](text=str(i), odd=odd) for i, (kind, odd) in enumerate(info.context.get())]


@pytest.fixture
def pair() -> SchemaPair:
    """The schema, without fallbacks."""
    return SchemaPair(Query, types=[A, B])


async def test_edge_is_called_once_for_each_level(pair: SchemaPair) -> None:
    data = Data([4, 5, 3])
    result = await pair.run("{ rows { number rows { number double } } }", data)
    assert result.data["rows"][1] == {
        "number": 5,
        "rows": [{"number": 15, "double": 30}, {"number": 16, "double": 32}],
    }
    assert data.calls == [("rows", [4, 5, 3]), ("double", [14, 15, 16])]
    assert pair.reasons == []


async def test_edge_is_not_called_without_objects(pair: SchemaPair) -> None:
    data = Data([3, 6])
    assert (await pair.run("{ rows { rows { number double } } }", data)).data == {"rows": [{"rows": []}, {"rows": []}]}
    assert data.calls == [("rows", [3, 6])]


async def test_values_are_matched_by_position(pair: SchemaPair) -> None:
    data = Data([5, 5, 1, 5])
    assert (await pair.run("{ rows { double } }", data)).data == {
        "rows": [{"double": 10}, {"double": 10}, {"double": 2}, {"double": 10}]
    }


async def test_exception_for_one_object_is_its_error(pair: SchemaPair) -> None:
    data = Data([1, 2, 3])
    result = await pair.run("{ rows { double(times: 3) } }", data)
    assert result.data == {"rows": [{"double": 3}, {"double": None}, {"double": 9}]}
    assert [error.path for error in result.errors] == [["rows", 1, "double"]]
    assert pair.reasons == ["error"]
    assert len(data.calls) == 2  # by the plan and by graphql-core, which also calls it once


@pytest.mark.parametrize("field", ["short", "failing"])
async def test_failing_batch_is_the_error_of_all_its_objects(pair: SchemaPair, field: str) -> None:
    result = await pair.run(f"{{ rows {{ number {field} }} }}", Data([1, 2]))
    assert result.data == {"rows": [{"number": 1, field: None}, {"number": 2, field: None}]}
    assert [error.path for error in result.errors] == [["rows", 0, field], ["rows", 1, field]]


async def test_types_can_resolve_a_field_by_different_batches(pair: SchemaPair) -> None:
    kinds: list[tuple[str, str | None]] = [("a", None), ("b", None), ("a", None)]
    expected = [{"name": "a0"}, {"name": "b1"}, {"name": "a2"}]
    assert (await pair.run("{ named { name } }", Data(kinds))).data == {"named": expected}
    assert pair.reasons == []
    # An odd value makes graphql-core call the batches.
    kinds[2] = ("a", "odd")
    result = await pair.run("{ named { name odd } }", Data(kinds))
    assert result.data == {"named": [named | {"odd": None} for named in expected]}
    assert pair.reasons == ["value"]


@pytest.mark.filterwarnings("error")
async def test_object_of_an_unknown_class_is_left_to_graphql_core(pair: SchemaPair) -> None:
    result = await pair.run("{ named { name } }", Data([("a", None), ("b", None), ("?", None)]))
    assert result.data == {"named": [{"name": "a0"}, {"name": "b1"}, None]}
    assert [error.path for error in result.errors] == [["named", 2]]
    assert pair.reasons == ["error"]


async def test_cancelled_execution_leaves_a_shared_future(pair: SchemaPair) -> None:
    future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(pair.run("{ one { shared } }", Data(future)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not future.cancelled()


async def test_cancelled_shared_future_is_an_error(pair: SchemaPair) -> None:
    future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(pair.run("{ one { number shared } }", Data(future)))
    await asyncio.sleep(0)
    future.cancel()
    result = await task
    assert result.data == {"one": [{"number": 1, "shared": None}]}
    assert [error.path for error in result.errors] == [["one", 0, "shared"]]
