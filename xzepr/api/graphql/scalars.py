"""Scalars of the schema: times and JSON, which orjson writes without anybody walking through them."""

from datetime import UTC, datetime
from typing import NewType, cast

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

JSON = NewType("JSON", object)
"""Any JSON value."""

Position = NewType("Position", int)
"""A number in the stream. GraphQL's own Int ends at 2^31."""


_LONGEST_INTEGER = 20
"""Characters of an integer that may be within 64 bits."""
_BEYOND = 2**64
"""Stands for any longer one: whoever writes the value refuses it at its place, and nobody converts its digits."""


def _write_json(value: object) -> object:
    return orjson.Fragment(value) if isinstance(value, bytes) else value


def _read_literal(node: ValueNode, variables: dict[str, object] | None = None) -> object:
    """A JSON value written into the document itself. What JSON cannot hold is refused where it is written as text."""
    match node:
        case StringValueNode() | BooleanValueNode():
            return node.value
        case IntValueNode():
            return int(node.value) if len(node.value) <= _LONGEST_INTEGER else _BEYOND
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
            raise GraphQLError("an enum value is not JSON: put it in quotes", node)


def _read_time(value: object) -> datetime:
    try:
        time = datetime.fromisoformat(cast(str, value))
    except (TypeError, ValueError):
        raise GraphQLError(f"{value!r} is not a time; write it as 2026-11-20T21:15:27Z (RFC 3339)") from None
    if time.tzinfo is None:
        raise GraphQLError(f"{value!r} says no zone; end it with Z or an offset such as +01:00")
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise GraphQLError(f"{value!r} is outside the years 1 to 9999 in UTC") from None


def _read_position(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise GraphQLError(f"{value!r} is not a position: a whole number from 0 to 2^63-1")
    return value


def _same(value: object) -> object:
    return value


SCALARS: dict[object, ScalarDefinition] = {
    JSON: strawberry.scalar(
        name="JSON",
        description="Any JSON value. Integers up to 64 bits and texts come back exactly; other numbers are doubles.",
        serialize=_write_json,
        parse_value=_same,
        parse_literal=_read_literal,
    ),
    Position: strawberry.scalar(
        name="Position",
        description="A number in the stream: 1, 2, 3 …, and 0 before the first. A whole number of up to 63 bits.",
        serialize=_same,
        parse_value=_read_position,
    ),
    datetime: strawberry.scalar(
        name="DateTime",
        description="A moment, as RFC 3339 in UTC with microseconds: 2026-11-20T21:15:27.170202Z.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc3339",
        serialize=_same,
        parse_value=_read_time,
    ),
}
