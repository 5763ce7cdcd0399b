"""The scalars of the schema: JSON, Position and DateTime. orjson serialises their values without a walk in Python."""

from datetime import datetime
from typing import NewType

import orjson
import strawberry
from graphql import (
    BooleanValueNode,
    FloatValueNode,
    GraphQLError,
    IntValueNode,
    ListValueNode,
    NullValueNode,
    ObjectValueNode,
    StringValueNode,
    ValueNode,
    VariableNode,
)
from strawberry.types.scalar import ScalarDefinition

from xzepr.api.graphql_server.plans.conversions import Unchanged, Wrapped
from xzepr.core.clock import EXAMPLE, json_time, read_time

JSON = NewType("JSON", object)  # any JSON value
Position = NewType("Position", int)  # a position in the stream; GraphQL's own Int ends at 2^31

_MAX_INTEGER_CHARS = 20  # a longer integer literal exceeds 64 bits
# Replaces longer integer literals, whose digits are never converted. Validation rejects it with its location.
_OUT_OF_RANGE = 2**64


def _read_literal(node: ValueNode, variables: dict[str, object] | None = None) -> object:
    """Returns the JSON value of a literal in the document.

    Values that JSON cannot represent are rejected later, when the value is written as text.
    """
    match node:
        case StringValueNode() | BooleanValueNode():
            return node.value
        case IntValueNode():
            return int(node.value) if len(node.value) <= _MAX_INTEGER_CHARS else _OUT_OF_RANGE
        case FloatValueNode():
            return float(node.value)
        case NullValueNode():
            return None
        case ListValueNode():
            return [_read_literal(item, variables) for item in node.values]
        case ObjectValueNode():
            return {field.name.value: _read_literal(field.value, variables) for field in node.fields}
        case VariableNode():
            return (variables or {}).get(node.name.value)
        case _:
            raise GraphQLError("an enum value is not JSON: write it as a string, in quotes", node)


def _read_time(value: object) -> datetime:
    if not isinstance(value, str):
        raise GraphQLError(f"{value!r} is not a time: write it as {EXAMPLE!r}, a string (RFC 3339)")
    try:
        return read_time(value)
    except ValueError as error:
        raise GraphQLError(str(error)) from None


def _read_position(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise GraphQLError(f"{value!r} is not a position: a whole number from 0 to 2^63-1")
    return value


def _unchanged(value: object) -> object:
    return value


SCALARS: dict[object, ScalarDefinition] = {
    JSON: strawberry.scalar(
        name="JSON",
        description="Any JSON value. Integers up to 64 bits and strings are returned exactly; other numbers are "
        "doubles.",
        serialize=Wrapped(bytes, orjson.Fragment),
        parse_value=_unchanged,
        parse_literal=_read_literal,
    ),
    Position: strawberry.scalar(
        name="Position",
        description="A position in the stream: 1, 2, 3 …; 0 is before the first message. An integer of up to 63 bits.",
        serialize=Unchanged(int),
        parse_value=_read_position,
    ),
    datetime: strawberry.scalar(
        name="DateTime",
        description="A time in RFC 3339. Output is in UTC with six decimals: 2026-11-20T21:15:27.170202Z. "
        "Input must include the zone; digits beyond microseconds are dropped.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc3339",
        serialize=Wrapped(datetime, json_time),
        parse_value=_read_time,
    ),
}
