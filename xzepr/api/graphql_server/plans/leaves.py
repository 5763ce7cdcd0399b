"""Values of scalars and enums, as a plan writes them."""

from datetime import datetime
from enum import Enum
from typing import Any, cast

from graphql import GraphQLEnumType, GraphQLScalarType, Undefined

from xzepr.api.graphql_server.plans.conversions import (
    EXACT_TYPES,
    Convert,
    NotPlain,
    Unchanged,
    Wrapped,
    exactly,
    int32,
)
from xzepr.api.graphql_server.plans.levels import Plain
from xzepr.api.graphql_server.plans.resolvers import DEFINITION
from xzepr.api.graphql_server.plans.row_code import Leaf

# Types whose values need only their scalar's coercion, because they are neither awaitables nor exceptions.
_PLAIN_TYPES = frozenset({str, int, float, bool, bytes, datetime, dict, list})


def leaf_level(leaf: object) -> Plain | None:
    """Returns the level of a scalar or an enum; None for an enum without a Python class."""
    if isinstance(leaf, GraphQLEnumType):
        return _enum(leaf)
    scalar = cast(GraphQLScalarType, leaf)
    if scalar.name == "Int":
        return Plain(int32, Leaf(int, is_int=True))
    if (expected := EXACT_TYPES.get(scalar.name)) is not None:
        return Plain(exactly(expected), Leaf(expected))
    match getattr(scalar.extensions.get(DEFINITION), "serialize", None):
        case Wrapped(type=type_, wrap=wrap) as serialize:
            return Plain(_wrapped(serialize), Leaf(type_, wrap=wrap))
        case Unchanged(type=type_):
            return Plain(exactly(type_), Leaf(type_))
        case _:
            return Plain(_coerced(scalar))


def _enum(type_: GraphQLEnumType) -> Plain | None:
    members = cast("type[Enum] | None", getattr(type_, "wrapped_cls", None))
    if members is None:
        return None
    names: dict[Enum, object] = {member: type_.coerce_output_value(member) for member in members}

    def convert(value: Any) -> object:
        if type(value) is not members:
            raise NotPlain
        return names[value]

    return Plain(convert)


def _wrapped(serialize: Wrapped) -> Convert:
    def convert(value: Any) -> object:
        if type(value) not in _PLAIN_TYPES:
            raise NotPlain
        return serialize(value)

    return convert


def _coerced(scalar: GraphQLScalarType) -> Convert:
    coerce = cast(Convert, scalar.coerce_output_value)

    def convert(value: Any) -> object:
        if type(value) not in _PLAIN_TYPES or (coerced := coerce(value)) is None or coerced is Undefined:
            raise NotPlain
        return coerced

    return convert
