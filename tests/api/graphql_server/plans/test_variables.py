"""Variables and arguments are coerced like Strawberry and graphql-core do, and no two calls share them."""

from copy import deepcopy
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, NewType, cast

import pytest
import strawberry
from graphql import (
    FieldNode,
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    ListValueNode,
    OperationDefinitionNode,
    ValueNode,
    VariableNode,
    parse,
)
from graphql.execution.values import get_argument_values, get_variable_values
from hypothesis import given, settings
from hypothesis import strategies as st
from strawberry.types.arguments import convert_argument

from tests.api.graphql_server.plans.results import described
from tests.api.graphql_server.plans.schema_pair import Data, Info, Parent, SchemaPair
from xzepr.api.graphql import schema as public_schema
from xzepr.api.graphql_server.errors import MAX_ERRORS
from xzepr.api.graphql_server.plans.execution import core_schema
from xzepr.api.graphql_server.plans.variables import Variables

Values = st.SearchStrategy[Any]


# Every input type of the hub's schema, as a variable and within a literal.

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
    slow = get_variable_values(
        core_schema(SLOW), operation.variable_definitions or (), variables, max_errors=MAX_ERRORS
    )
    fast = Variables(FAST, operation).of(variables)
    if isinstance(slow, list) or isinstance(fast, list):
        assert isinstance(slow, list)
        assert isinstance(fast, list)
        assert described(fast) == described(slow)
        return
    assert {n: s.value for n, s in fast.for_core().sources.items()} == {n: s.value for n, s in slow.sources.items()}
    converter = SLOW.schema_converter
    kind = type_.extensions["strawberry-definition"].origin
    for name, coerced in slow.coerced.items():
        converted = convert_argument(coerced, kind, converter.scalar_registry, converter.config)
        assert fast[name] == converted
        assert type(fast[name]) is type(converted)
    assert fast.keys() == slow.coerced.keys()


def test_input_object_is_built_from_any_notation() -> None:
    create = FAST.mutation_type.fields["createEvents"] if FAST.mutation_type else None
    assert create is not None
    event = (
        '{name: "a", version: "1", release: "r", platformId: "p", package: "k", description: "d", '
        'payload: {a: [1, $n]}, success: true, eventReceiverId: 7, occurredAt: "2026-11-20T21:15:27Z"}'
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
    values = Variables(FAST, operation).of(variables)
    assert not isinstance(values, list)
    node = cast(FieldNode, operation.selection_set.selections[0])
    built: Any = get_argument_values(create, node, values.for_core())["input"]
    assert [event.name for event in built.events] == ["a", "b"]
    assert built.events[0].payload == {"a": [1, 2]}
    assert built.events[0].event_receiver_id == "7"
    assert built.events[0].occurred_at == datetime(2026, 11, 20, 21, 15, 27, tzinfo=UTC)
    assert built.events[1].occurred_at is None
    assert built.events[1].idempotency_key is None


# Calls that change their arguments.


@strawberry.input
class Part:
    """An input within another."""

    words: list[str]


@strawberry.input
class Whole:
    """An input with parts."""

    name: str
    part: Part | None = None
    parts: list[Part] | None = None


def _joined(node: ValueNode, variables: dict[str, object] | None = None) -> str:
    match node:
        case ListValueNode():
            return "/".join(_joined(item, variables) for item in node.values)
        case VariableNode():
            return str((variables or {}).get(node.name.value))
        case _:
            return cast(str, cast(Any, node).value)


Path = NewType("Path", str)
PATH = strawberry.scalar(name="Path", serialize=str, parse_value=str, parse_literal=_joined)


@strawberry.type
class Row:
    """Resolved from any object."""

    odd: int | None

    @strawberry.field
    @staticmethod
    def said(root: Parent, words: list[str], part: Part | None = None) -> str:
        return _changed(words, part)


@strawberry.type
class Query:
    """Fields that change their arguments."""

    @strawberry.field
    @staticmethod
    def said(words: list[str], whole: Whole | None = None) -> str:
        return _changed(words, whole)

    @strawberry.field(graphql_type=list[Row])
    @staticmethod
    def rows(info: Info) -> object:
        return [SimpleNamespace(odd=info.context.value) for _ in range(3)]

    @strawberry.field
    @staticmethod
    def at(path: Path) -> str:
        return path


def _changed(words: list[str], value: Whole | Part | None) -> str:
    """Returns the arguments as text, then changes them."""
    text = repr((words, value))
    words.append("changed")
    if isinstance(value, Whole):
        value.name = "changed"
        if value.part:
            _changed(value.part.words, None)
        for part in value.parts or ():
            _changed(part.words, None)
    elif value:
        value.words.append("changed")
    return text


PAIR = SchemaPair(Query, scalars={Path: PATH})
PART = {"words": ["a"]}
WHOLE = {"name": "n", "part": PART, "parts": [PART, PART]}


@pytest.mark.parametrize("odd", [None, "text"])
@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("query ($w: [String!]!) { said(words: $w) other: said(words: $w) rows { odd } }", {"w": ["a"]}),
        ("query ($w: [String!]!) { said(words: $w) other: said(words: $w) rows { odd } }", {"w": "single"}),
        ("query ($w: [String!]!, $p: Part) { rows { odd said(words: $w, part: $p) } }", {"w": ["a"], "p": PART}),
        ("query ($p: Part) { rows { odd said(words: [], part: $p) } }", {"p": PART}),
        (
            "query ($w: Whole) { said(words: [], whole: $w) other: said(words: [], whole: $w) rows { odd } }",
            {"w": WHOLE},
        ),
        (
            'query ($p: Part) { said(words: ["a"], whole: {name: "n", part: $p, parts: [$p, $p]}) '
            'other: said(words: ["a"], whole: {name: "n", part: $p}) rows { odd } }',
            {"p": PART},
        ),
        ('{ said(words: ["a"], whole: {name: "n", part: {words: "b"}}) rows { odd said(words: ["a"]) } }', {}),
    ],
)
async def test_calls_share_no_argument_that_one_changes(text: str, variables: dict[str, Any], odd: str | None) -> None:
    for _ in range(2):
        await PAIR.compare(text.replace("$p: Part)", "$p: Part!)"), lambda: Data(odd), deepcopy(variables))


async def test_literal_with_a_variable_is_read_for_each_call() -> None:
    text = "query ($name: Path!) { at(path: $name) }"
    assert (await PAIR.compare(text, variables={"name": "a"})).data == {"at": "a"}
    text = 'query ($name: String!) { at(path: ["a", $name]) }'
    for name in ("b", "c"):
        assert (await PAIR.compare(text, variables={"name": name})).data == {"at": f"a/{name}"}
    assert (await PAIR.compare('{ at(path: ["a", "b"]) }')).data == {"at": "a/b"}


def test_default_that_calls_would_share_is_refused() -> None:
    def listed(words: list[str] = ["a"]) -> str:  # noqa: B006 that is what the test is about
        return repr(words)

    @strawberry.type
    class Listed:
        said: str = strawberry.field(resolver=listed)

    with pytest.raises(TypeError, match="words cannot have a list"):
        SchemaPair(Listed)
