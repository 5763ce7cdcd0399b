"""The short memory: fresh enough, bounded, asked once, and never wrong after forgetting; and asking together."""

import asyncio
from collections.abc import Sequence

import pytest

from tests.support.accounts import Clock
from xzepr.core.errors import Unavailable
from xzepr.infra.cache import ShortMemory, Together


class Source:
    """Answers with how often it was asked; holds its answers back while `held`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.free = asyncio.Event()
        self.free.set()
        self.fails = False

    async def __call__(self, key: str) -> int | None:
        self.asked.append(key)
        answer = len(self.asked)
        await self.free.wait()
        if self.fails:
            raise OSError("away")
        return None if key == "nobody" else answer


def memory(source: Source, clock: Clock, size: int = 10) -> ShortMemory[str, int]:
    return ShortMemory(source, seconds=2, size=size, clock=clock)


async def test_cached_value_is_used_until_it_expires() -> None:
    source, clock = Source(), Clock()
    recent = memory(source, clock)
    assert [await recent.get("a"), await recent.get("a"), await recent.get("b")] == [1, 1, 2]
    clock.time = 1.9
    assert await recent.get("a") == 1
    clock.time = 2.0
    assert await recent.get("a") == 3


async def test_cached_value_age_counts_from_lookup_start() -> None:
    source, clock = Source(), Clock()
    recent = memory(source, clock)
    source.free.clear()
    call = asyncio.create_task(recent.get("a"))
    await asyncio.sleep(0)
    clock.time = 5
    source.free.set()
    assert await call == 1
    assert await recent.get("a") == 2


async def test_concurrent_callers_share_one_lookup() -> None:
    source = Source()
    recent = memory(source, Clock())
    source.free.clear()
    calls = [asyncio.create_task(recent.get("a")) for _ in range(3)]
    await asyncio.sleep(0)
    calls[0].cancel()
    await asyncio.sleep(0)
    source.free.set()
    assert await asyncio.gather(*calls[1:]) == [1, 1]
    assert source.asked == ["a"]


async def test_forget_discards_running_lookup() -> None:
    source = Source()
    recent = memory(source, Clock())
    source.free.clear()
    before = asyncio.create_task(recent.get("a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    recent.forget("a")
    after = asyncio.create_task(recent.get("a"))
    await asyncio.sleep(0)
    source.free.set()
    assert (await before, await after, await recent.get("a")) == (1, 2, 2)


async def test_missing_values_or_errors_are_not_cached() -> None:
    source = Source()
    recent = memory(source, Clock())
    assert [await recent.get("nobody"), await recent.get("nobody")] == [None, None]
    source.fails = True
    with pytest.raises(OSError, match="away"):
        await recent.get("a")
    source.fails = False
    assert await recent.get("a") == 4


async def test_oldest_entry_is_evicted_when_full() -> None:
    source = Source()
    recent = memory(source, Clock(), size=2)
    for key in "abc":
        await recent.get(key)
    assert await recent.get("c") == 3
    assert await recent.get("b") == 2
    assert await recent.get("a") == 4


async def test_simultaneous_keys_are_looked_up_in_one_batch() -> None:
    asked: list[list[int]] = []
    free = asyncio.Event()

    async def look_up(keys: Sequence[int]) -> dict[int, int]:
        asked.append(list(keys))
        await free.wait()
        return {key: key * key for key in keys if key != 3}

    together = Together(look_up)
    first = [asyncio.create_task(together.get(key)) for key in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    later = asyncio.create_task(together.get(9))
    await asyncio.sleep(0)
    free.set()
    assert await asyncio.gather(*first) == [0, 1, 4, None, 16]
    assert await later == 81
    assert asked == [[0, 1, 2, 3, 4], [9]]


async def test_failed_lookup_fails_all_waiters() -> None:
    async def look_up(keys: Sequence[int]) -> dict[int, int]:
        await asyncio.sleep(0)
        if 1 in keys:
            raise OSError("away")
        return {key: key for key in keys}

    together = Together(look_up)
    failed = await asyncio.gather(together.get(1), together.get(2), return_exceptions=True)
    assert [type(error) for error in failed] == [OSError, OSError]
    leaves, stays = asyncio.create_task(together.get(3)), asyncio.create_task(together.get(4))
    await asyncio.sleep(0)
    leaves.cancel()
    assert await stays == 4


async def test_silent_lookup_is_retried_once() -> None:
    silent, asked = 1, 0

    async def look_up(keys: Sequence[int]) -> dict[int, int]:
        nonlocal asked
        asked += 1
        if asked <= silent:
            await asyncio.Event().wait()
        return {key: key for key in keys}

    recent = ShortMemory(Together(look_up, silent_seconds=0.02).get, seconds=2, size=10)
    async with asyncio.timeout(5):
        assert await asyncio.gather(*(recent.get(key) for key in (1, 2, 3))) == [1, 2, 3]
        assert asked == 2
        silent = 4
        with pytest.raises(Unavailable) as refusal:
            await recent.get(4)
        assert refusal.value.retry_after is not None
        assert await recent.get(4) == 4, "nobody waits any longer for what was silent"


async def test_lookup_is_retried_after_lost_connection() -> None:
    asked = 0

    async def look_up(keys: Sequence[int]) -> dict[int, int]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise Unavailable("away")
        return {key: key for key in keys}

    assert await Together(look_up).get(1) == 1
    assert asked == 2
