"""The root fields of the toy schema, and the schema itself in its two forms."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import strawberry
from graphql import GraphQLSchema
from strawberry.schema.config import StrawberryConfig

from tests.api.graphql_server.plans.schema_pair import resolved_by
from tests.api.graphql_server.plans.toy_schema import Alpha, Beta, Colour, Either, Fixed, Info, Item, Node, Part
from tests.api.graphql_server.plans.toy_values import Awaited, Immutable, Thing, ToyTypes, World, key
from xzepr.api.graphql.scalars import JSON, SCALARS
from xzepr.api.graphql_server.plans.execution import core_schema
from xzepr.api.graphql_server.plans.resolvers import RESOLVE_ITEM, install
from xzepr.core.errors import NotFound


def _result(info: Info, name: str) -> object:
    """Returns the result of a root field, which comes from the world: a value, an awaitable or an error."""
    context, world = info.context, info.context.world
    part = key(context.total, name)
    context.calls.append(name)
    value = world.value(world.types.root_type(name), part)
    how = world.byte(part, "how") % 16
    if how > 12 and world.is_odd(key(part, "fails")):
        if how > 14:
            raise NotFound("thing", name)
        return world.coroutine(RuntimeError(name))
    if how > 9:
        return world.coroutine(value)
    return Awaited(world, value) if how > 7 else value


def _root(name: str, graphql_type: Any) -> Any:
    def resolve(info: Info) -> object:
        return _result(info, name)

    return resolved_by(resolve, graphql_type)


def _waiting_root(name: str, graphql_type: Any) -> Any:
    async def resolve(info: Info) -> object:
        info.context.world.waits += 1
        return _result(info, name)

    return resolved_by(resolve, graphql_type)


@strawberry.input
class Inner:
    """An input within another."""

    id: strawberry.ID
    words: list[str | None] | None = None
    ratio: float = 1.5


@strawberry.input
class Input:
    """An input with fields of every kind."""

    name: str
    count: int | None
    tags: list[int] | None = None
    inner: Inner | None = None
    inners: list[Inner] | None = None
    colour: Colour = Colour.RED
    json: JSON | None = strawberry.UNSET
    flag: bool = True
    when: datetime | None = strawberry.UNSET


@strawberry.input
class Tree:
    """A recursive input."""

    value: int
    children: list["Tree"] | None = None


def echo(
    info: Info,
    input: Input | None = strawberry.UNSET,
    numbers: list[int] | None = strawberry.UNSET,
    tree: Tree | None = None,
    word: str | None = "w",
    must: int = 7,
    colour: Colour | None = strawberry.UNSET,
    source: str | None = strawberry.UNSET,
    call: list[list[str] | None] | None = strawberry.UNSET,
    raw_info: JSON | None = strawberry.UNSET,
) -> str:
    """Returns its arguments as text, then changes those that can be changed."""
    text = repr((input, numbers, tree, word, must, colour, source, call, raw_info))
    info.context.calls.append(text)
    if numbers:
        numbers.append(99)
    if call and call[0]:
        call[0].append("mutated")
    if input:
        input.name = "mutated"
        if input.tags:
            input.tags.append(99)
        if input.inner:
            input.inner.ratio = 99
    return text


@strawberry.type
class Query:
    """Queries of the toy schema."""

    item: Item | None = _root("item", Item | None)
    sure: Item = _root("sure", Item)
    items: list[Item] = _waiting_root("items", list[Item])
    some: list[Item | None] | None = _root("some", list[Item | None] | None)
    node: Node | None = _root("node", Node | None)
    nodes: list[Node] | None = _root("nodes", list[Node] | None)
    either: Either | None = _root("either", Either | None)
    fixed: Fixed | None = _waiting_root("fixed", Fixed | None)
    fixeds: list[Fixed] = _root("fixeds", list[Fixed])
    number: int = _root("number", int)
    maybe: str | None = _waiting_root("maybe", str | None)
    grid: list[list[int | None]] | None = _root("grid", list[list[int | None]] | None)
    echo: str | None = strawberry.field(resolver=echo)


def bump(info: Info, by: int = 1) -> int:
    """Changes the total, on which later fields depend."""
    info.context.calls.append(f"bump {by}")
    info.context.total += by
    return info.context.total


async def _change(info: Info, input: Input) -> object:
    info.context.world.waits += 1
    info.context.calls.append(repr(input))
    info.context.total += 1
    input.name = "mutated"
    return _result(info, "change")


@strawberry.type
class Mutation:
    """Mutations of the toy schema."""

    bump: int = strawberry.field(resolver=bump)
    change: Item | None = resolved_by(_change, Item | None)
    changed: Item | None = _waiting_root("changed", Item | None)
    certain: Item = _root("certain", Item)
    amount: int = _root("amount", int)
    label: str | None = _waiting_root("label", str | None)
    all: list[Item] | None = _root("all", list[Item] | None)


@dataclass(frozen=True)
class Tick:
    """A source event."""

    world: World
    number: int


def item_of(tick: Tick) -> object:
    """Returns the item of a source event. Raises NotFound for some."""
    part = key(tick.number, "tick")
    if tick.world.is_odd(key(part, "fails")):
        raise NotFound("tick", str(tick.number))
    return tick.world.value(tick.world.types.root_type("ticks"), part)


async def _ticks(info: Info, count: int = 2, words: list[str] | None = None) -> AsyncGenerator[object]:
    info.context.calls.append(repr((count, words)))
    for number in range(count):
        yield Tick(info.context.world, number)


async def _numbers(info: Info) -> AsyncGenerator[int]:
    yield cast(int, info.context.world.value(info.context.world.types.root_type("number"), 1))


@strawberry.type
class Subscription:
    """Subscriptions of the toy schema."""

    ticks: Any = strawberry.subscription(resolver=_ticks, graphql_type=Item | None, metadata={RESOLVE_ITEM: item_of})
    numbers: Any = strawberry.subscription(resolver=_numbers, graphql_type=int)


def _resolve_tick(tick: Tick, _info: object, **_arguments: object) -> object:
    return item_of(tick)


def toy_schema(*, installed: bool) -> GraphQLSchema:
    """Returns the schema: prepared for plans, or as Strawberry builds it."""
    schema = core_schema(
        strawberry.Schema(
            Query, Mutation, Subscription, types=[Alpha, Beta], config=StrawberryConfig(scalar_map=SCALARS)
        )
    )
    if installed:
        install(schema)
    else:
        cast(Any, schema.subscription_type).fields["ticks"].resolve = _resolve_tick
    return schema


PLAIN = toy_schema(installed=False)
FAST = toy_schema(installed=True)
TYPES = ToyTypes(
    FAST,
    {
        "Item": [Thing],
        "Fixed": [Immutable],
        "Alpha": [Alpha],
        "Beta": [Beta],
        "Part": [Part],
        "Node": [Alpha, Beta],
        "Either": [Alpha, Part],
    },
)
