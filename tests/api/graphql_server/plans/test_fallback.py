"""An operation falls back once, with the outcomes of its root fields, and for a reason that is counted."""

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest
import strawberry

from tests.api.graphql_server.plans.schema_pair import Data, Info, SchemaPair
from tests.api.graphql_server.small_schema import ADA, FakeBackend, service
from xzepr.api.graphql_server.documents import DocumentLimits, Documents
from xzepr.api.graphql_server.operations import Call, GraphQLRequest


@strawberry.type
class Item:
    """An item that is resolved from a number."""

    @strawberry.field
    @staticmethod
    def half(root: strawberry.Parent[Any]) -> int | None:
        return cast(int, 1 / (root - 2) and root)


def _called(info: Info, name: str) -> Data:
    info.context.calls.append(name)
    return info.context


@strawberry.type
class Query:
    """Fields that succeed or fail, at once or later."""

    @strawberry.field(graphql_type=list[Item | None])
    @staticmethod
    async def items(info: Info) -> object:
        _called(info, "items")
        await asyncio.sleep(0)
        return [1, 2, 3]

    @strawberry.field
    @staticmethod
    async def late(info: Info) -> int:
        _called(info, "late")
        await asyncio.sleep(0)
        raise ValueError("late")

    @strawberry.field
    @staticmethod
    def early(info: Info) -> int | None:
        _called(info, "early")
        raise ValueError("early")

    @strawberry.field(graphql_type=int | None)
    @staticmethod
    def shared(info: Info) -> object:
        return _called(info, "shared").value

    @strawberry.field
    @staticmethod
    def echo(
        info: Info, source: int = 0, call: int = 0, raw_info: int = 0, item: int = 0, outcomes: int = 0
    ) -> int | None:
        _called(info, "echo")
        return source + call + raw_info + item + outcomes


@strawberry.type
class Mutation:
    """Changes in a row."""

    @strawberry.mutation
    @staticmethod
    def add(info: Info, by: int = 1) -> int:
        return sum(_called(info, "add").calls.count("add") * [by])

    @strawberry.mutation
    @staticmethod
    async def fail(info: Info) -> int:
        _called(info, "fail")
        raise ValueError("failed")

    @strawberry.mutation
    @staticmethod
    async def fail_softly(info: Info) -> int | None:
        _called(info, "fail softly")
        raise ValueError("failed")

    @strawberry.mutation(graphql_type=int)
    @staticmethod
    def odd(info: Info) -> object:
        _called(info, "odd")
        return 2**40

    @strawberry.mutation(graphql_type=int | None)
    @staticmethod
    def text(info: Info) -> object:
        _called(info, "text")
        return "5"


@pytest.fixture
def pair() -> SchemaPair:
    """The schema, without fallbacks."""
    return SchemaPair(Query, Mutation)


async def test_awaited_error_keeps_its_place_among_others(pair: SchemaPair) -> None:
    result = await pair.compare("{ items { half } late }")
    assert result.data is None
    assert [error.path for error in result.errors or ()] == [["items", 1, "half"], ["late"]]
    assert pair.reasons == ["error"]


@pytest.mark.parametrize("text", ["{ early items { half } }", "{ items { half } early }", "{ early late }"])
async def test_errors_of_several_root_fields_are_reported(pair: SchemaPair, text: str) -> None:
    await pair.compare(text)
    assert pair.reasons == ["error"]


async def test_arguments_can_have_any_name(pair: SchemaPair) -> None:
    text = "{ echo(source: 1, call: 2, rawInfo: 3, item: 4, outcomes: 5) }"
    assert (await pair.compare(text)).data == {"echo": 15}
    # With a fallback, graphql-core calls the resolvers, and passes the outcomes of those that have run.
    result = await pair.compare(text[:-1] + "early }")
    assert result.data == {"echo": 15, "early": None}


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("mutation { add fail other: add }", ["add", "fail"]),
        ("mutation { add odd other: add }", ["add", "odd"]),
        ("mutation { add failSoftly other: add }", ["add", "fail softly", "add"]),
        ("mutation { text other: add failSoftly }", ["text", "add", "fail softly"]),
        ("mutation { add other: add(by: 2) third: add(by: 3) }", ["add", "add", "add"]),
    ],
)
async def test_mutation_calls_each_resolver_once(pair: SchemaPair, text: str, calls: list[str]) -> None:
    data = Data()
    await pair.run(text, data)
    assert data.calls == calls
    await pair.compare(text)
    assert len(set(pair.reasons)) <= 1


async def test_cancelled_execution_leaves_a_shared_future(pair: SchemaPair) -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(pair.run("{ shared other: shared early }", Data(future)))
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not future.cancelled()


async def test_cancelled_future_of_a_root_field_is_an_error(pair: SchemaPair) -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    future.cancel()
    result = await pair.run("{ shared echo(source: 1) }", Data(future))
    assert result.data == {"shared": None, "echo": 1}
    assert [error.path for error in result.errors] == [["shared"]]


def _new_context(*_: object) -> Data:
    return Data()


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("{ echo(source: 1) }", []),
        ("{ __schema { queryType { name } } }", ["operation"]),
        ("mutation { text }", ["value"]),
        ("{ early }", ["error"]),
        ("{ items { half } echo(source: 1) }", ["error"]),
    ],
)
async def test_service_counts_fallbacks_by_reason(pair: SchemaPair, text: str, reasons: list[str]) -> None:
    counted: list[str] = []
    graphql = replace(
        service(FakeBackend()),
        schema=pair.fast,
        documents=Documents(pair.fast, DocumentLimits()),
        new_context=_new_context,
        fell_back=counted.append,
    )
    response = await graphql.run(graphql.prepare(GraphQLRequest(text), ADA), Call(ADA, "01REQUEST"))
    assert "data" in response.body
    assert counted == reasons
