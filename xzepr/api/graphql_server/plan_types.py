"""Conversions of plain values, shared by the plans of operations and by their variables.

A plain value is one that needs no coercion. Everything else is left to graphql-core, which coerces it or reports it.
"""

from collections.abc import Callable
from typing import Any, cast

GraphQLTypeRef = Any  # a GraphQLOutputType or GraphQLInputType, whose parts graphql-core leaves untyped
Convert = Callable[[Any], object]  # converts one plain value; raises any Exception for other values


class NotPlain(Exception):
    """Raised for a value that graphql-core has to handle."""


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


def list_of(convert_item: Convert, *, or_tuple: bool = False) -> Convert:
    """Returns a conversion of lists, and of tuples on request, item by item."""

    def convert(value: Any) -> object:
        if type(value) is not list and not (or_tuple and type(value) is tuple):
            raise NotPlain
        return [convert_item(item) for item in cast(list[object], value)]

    return convert
