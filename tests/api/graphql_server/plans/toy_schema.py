"""A schema in which every value, resolver and edge can fail; the differential tests execute documents on it.

Its resolvers work in both forms: as ordinary resolvers of graphql-core, which are called for each object, and as those
of a plan, where a batch edge gets all objects of a level.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Annotated, Any

import strawberry
from graphql.pyutils import inspect

from tests.api.graphql_server.plans.schema_pair import resolved_by
from tests.api.graphql_server.plans.toy_values import Immutable, Lazy, World, key_of, world_of
from xzepr.api.graphql.scalars import JSON, Position
from xzepr.api.graphql_server.plans.batches import Batches
from xzepr.api.graphql_server.plans.resolvers import BATCH


@strawberry.enum
class Colour(Enum):
    """An enum with two members."""

    RED = "red"
    BLUE = "blue"


@dataclass
class Context:
    """The context of one execution."""

    world: World
    is_plan: bool
    """Whether batch edges get the objects of a level."""
    batches: Batches = field(default_factory=Batches)
    calls: list[str] = field(default_factory=lambda: list[str]())
    """The calls of root fields, with their arguments."""
    word: str = "ho"
    total: int = 0
    """A number that mutations change."""

    def values(self, name: str, roots: Any, *arguments: object) -> object:
        """Returns the value of an edge for one object, or a value or exception for each object of a batch."""
        if not self.is_plan:
            self._fail(name)
            if self.world.byte(0, f"{name} is short") == 255:
                raise RuntimeError("a batch must return a value for each object")
            return self.value(name, roots, *arguments)
        self.world.waits += 1  # graphql-core waits for batches, also for those of resolvers that do not wait
        self._fail(name)
        values = [self._outcome(name, root, *arguments) for root in roots]
        return values[:-1] if self.world.byte(0, f"{name} is short") == 255 else values

    def value(self, name: str, root: object, *arguments: object) -> object:
        """Returns the value of an edge. Raises AttributeError for an object that has no such edge."""
        world = root.edges if isinstance(root, Immutable) else world_of(root)
        part = key_of(root, (name, *arguments))
        if name == "owner" and isinstance(root, Immutable) and not world.is_odd(part):
            return world.types.owner(Alpha, world.byte(part, "owner") % 4, world.version)
        return world.value(world.types.field_type(root, name), part)

    def _outcome(self, name: str, root: object, *arguments: object) -> object:
        try:
            return self.value(name, root, *arguments)
        except AttributeError as error:
            return error

    def _fail(self, name: str) -> None:
        if self.world.byte(0, f"{name} fails") == 255:
            raise RuntimeError(f"the batch of {name} failed")


Info = strawberry.Info[Context, None]
Parent = strawberry.Parent[Any]


def _edge(name: str, *arguments: object) -> Callable[..., Any]:
    """Returns the resolver of a batch edge that waits."""

    async def resolve(roots: Parent, info: Info) -> object:
        if not info.context.is_plan:
            info.context.world.waits += 1
        await asyncio.sleep(0)
        return info.context.values(name, roots, *arguments)

    return resolve


def _ready_edge(name: str) -> Callable[..., Any]:
    """Returns the resolver of a batch edge that does not wait."""

    def resolve(roots: Parent, info: Info) -> object:
        return info.context.values(name, roots) if info.context.is_plan else value(roots, info)

    async def value(root: object, info: Info) -> object:
        info.context.world.waits += 1
        return info.context.values(name, root)

    return resolve


async def _page(roots: Parent, info: Info, first: int = 2, after: str | None = None) -> object:
    if not info.context.is_plan:
        info.context.world.waits += 1
    await asyncio.sleep(0)
    return info.context.values("page", roots, first, after)


def _batch(graphql_type: Any, resolver: Callable[..., Any]) -> Any:
    return resolved_by(resolver, graphql_type, metadata=BATCH)


def _shout(root: Parent) -> str:
    return root.text.upper()


def _itself(root: Parent) -> object:
    return root


def _repeated(root: Parent, info: Info, times: int = 2, colour: Colour = Colour.RED) -> str:
    return f"{info.context.word}{root.text * times}{colour.name}"


def _said(root: Parent, source: str | None = strawberry.UNSET, words: list[str] | None = strawberry.UNSET) -> str:
    text = inspect([root.text, source, words])
    if words:
        words.append("mutated")
    return text


def _tags(root: Parent, info: Info, count: int = 1) -> object:
    return info.context.value("tags", root, count)


def _mark(root: Parent, info: Info, of: int = 0) -> object:
    return info.context.value("mark", root, of)


async def _later(root: Parent, info: Info) -> object:
    info.context.world.waits += 1
    await asyncio.sleep(0)
    return info.context.value("later", root)


_MODULE = "tests.api.graphql_server.plans.toy_schema"
AnyItem = Annotated["Item", strawberry.lazy(_MODULE)]
AnyNode = Annotated["Node", strawberry.lazy(_MODULE)]


@strawberry.interface
class Node:
    """An object with a text."""

    text: str
    maybe: int | None
    colour: Colour | None
    parts: list["Part"]
    next: "Node | None"
    peer: "Node | None" = _batch(AnyNode | None, _edge("peer"))
    item: "Item | None" = _batch(AnyItem | None, _edge("item"))


@strawberry.type
class Alpha(Lazy, Node):
    """A node."""

    number: int
    peer: "Node | None" = _batch(AnyNode | None, _edge("peer"))


@strawberry.type
class Beta(Lazy, Node):
    """A node that has another resolver for a field."""

    flag: bool
    peer: "Node | None" = _batch(AnyNode | None, _edge("peer", "of a Beta"))
    chief: "Alpha" = _batch(Alpha, _edge("chief"))


@strawberry.type
class Part(Lazy):
    """An object without resolvers."""

    name: str
    size: float | None
    inner: "Part | None"


Either = Annotated[Alpha | Part, strawberry.union("Either")]


@strawberry.type
class Fixed:
    """An object that never changes, apart from its edges. Resolved from Immutable."""

    id: strawberry.ID
    text: str
    number: int | None
    colour: Colour
    json: JSON | None
    part: Part | None
    owner: Alpha | None = _batch(Alpha | None, _edge("owner"))
    keeper: Part = _batch(Part, _ready_edge("keeper"))
    tags: list[str] = resolved_by(_tags, list[str])
    mark: JSON | None = resolved_by(_mark, JSON | None)
    item: "Item | None" = _batch(AnyItem | None, _edge("item"))


@strawberry.type
class Item:
    """An object with fields of every type. Resolved from Thing."""

    id: strawberry.ID
    text: str
    maybe: str | None
    number: int
    count: int | None
    ratio: float
    flag: bool
    perhaps: bool | None
    time: datetime | None
    position: Position | None
    json: JSON | None
    colour: Colour
    tint: Colour | None
    texts: list[str]
    words: list[str | None] | None
    grid: list[list[int]]
    holes: list[list[int | None] | None] | None
    colours: list[Colour]
    missing: str | None
    explosive: str | None
    child: "Item | None"
    sure: "Item"
    children: list["Item"]
    some: list["Item | None"] | None
    rows: list[list["Item | None"] | None]
    node: Node | None
    nodes: list[Node]
    either: Either | None
    fixed: Fixed | None
    fixeds: list[Fixed]
    part: Part
    shout: str = strawberry.field(resolver=_shout)
    again: "Item" = resolved_by(_itself, AnyItem)
    repeated: str = strawberry.field(resolver=_repeated)
    said: str | None = resolved_by(_said, str | None)
    later: str | None = resolved_by(_later, str | None)
    friend: "Item | None" = _batch(AnyItem | None, _edge("friend"))
    owner: "Item" = _batch(AnyItem, _edge("owner"))
    page: list["Item"] = _batch(list[AnyItem], _page)
    pals: list["Item | None"] | None = _batch(list[AnyItem | None] | None, _ready_edge("pals"))
    score: int = _batch(int, _ready_edge("score"))
