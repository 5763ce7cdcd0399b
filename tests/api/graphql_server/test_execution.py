"""Fast execution returns the same results and errors as Strawberry and graphql-core."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, cast

import orjson
import pytest
import strawberry
from graphql import (
    ExecutionResult,
    GraphQLEnumType,
    GraphQLError,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLSchema,
    OperationDefinitionNode,
    parse,
    validate,
)
from graphql.execution.values import get_argument_values, get_variable_values
from hypothesis import given, settings
from hypothesis import strategies as st
from strawberry.schema.config import StrawberryConfig
from strawberry.types.arguments import convert_argument

from xzepr.api.graphql import schema as public_schema
from xzepr.api.graphql.scalars import JSON, SCALARS, Position
from xzepr.api.graphql_server.plans.execution import core_schema, prepare
from xzepr.api.graphql_server.plans.plan import Plan
from xzepr.api.graphql_server.plans.resolvers import install
from xzepr.api.graphql_server.plans.variables import Variables

Values = st.SearchStrategy[Any]


def plan_of(schema: GraphQLSchema, text: str) -> Plan:
    """Returns the plan of the only operation in a document."""
    document = parse(text)
    operation = next(node for node in document.definitions if isinstance(node, OperationDefinitionNode))
    assert not validate(schema, document)
    return Plan(schema, document, operation)


# Input: every input type of the schema, as a variable and within a literal.

SLOW = public_schema.strawberry_schema()
FAST = core_schema(public_schema.build())
INPUTS = sorted(
    name for name, kind in FAST.type_map.items() if isinstance(kind, GraphQLInputObjectType) and name[0] != "_"
)
LEAVES: dict[str, Values] = {
    "String": st.text(max_size=5),
    "ID": st.text(max_size=5) | st.integers(0, 9),
    "Boolean": st.booleans(),
    "Int": st.integers(-(2**31) - 1, 2**31),
    "Position": st.integers(-1, 2**63),
    "DateTime": st.sampled_from(["2026-11-20T21:15:27Z", "2026-11-20T21:15:27+01:00", "2026-11-20T21:15:27", "soon"]),
    "JSON": st.sampled_from([None, 1, "text", [1, {"a": None}], {"b": [True]}]),
}
ANYTHING: Values = st.sampled_from([None, 0, 1.0, True, "", "x", [], [None], {}, {"name": "n"}])


@st.composite
def mostly_valid(draw: st.DrawFn, invalid: Values, valid: Values) -> Any:
    """Draws a valid value, or an invalid one in one of forty cases."""
    return draw(invalid if draw(st.integers(0, 39)) == 23 else valid)


def values_of(type_: Any) -> Values:
    """Draws values of a type, nearly all of them valid."""
    return mostly_valid(ANYTHING, _valid(type_))


def _valid(type_: Any) -> Values:
    if isinstance(type_, GraphQLNonNull):
        return _valid_non_null(cast(Any, type_).of_type)
    return st.none() | _valid_non_null(type_)


def _valid_non_null(type_: Any) -> Values:
    if isinstance(type_, GraphQLList):
        item = values_of(cast(Any, type_).of_type)
        return st.lists(item, max_size=2) | item
    if isinstance(type_, GraphQLEnumType):
        return st.sampled_from(sorted(type_.values))
    if isinstance(type_, GraphQLInputObjectType):
        required = {n: values_of(f.type) for n, f in type_.fields.items() if str(f.type)[-1] == "!"}
        optional = {n: values_of(f.type) for n, f in type_.fields.items() if n not in required}
        return st.fixed_dictionaries(required, optional=optional)
    return LEAVES[type_.name]


def _described(errors: Sequence[GraphQLError] | None) -> list[object]:
    return [(error.message, error.path, error.locations) for error in errors or ()]


@pytest.mark.parametrize("type_name", INPUTS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_variables_are_coerced_like_strawberry(type_name: str, data: st.DataObject) -> None:
    type_ = cast(GraphQLInputObjectType, FAST.type_map[type_name])
    value = data.draw(values_of(GraphQLNonNull(type_)))
    extra = data.draw(st.sampled_from([{}, {}, {}, {"unknown": 1}]))
    if extra and isinstance(value, dict):
        value = cast(dict[str, object], value) | extra
    operation = cast(
        OperationDefinitionNode, parse(f"query ($input: {type_name}!, $other: {type_name}) {{ x }}").definitions[0]
    )
    variables: dict[str, object] = data.draw(st.sampled_from([{"input": value}, {"input": value, "other": None}]))
    slow = get_variable_values(core_schema(SLOW), operation.variable_definitions or (), variables, max_errors=50)
    fast = Variables(FAST, operation).values(variables)
    if isinstance(slow, list) or isinstance(fast, list):
        assert isinstance(slow, list)
        assert isinstance(fast, list)
        assert _described(fast) == _described(slow)
        return
    assert {n: s.value for n, s in fast.sources.items()} == {n: s.value for n, s in slow.sources.items()}
    converter = SLOW.schema_converter
    kind = type_.extensions["strawberry-definition"].origin
    for name, coerced in slow.coerced.items():
        converted = convert_argument(coerced, kind, converter.scalar_registry, converter.config)
        assert fast.coerced[name] == converted
        assert type(fast.coerced[name]) is type(converted)
    assert fast.coerced.keys() == slow.coerced.keys()


def test_input_object_is_built_from_any_notation() -> None:
    create = FAST.mutation_type.fields["createEvents"] if FAST.mutation_type else None
    assert create is not None
    event = (
        '{name: "a", version: "1", release: "r", platformId: "p", package: "k", description: "d", '
        'payload: {a: [1, $n]}, success: true, eventReceiverId: 7, createdAt: "2026-11-20T21:15:27Z"}'
    )
    text = f"mutation ($n: JSON, $e: CreateEventInput!) {{ createEvents(input: {{events: [{event}, $e]}}) {{ x }} }}"
    operation = cast(OperationDefinitionNode, parse(text).definitions[0])
    variables = {
        "n": 2,
        "e": {
            "name": "b", "version": "1", "release": "r", "platformId": "p", "package": "k", "description": "d",
            "payload": None, "success": True, "eventReceiverId": "8",
        } | {"payload": 5},
    }  # fmt: skip
    values = Variables(FAST, operation).values(variables)
    assert not isinstance(values, list)
    built: Any = get_argument_values(create, cast(Any, operation.selection_set.selections[0]), values)["input"]
    assert [event.name for event in built.events] == ["a", "b"]
    assert built.events[0].payload == {"a": [1, 2]}
    assert built.events[0].event_receiver_id == "7"
    assert built.events[0].created_at == datetime(2026, 11, 20, 21, 15, 27, tzinfo=UTC)
    assert built.events[1].created_at is None
    assert built.events[1].idempotency_key is None


# Output: a schema in which every field can fail.


@strawberry.enum
class Colour(Enum):
    """An enum with two members."""

    RED = "red"
    BLUE = "blue"


class Awaited:
    """An awaitable that is not a coroutine."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __await__(self) -> Any:
        yield from asyncio.sleep(0).__await__()
        return self.value


