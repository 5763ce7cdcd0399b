"""Draws valid documents and the values of their variables, directed by a schema."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import orjson
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    is_abstract_type,
    is_leaf_type,
)

T = TypeVar("T")

_MAX_FIELDS = 24
_SELDOM = {"later", "items", "numbers"}  # "later" is a field that plans leave to graphql-core
_LEAF_VALUES: dict[str, list[str]] = {
    "String": ['"s"', '""', '"é"'],
    "ID": ['"i"', "7"],
    "Int": ["1", "0", "3"],
    "Float": ["1.5", "2"],
    "Boolean": ["true", "false"],
    "JSON": ["5", '"text"', "[1, null]"],
    "DateTime": ['"2026-11-20T21:15:27Z"', '"2026-11-20T21:15:27+01:00"'],
}
_WRONG_VALUES: list[object] = [None, 3, 2**40, 1.5, True, "x", [], [None], {}, {"name": "n"}, "2026-11-20", ["a"]]


class Choices:
    """A sequence of choices that bytes determine. Without any left, each choice is the first one."""

    def __init__(self, data: bytes) -> None:
        self._data = iter(data)

    def below(self, limit: int) -> int:
        """Returns a number from 0 to `limit` - 1."""
        return next(self._data, 0) % limit

    def pick(self, items: Sequence[T]) -> T:
        """Returns one of the items."""
        return items[self.below(len(items))]

    def chance(self, percent: int) -> bool:
        """Returns True in about that percentage of cases."""
        return next(self._data, 0) * 100 // 256 >= 100 - percent


@dataclass
class Variable:
    """A variable of a document."""

    type: Any
    declaration: str
    has_default: bool = False


@dataclass
class DrawnDocuments:
    """Writes one document. Names in the response depend on the arguments of a field, so that all selections merge."""

    schema: GraphQLSchema
    choices: Choices
    variables: dict[str, Variable] = field(default_factory=lambda: dict[str, Variable]())
    _fragments: dict[str, tuple[str, str]] = field(default_factory=lambda: dict[str, tuple[str, str]]())
    _names: dict[tuple[str, str], int] = field(default_factory=lambda: dict[tuple[str, str], int]())
    _fields: int = 0

    def document(self, operation: str) -> str:
        """Returns a document with one query, mutation or subscription."""
        root = cast(GraphQLObjectType, getattr(self.schema, f"{operation}_type"))
        if operation == "subscription":
            selections = self._field(root, "numbers" if self.choices.chance(5) else "ticks", 3, conditional=False)
        else:
            selections = self._selections(root, 3)
            if operation == "query" and self.choices.chance(3):
                selections += ' __type(name: "Item") { name }'
        declared = ", ".join(f"${name}: {variable.declaration}" for name, variable in self.variables.items())
        text = f"{operation} {f'({declared}) ' if declared else ''}{{ {selections} }}"
        return "\n".join([text, *(f"fragment {n} on {t} {{ {body} }}" for n, (t, body) in self._fragments.items())])

    def values(self) -> dict[str, object]:
        """Returns values of the variables, nearly all of them valid. Those that need no value may be absent."""
        values: dict[str, object] = {}
        for name, variable in self.variables.items():
            optional = variable.has_default or not isinstance(variable.type, GraphQLNonNull)
            if not optional or self.choices.below(4) < 3:
                values[name] = self._value(cast(Any, variable).type, 2)
        if self.choices.chance(3):
            values["unknown"] = 1
        return values

    def _value(self, type_: Any, depth: int) -> object:
        if self.choices.chance(2):
            return self.choices.pick(_WRONG_VALUES)
        if not isinstance(type_, GraphQLNonNull):
            return None if self.choices.chance(20) else self._value(GraphQLNonNull(type_), depth)
        type_ = cast(Any, type_).of_type
        if isinstance(type_, GraphQLList):
            item = cast(Any, type_).of_type
            if self.choices.chance(10):
                return self._value(item, depth)
            return [self._value(item, depth - 1) for _ in range(self.choices.below(3))]
        if isinstance(type_, GraphQLInputObjectType):
            return {
                name: self._value(each.type, depth - 1)
                for name, each in type_.fields.items()
                if _is_required(each) or (depth > 0 and self.choices.chance(40))
            }
        if isinstance(type_, GraphQLEnumType):
            return self.choices.pick(list(type_.values))
        return orjson.loads(self.choices.pick(_LEAF_VALUES[type_.name]))

    def _selections(self, type_: Any, depth: int) -> str:
        parts: list[str] = []
        many = getattr(type_, "name", None) == "Fixed" and self.choices.chance(60)
        for _ in range(1 + self.choices.below(4) + 5 * many):  # objects with few fields are not rendered
            kind = self.choices.below(16)
            if kind == 15 or (self._fields > _MAX_FIELDS and kind > 4):
                parts.append(f"{self.choices.pick(['', 'kind: '])}__typename{self._condition()}")
            elif kind > 12 or not hasattr(type_, "fields"):
                parts.append(self._fragment(type_, depth))
            else:
                parts.append(self._drawn_field(type_, depth))
        return " ".join(parts)

    def _drawn_field(self, type_: Any, depth: int) -> str:
        names = [
            name
            for name, each in type_.fields.items()
            if (depth > 0 and self._fields < _MAX_FIELDS) or is_leaf_type(_named(each.type))
        ]
        if not names:
            return "__typename"
        name = self.choices.pick(names)
        if name in _SELDOM and not self.choices.chance(10):
            name = names[0]
        return self._field(type_, name, depth)

    def _field(self, type_: Any, name: str, depth: int, *, conditional: bool = True) -> str:
        self._fields += 1
        definition = type_.fields[name]
        arguments = self._arguments(definition)
        number = self._names.setdefault((name, arguments), len(self._names))
        alias = f"{name}{number}: " if arguments else self.choices.pick(["", "", "", f"other_{name}: "])
        condition = self._condition() if conditional else ""
        named = _named(definition.type)
        inner = "" if is_leaf_type(named) else f" {{ {self._selections(named, depth - 1)} }}"
        return f"{alias}{name}{arguments}{condition}{inner}"

    def _fragment(self, type_: Any, depth: int) -> str:
        condition = self._possible(type_)
        if not self.choices.chance(50):
            on = f" on {condition.name}" if condition is not type_ or self.choices.chance(70) else ""
            return f"...{on}{self._condition()} {{ {self._selections(condition, depth)} }}"
        names = [name for name, (on, _) in self._fragments.items() if on == condition.name]
        if names and self.choices.chance(50):
            return f"...{self.choices.pick(names)}{self._condition()}"
        body = self._selections(condition, min(depth, 2))
        name = f"F{len(self._fragments)}"
        self._fragments[name] = (condition.name, body)
        return f"...{name}{self._condition()}"

    def _possible(self, type_: Any) -> Any:
        """Returns the type, or one that its objects can have."""
        if is_abstract_type(type_):
            return self.choices.pick([*self.schema.get_possible_types(type_), type_])
        interfaces = list(type_.interfaces)
        return self.choices.pick([type_, type_, type_, *interfaces])

    def _condition(self) -> str:
        if not self.choices.chance(15):
            return ""
        directive = self.choices.pick(["include", "skip"])
        if self.choices.chance(40):
            return f" @{directive}(if: {self.choices.pick(['true', 'false'])})"
        boolean: Any = self.schema.type_map["Boolean"]
        sure: Any = GraphQLNonNull(boolean)
        name, variable = self.choices.pick(
            [
                ("c1", Variable(sure, "Boolean!")),
                ("c2", Variable(sure, "Boolean! = true", has_default=True)),
                ("c3", Variable(boolean, "Boolean = false", has_default=True)),
            ]
        )
        self.variables.setdefault(name, variable)
        return f" @{directive}(if: ${name})"

    def _arguments(self, definition: Any) -> str:
        arguments = [
            f"{name}: {self._argument(each, 2)}"
            for name, each in definition.args.items()
            if _is_required(each) or self.choices.chance(30)
        ]
        return f"({', '.join(arguments)})" if arguments else ""

    def _argument(self, definition: Any, depth: int) -> str:
        """Returns a literal or a variable for an argument or for a field of an input."""
        return self._literal(definition.type, depth, has_default=not _has_no_default(definition))

    def _literal(self, type_: Any, depth: int, *, has_default: bool = False, constant: bool = False) -> str:
        if not constant and self.choices.chance(40):
            return self._variable(type_, has_default=has_default)
        if not isinstance(type_, GraphQLNonNull):
            return "null" if self.choices.chance(15) else self._literal(GraphQLNonNull(type_), depth)
        type_ = cast(Any, type_).of_type
        if isinstance(type_, GraphQLList):
            item = cast(Any, type_).of_type
            if self.choices.chance(15):  # a single item, which cannot be a variable
                return self._literal(GraphQLNonNull(_nullable(item)), depth, constant=True)
            size = self.choices.below(3)
            return f"[{', '.join(self._literal(item, depth - 1, constant=constant) for _ in range(size))}]"
        if isinstance(type_, GraphQLInputObjectType):
            fields = [
                f"{name}: {self._argument(each, depth - 1)}"
                for name, each in type_.fields.items()
                if _is_required(each) or (depth > 0 and self.choices.chance(30))
            ]
            return f"{{{', '.join(fields)}}}"
        if isinstance(type_, GraphQLEnumType):
            return self.choices.pick(list(type_.values))
        return self.choices.pick(_LEAF_VALUES[type_.name])

    def _variable(self, type_: Any, *, has_default: bool) -> str:
        usable = [name for name, variable in self.variables.items() if f"{variable.type}" == f"{type_}"]
        if usable and self.choices.chance(50):
            return f"${self.choices.pick(usable)}"
        name = f"v{len(self.variables)}"
        default = self._default(type_)
        match self.choices.below(4):
            case 0 if default:
                self.variables[name] = Variable(type_, f"{type_} = {default}", has_default=True)
            case 1 if default or has_default:  # a nullable variable, where null is not allowed but has a default
                nullable = _nullable(type_)
                declaration = f"{nullable} = {default}" if default else f"{nullable}"
                self.variables[name] = Variable(nullable, declaration, has_default=bool(default))
            case 2 if not isinstance(type_, GraphQLNonNull):
                self.variables[name] = Variable(GraphQLNonNull(type_), f"{type_}!")
            case _:
                self.variables[name] = Variable(type_, f"{type_}")
        return f"${name}"

    def _default(self, type_: Any) -> str | None:
        named = _nullable(type_)
        if isinstance(named, GraphQLEnumType):
            return next(iter(named.values))
        return self.choices.pick(_LEAF_VALUES[named.name]) if is_leaf_type(named) else None


def _named(type_: Any) -> Any:
    while hasattr(type_, "of_type"):
        type_ = type_.of_type
    return type_


def _nullable(type_: Any) -> Any:
    return cast(Any, type_).of_type if isinstance(type_, GraphQLNonNull) else type_


def _has_no_default(definition: Any) -> bool:
    return definition.default is None and str(definition.default_value) == "Undefined"


def _is_required(definition: Any) -> bool:
    return isinstance(definition.type, GraphQLNonNull) and _has_no_default(definition)
