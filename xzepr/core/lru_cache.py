"""A cache with a limited number of entries, and optionally a limited total size."""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class LRUCache(Generic[K, V]):
    """Keeps the entries that were used last, and evicts the others. Values must not be None."""

    def __init__(
        self, max_entries: int, *, max_size: float = math.inf, size_of: Callable[[V], int] = lambda _: 0
    ) -> None:
        """`size_of` returns the size of a value in any unit, such as bytes; `max_size` limits their sum."""
        self._max_entries = max_entries
        self._max_size = max_size
        self._size_of = size_of
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        """Returns whether there is an entry, which does not count as a use."""
        return key in self._entries

    def get(self, key: K) -> V | None:
        """Returns the value of a key, which is then the one used last; None if there is no entry."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        """Adds or replaces an entry, and evicts those used longest ago until the limits are met.

        A value that is larger than `max_size` by itself is evicted at once, with all others.
        """
        self.pop(key)
        self._entries[key] = value
        self._size += self._size_of(value)
        while len(self._entries) > self._max_entries or self._size > self._max_size:
            _, evicted = self._entries.popitem(last=False)
            self._size -= self._size_of(evicted)

    def pop(self, key: K) -> V | None:
        """Removes an entry and returns its value; None if there is no entry."""
        value = self._entries.pop(key, None)
        if value is not None:
            self._size -= self._size_of(value)
        return value

    def clear(self) -> None:
        """Removes all entries."""
        self._entries.clear()
        self._size = 0
