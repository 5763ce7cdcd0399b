"""Finds keys that an object of a JSON text repeats. Parsers keep the last one and drop the others (RFC 8259, 4)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias, cast

import orjson

# Each key with its colon, each other string, and each structural character. It does not backtrack.
_PART = re.compile(r'"(?:[^"\\]++|\\.)*+"(\s*+:)?+|[{}\[\],]')
_ESCAPE = re.compile(rb"\\(?:(u003[aA])|.)", re.DOTALL)

Location: TypeAlias = "tuple[Location, str] | None"  # the location of the container, and a key or index in it


@dataclass(slots=True)
class _Container:
    location: Location
    keys: set[str] | None
    """The keys so far; None for an array."""
    last: str = ""
    index: int = 0

    def child(self) -> Location:
        return self.location, self.last if self.keys is not None else str(self.index)


def may_have_repeated_keys(data: bytes, value: object) -> bool:
    """Returns whether an object of a JSON text has a key more than once. `value` is what orjson read from it.

    A repeated key is lost with its colon, so the value as JSON has fewer colons than the text. It may return True
    wrongly for a value that orjson cannot write, because it is nested deeper than 254 levels.
    """
    colons = data.count(b":")
    if not colons:
        return False
    if b"\\u003" in data:
        colons += sum(bool(escape.group(1)) for escape in _ESCAPE.finditer(data))
    try:
        return orjson.dumps(value).count(b":") != colons
    except TypeError:
        return True


def repeated_keys(text: str) -> Iterator[Location]:
    """Yields the location of each repeated key of a valid JSON text, in order."""
    containers: list[_Container] = []
    for part in _PART.finditer(text):
        piece = part.group()
        if piece in ("{", "["):
            location = containers[-1].child() if containers else None
            containers.append(_Container(location, set() if piece == "{" else None))
            continue
        if not containers:
            return  # the text is one string
        container = containers[-1]
        if piece in ("}", "]"):
            containers.pop()
        elif piece == ",":
            container.index += 1
        elif part.group(1) is not None and container.keys is not None:
            container.last = cast(str, orjson.loads(piece[: -len(part.group(1))]))
            if container.last in container.keys:
                yield container.child()
            container.keys.add(container.last)