@dataclass
class Thing:
    """The source object of an Item. Its fields may hold values of any type."""

    text: object
    maybe: object
    number: object
    flag: object
    time: object
    position: object
    json: object
    colour: object
    texts: object
    child: object
    children: object
    some: object

    def __getattr__(self, name: str) -> object:
        raise AttributeError(name)


@strawberry.interface
class Node:
    """An object with a text."""

    text: str


@strawberry.type
class Leaf(Node):
    """A node that identifies its own type."""

    maybe: int | None

    @classmethod
    def is_type_of(cls, value: object, _info: object) -> bool:
        """Accepts every value."""
        return True


@strawberry.type
class Item:
    """An object resolved from a Thing."""

    text: str
    maybe: str | None
    number: int
    flag: bool
    time: datetime | None
    position: Position | None
    json: JSON | None
    colour: Colour
    texts: list[str]
    child: "Item | None"
    children: list["Item"]
    some: list["Item | None"] | None
    missing: str | None

    @strawberry.field
    @staticmethod
    def shout(root: strawberry.Parent[Thing]) -> str:
        return cast(Any, root.text).upper()

    @strawberry.field(graphql_type="Item | None")
    @staticmethod
    def again(root: strawberry.Parent[Thing]) -> object:
        return root

    @strawberry.field
    @staticmethod
    def repeated(root: strawberry.Parent[Thing], info: strawberry.Info[Any, None], times: int = 2) -> str:
        return info.context["word"] * times

    @strawberry.field
    @staticmethod
    async def later(root: strawberry.Parent[Thing]) -> str | None:
        await asyncio.sleep(0)
        return cast(str, root.maybe)

    @strawberry.field(graphql_type=Node | None)
    @staticmethod
    def node(root: strawberry.Parent[Thing]) -> object:
        return root


@strawberry.type
class Query:
    """The root fields."""

    @strawberry.field(graphql_type=Item | None)
    @staticmethod
    def item(info: strawberry.Info[Any, None]) -> object:
        return info.context["item"]

    @strawberry.field(graphql_type=list[Item | None])
    @staticmethod
    async def items(info: strawberry.Info[Any, None], first: int = 2) -> object:
        return [info.context["item"]] * first


