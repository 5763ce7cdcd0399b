"""A cache of objects that never change, as JSON: each is rendered once for all responses with the same selection."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import orjson

from xzepr.core.lru_cache import LRUCache

JSON_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC  # of everything in a response
_MAX_ENTRIES = 100_000
_MAX_BYTES = 32 * 1024 * 1024  # of one process
_OVERHEAD_BYTES = 300  # of one entry, about

# Writes an object with the values of its edges as a JSON object.
WriteObject = Callable[[Any, Sequence[Any]], Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class _Entry:
    edges: tuple[object, ...]
    fragment: orjson.Fragment
    size: int


class RenderedObjects:
    """The rendered objects of one process."""

    def __init__(self, keys: Mapping[str, Callable[[Any], Hashable]], max_bytes: int = _MAX_BYTES) -> None:
        """`keys` are the names of the GraphQL types that never change, with a function for the identity of an object.

        Objects of a type with equal identities must be equal.
        """
        self._keys = keys
        self._entries = LRUCache[tuple[int, Hashable], _Entry](
            _MAX_ENTRIES, max_size=max_bytes, size_of=lambda entry: entry.size
        )
        self._selections = 0

    def has(self, type_name: str) -> bool:
        """Returns whether objects of the type never change."""
        return type_name in self._keys

    def selection(self, type_name: str, write: WriteObject) -> "Rendered":
        """Returns the rendered objects of one selection on a type."""
        self._selections += 1
        return Rendered(self._entries, self._selections, self._keys[type_name], write)


class Rendered:
    """The rendered objects of one selection."""

    def __init__(
        self,
        entries: LRUCache[tuple[int, Hashable], _Entry],
        number: int,
        key_of: Callable[[Any], Hashable],
        write: WriteObject,
    ) -> None:
        self._entries = entries
        self._number = number
        self._key_of = key_of
        self._write = write

    def rows(self, objects: Sequence[Any], edges: Sequence[tuple[object, ...]] | None = None) -> list[object]:
        """Returns a JSON fragment for each object. `edges` has the values of each object's edges.

        An object that was rendered with unequal edges is rendered again. Raises what `write` raises.
        """
        get, number, key_of = self._entries.get, self._number, self._key_of
        fragments: list[object] = []
        for item, item_edges in zip(objects, repeat(()) if edges is None else edges, strict=False):
            key = number, key_of(item)
            entry = get(key)
            if entry is None or entry.edges != item_edges:
                entry = self._render(item, item_edges)
                self._entries.put(key, entry)
            fragments.append(entry.fragment)
        return fragments

    def one(self, item: Any) -> object:
        """Returns the JSON fragment of an object without edges."""
        return self.rows((item,))[0]

    def _render(self, item: Any, edges: tuple[object, ...]) -> _Entry:
        text = orjson.dumps(self._write(item, edges), option=JSON_OPTIONS)
        return _Entry(edges, orjson.Fragment(text), _OVERHEAD_BYTES + len(text))
