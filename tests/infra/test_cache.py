"""The TTL cache bounds the age and number of its values; a repeated read survives a silent connection."""

import asyncio
from collections.abc import Sequence

import pytest

from tests.support.accounts import Clock
from xzepr.core.errors import Unavailable
from xzepr.infra.cache import RepeatedRead, TTLCache
from xzepr.infra.concurrency import BatchLoader


class Source:
    """A data source that returns the number of its lookups, and returns nothing while `released` is unset."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.released = asyncio.Event()
        self.released.set()
        self.fails = False

    async def __call__(self, key: str) -> int | None:
        self.keys.append(key)
        value = len(self.keys)
        await self.released.wait()
        if self.fails:
            raise OSError("source is down")
        return None if key == "missing" else value


def ttl_cache(source: Source, clock: Clock, size: int = 10) -> TTLCache[str, int]:
    return TTLCache(source, seconds=2, size=size, clock=clock)


async def test_cached_value_is_used_until_it_expires() -> None:
    source, clock = Source(), Clock()
    cache = ttl_cache(source, clock)
    assert [await cache.get("a"), await cache.get("a"), await cache.get("b")] == [1, 1, 2]
    clock.time = 1.9
    assert await cache.get("a") == 1
    clock.time = 2.0
    assert await cache.get("a") == 3


async def test_cached_value_is_known_without_a_lookup() -> None:
    source, clock = Source(), Clock()
    cache = ttl_cache(source, clock)
    assert cache.cached("a") is None
    await cache.get("a")
    assert cache.cached("a") == 1
    cache.forget("a")
    assert cache.cached("a") is None
    await cache.get("a")
    clock.time = 2.0
    assert cache.cached("a") is None
    assert source.keys == ["a", "a"]


async def test_cached_value_age_counts_from_lookup_start() -> None:
    source, clock = Source(), Clock()
    cache = ttl_cache(source, clock)
    source.released.clear()
    call = asyncio.create_task(cache.get("a"))
    await asyncio.sleep(0)
    clock.time = 5
    source.released.set()
    assert await call == 1
    assert await cache.get("a") == 2


async def test_concurrent_callers_share_one_lookup() -> None:
    source = Source()
    cache = ttl_cache(source, Clock())
    source.released.clear()
    calls = [asyncio.create_task(cache.get("a")) for _ in range(3)]
    await asyncio.sleep(0)
    calls[0].cancel()
    await asyncio.sleep(0)
    source.released.set()
    assert await asyncio.gather(*calls[1:]) == [1, 1]
    assert source.keys == ["a"]


async def test_forget_discards_running_lookup() -> None:
    source = Source()
    cache = ttl_cache(source, Clock())
    source.released.clear()
    before = asyncio.create_task(cache.get("a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    cache.forget("a")
    after = asyncio.create_task(cache.get("a"))
    await asyncio.sleep(0)
    source.released.set()
    assert (await before, await after, await cache.get("a")) == (1, 2, 2)


async def test_missing_values_or_errors_are_not_cached() -> None:
    source = Source()
    cache = ttl_cache(source, Clock())
    assert [await cache.get("missing"), await cache.get("missing")] == [None, None]
    source.fails = True
    with pytest.raises(OSError, match="source is down"):
        await cache.get("a")
    source.fails = False
    assert await cache.get("a") == 4


async def test_oldest_entry_is_evicted_when_full() -> None:
    source = Source()
    cache = ttl_cache(source, Clock(), size=2)
    for key in "abc":
        await cache.get(key)
    assert await cache.get("c") == 3
    assert await cache.get("b") == 2
    assert await cache.get("a") == 4


async def test_silent_lookup_is_retried_once() -> None:
    silent_lookups, lookups = 1, 0

    async def load(keys: Sequence[int]) -> dict[int, int]:
        nonlocal lookups
        lookups += 1
        if lookups <= silent_lookups:
            await asyncio.Event().wait()
        return {key: key for key in keys}

    cache = TTLCache(BatchLoader(RepeatedRead(load, timeout_seconds=0.02)).load, seconds=2, size=10)
    async with asyncio.timeout(5):
        assert await asyncio.gather(*(cache.get(key) for key in (1, 2, 3))) == [1, 2, 3]
        assert lookups == 2
        silent_lookups = 4
        with pytest.raises(Unavailable) as error:
            await cache.get(4)
        assert error.value.retry_after is not None
        assert await cache.get(4) == 4, "a silent lookup does not block later callers"


async def test_lookup_is_retried_after_lost_connection() -> None:
    lookups = 0

    async def load(keys: Sequence[int]) -> dict[int, int]:
        nonlocal lookups
        lookups += 1
        if lookups == 1:
            raise Unavailable("connection lost")
        return {key: key for key in keys}

    assert await RepeatedRead(load)([1]) == {1: 1}
    assert lookups == 2


async def test_read_that_stays_unavailable_fails() -> None:
    lookups = 0

    async def load(_: int) -> int:
        nonlocal lookups
        lookups += 1
        raise Unavailable("connection lost")

    with pytest.raises(Unavailable, match="connection lost"):
        await RepeatedRead(load)(1)
    assert lookups == 2
