"""Values for the toy schema: most of them are valid, and the others are wrong in every way that a resolver can be."""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, cast
from zlib import crc32

from graphql import (
    GraphQLEnumType,
    GraphQLError,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    Undefined,
    get_named_type,
    is_abstract_type,
    is_leaf_type,
)

from xzepr.core.errors import NotFound

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
NAIVE = datetime(2026, 11, 20, 12)  # noqa: DTZ001 resolvers may return times without a zone


class Shade(Enum):
    """An enum that is not in the schema."""

    RED = "red"


class Text(str):
    """A subclass of str."""

    __slots__ = ()


class Number(int):
    """A subclass of int."""


class Stranger:
    """An object without any field, which String accepts as text."""

    def __repr__(self) -> str:
        return "a stranger"


class Awaited:
    """An awaitable that is not a coroutine and can be awaited once."""

    def __init__(self, world: "World", value: object) -> None:
        self._world = world
        self._value = value
        self._used = False

    def __repr__(self) -> str:
        return "an awaitable"

    def __await__(self) -> Any:
        """Returns the value, or raises it if it is an exception."""
        assert not self._used, "awaited twice"
        self._used = True
        self._world.waits += 1
        yield from asyncio.sleep(0).__await__()
        if isinstance(self._value, Exception):
            raise self._value
        return self._value


class Lazy:
    """An object whose attributes get their values when they are first read, and keep them."""

    def __str__(self) -> str:
        return f"a {type(self).__name__}"

    def __getattr__(self, name: str) -> object:
        """Returns a value that depends on the object and on the name of the attribute only."""
        if name.startswith("_"):
            raise AttributeError(name)
        value = world_of(self).attribute(self, name)
        vars(self)[name] = value
        return value


class Thing(Lazy):
    """The source of an Item."""


class Immutable(Lazy):
    """The source of a Fixed."""

    id: str
    edges: "World"
    """The data of the execution, which the edges come from."""


def source(kind: Any, world: "World", key: int) -> Any:
    """Returns an object of a class that has lazy attributes."""
    lazy: Any = object.__new__(kind)
    lazy.__dict__.update(_world=world, _key=key)
    return lazy


def world_of(lazy: object) -> "World":
    """Returns the world of an object. Raises AttributeError for other objects."""
    return cast(Any, lazy)._world


def key_of(lazy: object, name: object) -> int:
    """Returns the key of a part of an object. Raises AttributeError for other objects."""
    return key(cast(Any, lazy)._key, name)


def key(parent: int, name: object) -> int:
    """Returns the key of a part of something. Equal parts of equal things have equal keys."""
    return crc32(repr(name).encode(), parent)


LEAVES: dict[str, Sequence[object]] = {
    "String": ["t", "", "é", "text"],
    "ID": ["i1", "i2"],
    "Int": [1, 0, -5, 2**31 - 1],
    "Float": [1.5, 0.0, 3, -2e10],
    "Boolean": [True, False],
    "DateTime": [NOON, NAIVE],
    "Position": [5, 2**40],
    "JSON": [b'{"a":1.10}', {"a": [1, None]}, "text", 1, [], True, 1.0],
}
_ODD: list[Callable[[], object]] = [
    lambda: None, lambda: 1, lambda: 2**40, lambda: 1.5, lambda: float("nan"), lambda: float("inf"), lambda: True,
    lambda: "x", lambda: "7", lambda: b"{}", list, lambda: ["a", None], tuple, dict, lambda: Shade.RED,
    lambda: ValueError("no"), lambda: NotFound("thing", "1"), lambda: GraphQLError("odd"), Stranger, lambda: Undefined,
    lambda: NAIVE, lambda: date(2026, 1, 2), lambda: Decimal("1.0"), lambda: Text("sub"), lambda: Number(3),
    lambda: {"text": "in a dict"}, lambda: 2**70, lambda: "2026-01-01", lambda: (1,),
]  # fmt: skip
_ODD_LISTS: list[Callable[[list[Any]], object]] = [
    iter, tuple, deque, lambda items: dict.fromkeys(map(str, items), 1), lambda items: (item for item in items),
    lambda items: map(_same, items), lambda items: _asynchronously(items), lambda _: "text", lambda _: 5,
]  # fmt: skip


def _same(value: object) -> object:
    return value


async def _asynchronously(items: list[object]) -> AsyncIterator[object]:
    for item in items:
        await asyncio.sleep(0)
        yield item