def _new_toy() -> strawberry.Schema:
    return strawberry.Schema(query=Query, types=[Leaf], config=StrawberryConfig(scalar_map=SCALARS))


TOY = _new_toy()
FAST_TOY = _new_toy()
install(core_schema(FAST_TOY))

PLAIN = ["text", "maybe", "number", "flag", "time", "position", "json", "colour", "texts", "shout", "missing"]
OTHER = ["__typename", "later", "repeated", "repeated(times: 3)"]
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
OBJECTS = ["child", "children", "some", "again", "node"]
INVALID: Values = st.sampled_from(
    [None, 1, 2**40, 1.5, True, "x", b"{}", [], ["a", None], (), {}, Colour.RED, ValueError("no"), object()]
)


def things(depth: int = 2) -> Values:
    """Draws things whose values are mostly valid."""

    def mostly(*valid: object) -> Values:
        return mostly_valid(INVALID | st.builds(Awaited, INVALID), st.sampled_from(valid))

    nested = st.none() if depth == 0 else things(depth - 1)
    some = mostly_valid(INVALID, st.lists(nested, max_size=3))
    many = (
        some
        if depth == 0
        else mostly_valid(INVALID, st.lists(mostly_valid(INVALID, things(depth - 1)), max_size=2).map(tuple))
    )
    return st.builds(
        Thing, mostly("t"), mostly("m", None), mostly(1), mostly(True, False), mostly(NOON, None),
        mostly(5, None), mostly(b'{"a":1}', None), mostly(Colour.RED, Colour.BLUE), mostly(["a"], []),
        mostly_valid(INVALID, nested), many, some,
    )  # fmt: skip


@st.composite
def selections(draw: st.DrawFn, depth: int = 3) -> str:
    """Draws the fields of a selection set on Item."""
    parts: list[str] = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["plain", "plain", "plain", "other", "object", "fragment"]))
        condition = draw(st.sampled_from([""] * 6 + ["@skip(if: $yes)", "@include(if: $yes)", "@include(if: $no)"]))
        if kind == "plain":
            parts.append(f"{draw(st.sampled_from(PLAIN))} {condition}")
        elif kind == "other":
            name = draw(st.sampled_from(OTHER))
            parts.append(f"r{len(name)}: {name} {condition}")
        elif depth == 0:
            parts.append("text")
        elif kind == "object":
            name = draw(st.sampled_from(OBJECTS))
            inner = "text __typename ...on Leaf{maybe}" if name == "node" else draw(selections(depth - 1))
            alias = "" if name == "node" else draw(st.sampled_from(["", "", "other: "]))
            parts.append(f"{alias.replace('other', 'other_' + name)}{name} {condition} {{{inner}}}")
        else:
            parts.append(
                f"... {draw(st.sampled_from(['', 'on Item', '']))} {condition} {{{draw(selections(depth - 1))}}}"
            )
    return " ".join(parts)


HEADS = ["item", "items", "items(first: 3)", "a: item"]


async def _execute_slow(text: str, context: object) -> ExecutionResult:
    used = {name: name == "yes" for name in ("yes", "no") if f"${name}" in text}
    return cast(Any, await TOY.execute(text, used, cast(Any, context)))


async def _execute_fast(plan: Plan, context: object) -> ExecutionResult:
    execution = prepare(plan, context, {"yes": True, "no": False})
    assert not isinstance(execution, list)
    return await execution.run()


@settings(max_examples=80, deadline=None)
@given(head=st.sampled_from(HEADS), inner=selections(), item=things(), second=things())
def test_execution_matches_strawberry(head: str, inner: str, item: Thing, second: Thing) -> None:
    names = [f"${name}: Boolean!" for name in ("yes", "no") if f"${name}" in inner]
    text = f"query {'(' + ', '.join(names) + ')' if names else ''} {{ {head} {{ {inner} ...F }} __typename }} "
    text += "fragment F on Item { text child { number } again { colour } }"

    async def compare() -> None:
        plan = plan_of(core_schema(FAST_TOY), text)
        for thing in (item, second, item):
            context = {"item": thing, "word": "ho"}
            slow, fast = await _execute_slow(text, context), await _execute_fast(plan, context)
            assert _described(fast.errors) == _described(slow.errors)
            assert _comparable(fast.data) == _comparable(slow.data)

    asyncio.run(compare())


def _comparable(value: Any) -> object:
    """Returns the value with the order of its keys, and with fragments of JSON as bytes."""
    if isinstance(value, dict):
        return [(name, _comparable(inner)) for name, inner in cast(dict[str, Any], value).items()]
    if isinstance(value, list):
        return [_comparable(inner) for inner in cast(list[Any], value)]
    return orjson.dumps(value) if isinstance(value, orjson.Fragment) else (repr(value), value)
