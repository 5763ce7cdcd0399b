"""What was looked up a moment ago: a bounded memory of answers that are soon too old to use."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from xzepr.core.errors import Unavailable
from xzepr.core.lru_cache import LRUCache

K = TypeVar("K")
V = TypeVar("V")

_SILENT_SECONDS = 2.5
"""How long a look-up may take: somewhat longer than what it reads from may be silent."""


class TTLCache(Generic[K, V]):
    """Answers of `look_up`, each used for `seconds` after its asking began; those used last are kept, at most `size`.

    Callers that ask for the same key at the same moment share one look-up. An answer of None, and an error, reach
    those who wait and are not kept: keys that nobody has would push out those that somebody uses.
    """

    def __init__(
        self,
        look_up: Callable[[K], Awaitable[V | None]],
        *,
        seconds: float,
        size: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look_up = look_up
        self._seconds = seconds
        self._clock = clock
        self._kept = LRUCache[K, tuple[float, V]](size)
        self._asking: dict[K, asyncio.Task[V | None]] = {}

    async def get(self, key: K) -> V | None:
        """The answer for the key, at most `seconds` old; raises what the look-up raises."""
        kept = self._kept.get(key)
        if kept is not None and self._clock() < kept[0]:
            return kept[1]
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._ask(key, self._clock() + self._seconds))
            task.add_done_callback(_take_note)
        # One caller that gives up must not take the answer from the others.
        return await asyncio.shield(task)

    def forget(self, key: K) -> None:
        """The next asking looks the key up again, also when a look-up is under way now."""
        self._kept.pop(key)
        self._asking.pop(key, None)

    async def _ask(self, key: K, until: float) -> V | None:
        me = asyncio.current_task()
        try:
            value = await self._look_up(key)
            if value is not None and self._asking.get(key) is me:
                self._kept.put(key, (until, value))
            return value
        finally:
            if self._asking.get(key) is me:
                del self._asking[key]


class BatchLoader(Generic[K, V]):
    """Look-ups of single keys; those that are asked for at the same moment are made as one.

    One that fails because something is away, or says nothing for `silent_seconds`, is left to itself and made once
    more: a connection that has fallen silent must not take the answer from all who were asked for with it.
    """

    def __init__(
        self, look_up: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]], *, silent_seconds: float = _SILENT_SECONDS
    ) -> None:
        """`look_up` gives what there is of the keys."""
        self._look_up = look_up
        self._silent_seconds = silent_seconds
        self._keys: list[K] = []
        self._task: asyncio.Task[Mapping[K, V]] | None = None
        self._tries: set[asyncio.Task[Mapping[K, V]]] = set()

    async def get(self, key: K) -> V | None:
        """The answer for the key, None when there is none; raises what the look-up raises, and Unavailable when it was
        silent twice."""
        self._keys.append(key)
        if self._task is None:
            self._task = asyncio.create_task(self._ask())
            self._task.add_done_callback(_take_note)
        return (await asyncio.shield(self._task)).get(key)

    async def _ask(self) -> Mapping[K, V]:
        # A task begins after those that were ready before it: who asks at the same moment has been heard by now.
        keys, self._keys, self._task = self._keys, [], None
        try:
            return await self._try(keys)
        except Unavailable:
            return await self._try(keys)

    async def _try(self, keys: Sequence[K]) -> Mapping[K, V]:
        # To cancel a statement takes an answer as well: who reads gives its connection up by itself.
        one = asyncio.ensure_future(self._look_up(keys))
        self._tries.add(one)
        one.add_done_callback(self._tries.discard)
        one.add_done_callback(_take_note)
        await asyncio.wait([one], timeout=self._silent_seconds)
        if not one.done():
            raise Unavailable("nothing was answered in time", retry_after=1)
        return one.result()


def _take_note(task: "asyncio.Task[Any]") -> None:
    # An error that every caller stopped waiting for is no news; asyncio would log it as never retrieved.
    if not task.cancelled():
        task.exception()
