"""Completes the values of a selection breadth-first: one level of objects at a time.

Each class completes all values that one field of a document has in a response, given as a list. A batch edge is called
once for all objects of its level, so its statement runs once. There is no coroutine, task or future for an object.
Any Exception means that graphql-core must execute the operation: it reports the error, or coerces the value.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Protocol, TypeVar, cast

import strawberry

from xzepr.api.graphql_server.plans.arguments import Arguments
from xzepr.api.graphql_server.plans.batches import values_for
from xzepr.api.graphql_server.plans.conversions import Convert, NotPlain
from xzepr.api.graphql_server.plans.rendered import Rendered
from xzepr.api.graphql_server.plans.resolvers import Call, ReadField
from xzepr.api.graphql_server.plans.row_code import Assemble, ConvertRows, Leaf
from xzepr.api.graphql_server.plans.variables import RequestVariables

T = TypeVar("T")
_Info: type[Any] = strawberry.Info  # unparametrized: a subscript for each call takes 3 µs


class Run:
    """One execution of a plan: the context and the variables that its calls use."""

    __slots__ = ("context", "variables")

    def __init__(self, context: object, variables: RequestVariables) -> None:
        self.context = context
        self.variables = variables

    @property
    def info(self) -> object:
        """The `info` of resolvers, which may use only its context.

        It is made for each call: if it were kept, both would be garbage that only a collection finds.
        """
        return _Info(_raw_info=self, _field=None)


class Level(Protocol):
    """The values that one field has in a response."""

    @property
    def waits(self) -> bool:
        """Whether it has a batch edge."""
        ...

    async def complete(self, values: list[Any], run: Run) -> list[object]:
        """Returns the response value for each value, in order.

        Raises any Exception if a value is not plain. None is plain for a Nullable level only.
        """
        ...


@dataclass(frozen=True, slots=True)
class Plain:
    """Values that need no call: each is converted by itself."""

    convert: Convert
    leaf: Leaf | None = None
    rows: ConvertRows | None = None
    """Converts a list of objects that are not null; faster than calling `convert` for each."""

    @property
    def waits(self) -> bool:
        """False: plain values have no edges."""
        return False

    async def complete(self, values: list[Any], run: Run) -> list[object]:
        """Returns the response value for each value."""
        return self.completed(values)

    def completed(self, values: list[Any]) -> list[object]:
        """Returns the response value for each value, at once."""
        if self.rows is not None:
            return self.rows(values)
        convert = self.convert
        return [convert(value) for value in values]


@dataclass(frozen=True, slots=True)
class Nullable:
    """Values of which any can be null."""

    inner: Level

    @property
    def waits(self) -> bool:
        """Whether the values have a batch edge."""
        return self.inner.waits

    async def complete(self, values: list[Any], run: Run) -> list[object]:
        """Returns the response value for each value; None for None."""
        present = [value for value in values if value is not None]
        if not present:
            return [None] * len(values)
        completed = await self.inner.complete(present, run)
        if len(present) == len(values):
            return completed
        rest = iter(completed)
        return [None if value is None else next(rest) for value in values]


@dataclass(frozen=True, slots=True)
class ListOf:
    """Lists or tuples, whose items form the next level."""

    item: Level

    @property
    def waits(self) -> bool:
        """Whether the items have a batch edge."""
        return self.item.waits

    async def complete(self, values: list[Any], run: Run) -> list[object]:
        """Returns a list for each value."""
        if any(type(value) is not list and type(value) is not tuple for value in values):
            raise NotPlain
        if not (items := list(chain.from_iterable(values))):
            return [[] for _ in values]  # a batch of no objects would call its resolver for nothing
        items = await self.item.complete(items, run)
        if len(values) == 1:
            return [items]
        rest = iter(items)
        return [list(islice(rest, len(value))) for value in values]


@dataclass(frozen=True, slots=True)
class OneOf:
    """Objects of an interface, completed by the level of their Python class."""

    levels: Mapping[type, Level]

    @property
    def waits(self) -> bool:
        """Whether any class has a batch edge."""
        return any(level.waits for level in self.levels.values())

    async def complete(self, values: list[Any], run: Run) -> list[object]:
        """Returns the response value for each object."""
        by_class: dict[type, list[object]] = {}
        for value in cast(list[object], values):
            by_class.setdefault(type(value), []).append(value)
        parts = [(self.levels[class_], objects) for class_, objects in by_class.items()]
        completed = await _concurrently(parts, lambda part: part[0].complete(part[1], run), self.waits)
        rest = dict(zip(by_class, map(iter, completed), strict=True))
        return [next(rest[type(value)]) for value in values]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One field of the objects of a level: `read` from each object or the result of a `call`; completed by `level`."""

    name: str
    level: Level
    read: ReadField | None = None
    attribute: str | None = None
    """The attribute that `read` returns; None if it is another function."""
    constant: str | None = None
    """The value of `__typename`."""
    call: Call | None = None
    arguments: Arguments | None = None
    waits: bool = False
    """Whether it is a batch edge or leads to one."""
    is_scalar: bool = False
    """Whether the values of a call are scalars, enums, or lists of them."""

    @property
    def is_batch(self) -> bool:
        """Whether it is a batch edge."""
        return self.call is not None and self.call.is_batch

    def values(self, objects: list[Any], run: Run) -> list[object]:
        """Returns the value of each object. Not for a batch edge."""
        if (read := self.read) is not None:
            return [read(each) for each in objects]
        call, arguments = self._called()
        info = run.info
        return [call(each, info, arguments.values(run.variables)) for each in objects]

    async def loaded(self, objects: list[Any], run: Run) -> list[object]:
        """Returns the value of each object. Raises the first exception among the values of a batch edge."""
        if not self.is_batch:
            return self.values(objects, run)
        call, arguments = self._called()
        values = await values_for(objects, call(objects, run.info, arguments.values(run.variables)))
        for value in values:
            if isinstance(value, Exception):
                raise value
        return values

    async def complete(self, objects: list[Any], run: Run) -> list[object]:
        """Returns the response value of each object's field."""
        return await self.level.complete(await self.loaded(objects, run), run)

    def _called(self) -> tuple[Call, Arguments]:
        assert self.call is not None, "a column is read or called"
        assert self.arguments is not None, "a call has arguments, though there may be none"
        return self.call, self.arguments