class World:
    """All data of one execution. A table of bytes decides on each value; zeros stand for the simplest valid ones."""

    def __init__(self, types: "ToyTypes", table: bytes, odd_values_of_256: int | None = None) -> None:
        """With `odd_values_of_256`, no value can be used only once. Otherwise the table decides how many are odd."""
        self.types = types
        self._table = table
        self._reusable = odd_values_of_256 is not None
        self._odd_values = (0, 0, 8, 24)[table[0] % 4] if odd_values_of_256 is None else odd_values_of_256
        self.version = table[1] % 2
        self.waits = 0
        """How many values were awaited."""
        self.coroutines: list[Coroutine[Any, Any, object]] = []

    def byte(self, key: int, question: str = "") -> int:
        """Returns the answer to a question about the part with that key: 0 to 255."""
        return self._table[crc32(question.encode(), key) % len(self._table)]

    def is_odd(self, key: int) -> bool:
        """Returns whether a part is wrong. Never if the table is all zeros."""
        return 0 < self.byte(key, "odd") <= self._odd_values

    def attribute(self, lazy: object, name: str) -> object:
        """Returns the value of an attribute. Raises AttributeError or ValueError for those that cannot be read."""
        if name == "missing":
            raise AttributeError(name)
        if name == "explosive" and self.is_odd(key_of(lazy, "raises")):
            raise ValueError("this property raises")
        return self.value(self.types.field_type(lazy, name), key_of(lazy, name))

    def value(self, type_: Any, key_: int) -> object:
        """Returns a value for a field of a type, mostly a valid one."""
        if not self.is_odd(key_):
            return self.valid(type_, key_)
        if self._reusable:
            return _ODD[self.byte(key_, "which") % len(_ODD)]()
        return self._odd(type_, key_)

    def _odd(self, type_: Any, key_: int) -> object:
        which = self.byte(key_, "which")
        if str(type_).strip("!").endswith("]") and which % 2:
            items = cast(list[Any], self.valid(_non_null(type_), key_))
            return _ODD_LISTS[which // 2 % len(_ODD_LISTS)](items)
        if which % 8 == 6 and not is_leaf_type(get_named_type(type_)):
            return self.types.new_object(self, ("Alpha", "Beta", "Part")[which // 8 % 3], key_)
        if which % 8 == 2:
            return Awaited(self, self.value(type_, key(key_, "awaited")))
        if which % 8 == 4:
            return self.coroutine(self.value(type_, key(key_, "coroutine")))
        return _ODD[which // 8 % len(_ODD)]()

    def coroutine(self, value: object) -> object:
        """Returns a coroutine that returns a value, or raises it if it is an exception."""

        async def wait() -> object:
            return await Awaited(self, value)

        self.coroutines.append(coroutine := wait())
        return coroutine

    def valid(self, type_: Any, key_: int) -> object:
        """Returns a value of a type, whose parts may be wrong."""
        if not isinstance(type_, GraphQLNonNull):
            return None if self.byte(key_, "null") % 5 == 4 else self.valid(GraphQLNonNull(type_), key_)
        type_ = cast(Any, type_).of_type
        if isinstance(type_, GraphQLList):
            items = [self.value(cast(Any, type_).of_type, key(key_, i)) for i in range(self.byte(key_, "size") % 4)]
            return tuple(items) if self.byte(key_, "tuple") % 3 == 2 else items
        choice = self.byte(key_, "choice")
        if isinstance(type_, GraphQLEnumType):
            return list(cast(type[Enum], cast(Any, type_).wrapped_cls))[choice % len(type_.values)]
        if isinstance(type_, GraphQLObjectType) or is_abstract_type(type_):
            return self.types.new_object(self, type_.name, key_)
        return LEAVES[type_.name][choice % len(LEAVES[type_.name])]

    def close(self) -> None:
        """Closes the coroutines that the execution did not reach."""
        for coroutine in self.coroutines:
            coroutine.close()


def _non_null(type_: Any) -> Any:
    return cast(Any, type_ if isinstance(type_, GraphQLNonNull) else GraphQLNonNull(type_))


class ToyTypes:
    """The types of a schema, and the Python classes of their objects."""

    def __init__(self, schema: GraphQLSchema, classes: dict[str, Sequence[type]]) -> None:
        """`classes` are those of the objects of each type, by its name."""
        self._classes = classes
        names = {kinds[0]: name for name, kinds in classes.items() if len(kinds) == 1}
        self._types: dict[tuple[type, str], Any] = {
            (kind, _python_name(field, graphql_name)): field.type
            for kind, type_name in names.items()
            for graphql_name, field in cast(Any, schema.type_map[type_name]).fields.items()
        }
        self._roots = {name: field.type for root in _root_types(schema) for name, field in root.fields.items()}
        self._immutable = World(self, random.Random(7).randbytes(256), odd_values_of_256=16)
        self._owners: dict[tuple[int, int], object] = {}

    def field_type(self, lazy: object, name: str) -> Any:
        """Returns the type of a field by its Python name. Raises AttributeError for an unknown one."""
        if (type_ := self._types.get((type(lazy), name))) is None:
            raise AttributeError(name)
        return type_

    def root_type(self, name: str) -> Any:
        """Returns the type of a root field. Queries and mutations have no field in common."""
        return self._roots[name]

    def new_object(self, world: World, type_name: str, key_: int) -> object:
        """Returns an object of a type, an interface or a union."""
        kinds = self._classes[type_name]
        kind = kinds[world.byte(key_, "class") % len(kinds)]
        if kind is not Immutable:
            return source(kind, world, key_)
        # Objects of this type with the same id are equal, also in other worlds. Only their edges differ.
        number = world.byte(key_, "id") % 8
        immutable: Any = source(Immutable, self._immutable, key(0, number))
        immutable.__dict__.update(id=f"f{number}", edges=world)
        return immutable

    def owner(self, kind: Any, number: int, version: int) -> Any:
        """Returns an object that stays identical until its version changes."""
        if (owner := self._owners.get((number, version))) is None:
            owner = self._owners[number, version] = source(kind, self._immutable, key(number, version))
        return owner


def _root_types(schema: GraphQLSchema) -> list[GraphQLObjectType]:
    return [root for root in (schema.query_type, schema.mutation_type, schema.subscription_type) if root is not None]


def _python_name(field: Any, graphql_name: str) -> str:
    definition = field.extensions.get("strawberry-definition")
    return graphql_name if definition is None else definition.python_name
