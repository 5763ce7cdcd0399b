"""A cache of looked-up values for a short time, and a read that is repeated once."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar

from xzepr.core.errors import Unavailable
from xzepr.core.lru_cache import LRUCache
from xzepr.infra.concurrency import SingleFlight, retrieve_exception

K = TypeVar("K")
V = TypeVar("V")
A = TypeVar("A")
R = TypeVar("R")

_READ_TIMEOUT_SECONDS = 2.5  # somewhat longer than a database connection may be silent


class TTLCache(Generic[K, V]):
    """Caches the values of `look_up`, at most `size` of them, each for `seconds` after its lookup began.

    Callers that request the same key at the same time share one lookup. None and errors are not cached: keys without a
    value would push out keys in use.
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
        self._values = LRUCache[K, tuple[float, V]](size)  # with the time at which each expires
        self._lookups = SingleFlight[K, V | None]()

    async def get(self, key: K) -> V | None:
        """Returns the value of the key, at most `seconds` old; None if it has none. Raises what `look_up` raises."""
        if (value := self.cached(key)) is not None:
            return value
        return await self._lookups.run(key, partial(self._fetch, key, self._clock() + self._seconds))

    def cached(self, key: K) -> V | None:
        """Returns the value of the key as `get` does, without a lookup: None if it is not cached or has expired."""
        cached = self._values.get(key)
        return cached[1] if cached is not None and self._clock() < cached[0] else None

    def forget(self, key: K) -> None:
        """Makes the next caller look the key up again, even if a lookup is running."""
        self._values.pop(key)
        self._lookups.forget(key)

    async def _fetch(self, key: K, expires_at: float) -> V | None:
        value = await self._look_up(key)
        if value is not None and self._lookups.is_current(key):
            self._values.put(key, (expires_at, value))
        return value


class RepeatedRead(Generic[A, R]):
    """A read that is repeated once if it is Unavailable or gets no response in time.

    A silent connection must not cost all callers of a batch their values. A read without a response is abandoned, not
    cancelled: cancelling a statement also needs a response.
    """

    def __init__(self, read: Callable[[A], Awaitable[R]], *, timeout_seconds: float = _READ_TIMEOUT_SECONDS) -> None:
        self._read = read
        self._timeout_seconds = timeout_seconds
        self._reads: set[asyncio.Future[R]] = set()

    async def __call__(self, argument: A) -> R:
        """Returns what the read returns. Raises Unavailable if both attempts get no response."""
        try:
            return await self._try(argument)
        except Unavailable:
            return await self._try(argument)

    async def _try(self, argument: A) -> R:
        read = asyncio.ensure_future(self._read(argument))
        self._reads.add(read)
        read.add_done_callback(self._reads.discard)
        read.add_done_callback(retrieve_exception)
        await asyncio.wait([read], timeout=self._timeout_seconds)
        if not read.done():
            raise Unavailable("no response in time", retry_after=1)
        return read.result()