@dataclass(frozen=True, slots=True)
class Objects:
    """Objects with a field that is not plain, written as dictionaries."""

    columns: Sequence[Column]
    check_type: Callable[[object], None]
    assemble: Assemble

    @property
    def waits(self) -> bool:
        """Whether a field is a batch edge or leads to one."""
        return any(column.waits for column in self.columns)

    async def complete(self, values: list[Any], run: Run) -> list[object]:
        """Returns a dictionary for each object."""
        _check_types(values, self.check_type)
        columns = await _concurrently(
            self.columns, lambda column: column.complete(values, run), _together(self.columns)
        )
        return self.assemble(*columns)


@dataclass(frozen=True, slots=True)
class Immutables:
    """Objects that never change, rendered once for each selection.

    `edges` are the fields that are not plain. A rendered object is used again while its edges have the same values.
    """

    rendered: Rendered
    edges: Sequence[Column]
    check_type: Callable[[object], None]

    @property
    def waits(self) -> bool:
        """Whether an edge is a batch edge."""
        return any(edge.waits for edge in self.edges)

    async def complete(self, values: list[Any], run: Run) -> list[object]:
        """Returns a JSON fragment for each object."""
        _check_types(values, self.check_type)
        columns = await _concurrently(self.edges, lambda edge: edge.loaded(values, run), _together(self.edges))
        return self.rendered.rows(values, list(zip(*columns, strict=True)))


def _together(columns: Sequence[Column]) -> bool:
    """Returns whether more than one column waits."""
    return sum(column.waits for column in columns) > 1


def _check_types(values: list[Any], check: Callable[[object], None]) -> None:
    for value in {type(value): value for value in values}.values():
        check(value)


async def _concurrently(
    parts: Sequence[T], work: Callable[[T], Coroutine[Any, Any, list[object]]], waits: bool
) -> list[list[object]]:
    """Returns the result for each part. If parts wait, they run at the same time, and all of them end if one fails."""
    if not waits or len(parts) == 1:
        return [await work(part) for part in parts]
    results = await asyncio.gather(*map(work, parts), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result if isinstance(result, Exception) else NotPlain
    return cast(list[list[object]], results)
