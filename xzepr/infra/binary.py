"""Binary forms of PostgreSQL's values: elements, each after its length, and arrays of them as parameters."""

import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import IntEnum

NULL = b"\xff\xff\xff\xff"
TRUE, FALSE = b"\0\0\0\1\1", b"\0\0\0\1\0"

_ARRAY = struct.Struct(">iiIii").pack
_INTEGER = struct.Struct(">ii").pack
_BIGINT = struct.Struct(">iq").pack
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class Type(IntEnum):
    """The object ids of the types of elements, which are the same in every database."""

    BOOLEAN = 16
    BYTEA = 17
    BIGINT = 20
    INTEGER = 23
    TEXT = 25
    JSON = 114
    TIMESTAMPTZ = 1184


def array(type: Type, elements: Sequence[bytes]) -> bytes:
    """Returns an array of one dimension. The elements of TEXT, JSON and BYTEA come from `ids.with_length`."""
    return _ARRAY(1, 0, type, len(elements), 1) + b"".join(elements)


def integer(value: int) -> bytes:
    """Returns an element of type INTEGER."""
    return _INTEGER(4, value)


def bigint(value: int) -> bytes:
    """Returns an element of type BIGINT."""
    return _BIGINT(8, value)


def timestamp(value: datetime) -> bytes:
    """Returns an element of type TIMESTAMPTZ. `value` has a time zone."""
    since = value - _EPOCH
    return _BIGINT(8, (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds)
