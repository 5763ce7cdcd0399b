"""The fair scheduler: time slices come in order, alternate between both kinds of subscribers, and yield to requests."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from xzepr.features.subscriptions import scheduler as scheduler_module
from xzepr.features.subscriptions.scheduler import FairScheduler, TimeSlice


def work(seconds: float) -> None:
    """Keeps the loop busy."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


async def subscriber(
    scheduler: FairScheduler, name: str, slices: list[str], *, catching_up: bool, times: int = 1, seconds: float = 0
) -> None:
    for _ in range(times):
        await scheduler.wait(catching_up)
        slices.append(name)
        work(seconds)


@asynccontextmanager
async def running_subscribers(
    scheduler: FairScheduler, count: int, *, catching_up: bool, seconds: float, work: Callable[[float], None] = work
) -> AsyncGenerator[list[float]]:
    """Runs subscribers that request slices without end and keep the loop busy for `seconds` in each.

    Yields the times at which slices began."""
    slices: list[float] = []

    async def request_slices() -> None:
        while True:
            await scheduler.wait(catching_up)
            slices.append(time.perf_counter())
            work(seconds)

    tasks = [asyncio.create_task(request_slices()) for _ in range(count)]
    await asyncio.sleep(0)
    try:
        yield slices
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_slices_are_granted_in_request_order():
    scheduler, slices = FairScheduler(), list[str]()
    await asyncio.gather(*(subscriber(scheduler, name, slices, catching_up=True, times=3) for name in "abc"))
    assert "".join(slices) == "abcabcabc"


async def test_live_subscriber_gets_every_second_round():
    scheduler, slices = FairScheduler(), list[str]()
    many = [
        asyncio.create_task(subscriber(scheduler, "catch-up", slices, catching_up=True, seconds=0.0005))
        for _ in range(100)
    ]
    await asyncio.sleep(0)
    await subscriber(scheduler, "live", slices, catching_up=False, times=10, seconds=0.0005)
    assert slices.count("live") == 10
    assert slices.count("catch-up") <= 30, "a few catch-up slices for each live one"
    await asyncio.gather(*many)
    assert len(slices) == 110, "every subscriber got its slices"


async def test_other_ready_tasks_run_between_rounds():
    scheduler = FairScheduler()
    async with running_subscribers(scheduler, 100, catching_up=True, seconds=0.0005) as slices:
        for _ in range(50):
            before = len(slices)
            await asyncio.sleep(0)
            assert len(slices) - before <= 4, "a round ends once its subscribers have filled it"


async def test_short_slices_share_a_round(monkeypatch: pytest.MonkeyPatch):
    now = 0.0

    def advance_clock(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(scheduler_module, "time", SimpleNamespace(monotonic=lambda: now))
    scheduler = FairScheduler()
    rounds: list[int] = []
    async with running_subscribers(scheduler, 200, catching_up=False, seconds=5e-6, work=advance_clock) as slices:
        for _ in range(30):
            before = len(slices)
            await asyncio.sleep(0)
            rounds.append(len(slices) - before)
    assert max(rounds) > 20


SHARES = pytest.mark.parametrize(
    ("catching_up", "share"), [(True, "_CATCH_UP_SHARE"), (False, "_LIVE_SHARE")], ids=["catching up", "live"]
)


@SHARES
@pytest.mark.parametrize("count", [2, 100])
async def test_requests_get_priority_over_subscribers(catching_up: bool, share: str, count: int):
    scheduler = FairScheduler()
    async with running_subscribers(scheduler, count, catching_up=catching_up, seconds=0.0004) as slices:
        with scheduler.request_in_flight(), scheduler.request_in_flight():
            started_at = time.perf_counter()
            await asyncio.sleep(0.3)
            elapsed = time.perf_counter() - started_at
        # A stall of the machine lengthens `elapsed`, so it cannot break the bound.
        assert 0 < len(slices) * 0.0004 <= elapsed * getattr(scheduler_module, share) + 0.01


@SHARES
async def test_pauses_leave_subscribers_their_exact_share(
    monkeypatch: pytest.MonkeyPatch, catching_up: bool, share: str
):
    """Timers of a real loop fire late, so only a simulated clock shows the exact share."""
    now, loop = 0.0, asyncio.get_running_loop()

    def advance_clock(seconds: float) -> None:
        nonlocal now
        now += seconds

    def call_later(delay: float, callback: Callable[[], None]) -> asyncio.Handle:
        advance_clock(delay)
        return loop.call_soon(callback)

    scheduler = FairScheduler()
    with monkeypatch.context() as patched, scheduler.request_in_flight():
        patched.setattr(scheduler_module, "time", SimpleNamespace(monotonic=lambda: now))
        patched.setattr(loop, "call_later", call_later)
        async with running_subscribers(
            scheduler, 2, catching_up=catching_up, seconds=0.0004, work=advance_clock
        ) as slices:
            while now < 1:
                await asyncio.sleep(0)
        assert len(slices) * 0.0004 / now == pytest.approx(getattr(scheduler_module, share), rel=0.01)


async def test_rounds_are_not_delayed_without_requests():
    scheduler = FairScheduler()
    async with running_subscribers(scheduler, 50, catching_up=True, seconds=0.0004) as slices:
        for _ in range(20):
            before = len(slices)
            for _ in range(4):
                await asyncio.sleep(0)
            assert len(slices) > before, "a round runs in every four iterations of the loop"


async def test_cancelled_waiter_takes_no_slice():
    scheduler, slices = FairScheduler(), list[str]()
    first, second, third = (
        asyncio.create_task(subscriber(scheduler, name, slices, catching_up=True)) for name in "abc"
    )
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(first, third)
    assert slices == ["a", "c"]
    await subscriber(scheduler, "d", slices, catching_up=False)
    assert slices == ["a", "c", "d"], "slices are granted again after the queue was empty"


async def test_slice_ends_after_half_a_millisecond():
    scheduler = FairScheduler()
    time_slice = TimeSlice(scheduler)
    fresh: list[bool] = []
    for _ in range(20):  # the machine may be busy at the moment
        await asyncio.sleep(0.0005)
        assert time_slice.is_used_up()
        await time_slice.next(catching_up=True)
        fresh.append(not time_slice.is_used_up())
    assert any(fresh)


async def test_subscribers_in_one_round_share_its_time():
    scheduler, used_up = FairScheduler(), list[Sequence[bool]]()

    async def subscriber_task(time_slice: TimeSlice) -> None:
        for _ in range(5):
            await time_slice.next(catching_up=True)  # rounds grow, since the subscribers do no work yet
        first = time_slice.is_used_up()
        work(0.0006)
        used_up.append((first, time_slice.is_used_up()))

    await asyncio.gather(*(subscriber_task(TimeSlice(scheduler)) for _ in range(30)))
    assert all(after for _, after in used_up)
    assert any(before for before, _ in used_up), "a subscriber ran after another one in the same round"


async def test_granted_slice_allows_one_message_at_least():
    scheduler = FairScheduler()
    time_slice = TimeSlice(scheduler)
    await time_slice.next(catching_up=False)
    work(0.001)
    time_slice.granted(unused=True)
    assert [time_slice.is_used_up(), time_slice.is_used_up()] == [False, True]
