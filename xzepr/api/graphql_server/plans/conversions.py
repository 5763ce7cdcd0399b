"""Conversions of plain values, shared by the plans of operations and by their variables.

A plain value is one that needs no coercion. Everything else is left to graphql-core, which coerces it or reports it.
"""

from collections.abc import Callable
from datetime import datetime
from enum import Enum
from typing import Any, cast

from graphql import Undefined

GraphQLTypeRef = Any  # a GraphQLOutputType or GraphQLInputType, whose parts graphql-core leaves untyped
IMMUTABLE = (str, bool, int, float, datetime, Enum, type(None), type(Undefined))  # values that all calls may share
Convert = Callable[[Any], object]  # converts one plain value; raises any Exception for other values


class NotPlain(Exception):
    """Raised for a value that graphql-core has to handle."""


class Unchanged:
    """The `serialize` function of a scalar whose values are written as they are.

    A plan checks the types of such values inline, without a call.
    """

    def __init__(self, type: type) -> None:
        """`type` is the exact type of plain values. Values of other types are left to graphql-core."""
        self.type = type

    def __call__(self, value: object) -> object:
        """Returns the value."""
        return value


class Wrapped(Unchanged):
    """The `serialize` function of a scalar that writes values of one type with `wrap`, and others as they are."""

    def __init__(self, type: type, wrap: Convert) -> None:
        super().__init__(type)
        self.wrap = wrap

    def __call__(self, value: object) -> object:
        """Returns the value as it is written."""
        return self.wrap(value) if type(value) is self.type else value


# Scalars of the specification whose plain values have exactly this Python type, in requests and in responses.
EXACT_TYPES: dict[str, type] = {"String": str, "ID": str, "Boolean": bool}


def int32(value: Any) -> object:
    """Returns a value of the scalar Int. Raises NotPlain if it is not an integer of 32 bits."""
    if type(value) is not int or not -(2**31) <= value < 2**31:
        raise NotPlain
    return value


def not_plain(_: object = None) -> object:
    """Raises NotPlain."""
    raise NotPlain


def inner_type(type_: GraphQLTypeRef) -> GraphQLTypeRef:
    """Returns the type inside a list or non-null type."""
    return type_.of_type


def exactly(expected: type) -> Convert:
    """Returns a conversion that accepts values of exactly this type and leaves them as they are."""

    def convert(value: Any) -> object:
        if type(value) is not expected:
            raise NotPlain
        return value

    return convert


def list_of(convert_item: Convert) -> Convert:
    """Returns a conversion of lists, item by item."""

    def convert(value: Any) -> object:
        if type(value) is not list:
            raise NotPlain
        return [convert_item(item) for item in cast(list[object], value)]

    return convert
