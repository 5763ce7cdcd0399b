"""Turns on the event loop: in order, for both kinds alternately, and seldom while somebody is in a hurry."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from xzepr.features.subscriptions import scheduler as module
from xzepr.features.subscriptions.scheduler import TimeSlice, FairScheduler


def work(seconds: float) -> None:
    """Keeps the loop busy."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


async def waiting(
    turns: FairScheduler, who: str, taken: list[str], *, behind: bool, times: int = 1, seconds: float = 0
) -> None:
    for _ in range(times):
        await turns.wait(behind)
        taken.append(who)
        work(seconds)


@asynccontextmanager
async def crowd(
    turns: FairScheduler, count: int, *, behind: bool, seconds: float, work: Callable[[float], None] = work
) -> AsyncGenerator[list[float]]:
    """So many who take turns without end, each of which keeps the loop busy for so long; when they took them."""
    taken: list[float] = []

    async def member() -> None:
        while True:
            await turns.wait(behind)
            taken.append(time.perf_counter())
            work(seconds)

    tasks = [asyncio.create_task(member()) for _ in range(count)]
    await asyncio.sleep(0)
    try:
        yield taken
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_slices_are_granted_in_request_order():
    turns, taken = FairScheduler(), list[str]()
    await asyncio.gather(*(waiting(turns, who, taken, behind=True, times=3) for who in "abc"))
    assert "".join(taken) == "abcabcabc"


async def test_live_subscriber_gets_every_second_round():
    turns, taken = FairScheduler(), list[str]()
    many = [asyncio.create_task(waiting(turns, "behind", taken, behind=True, seconds=0.0005)) for _ in range(100)]
    await asyncio.sleep(0)
    await waiting(turns, "near", taken, behind=False, times=10, seconds=0.0005)
    assert taken.count("near") == 10
    assert taken.count("behind") <= 30, "a few of those behind for each of the other's"
    await asyncio.gather(*many)
    assert len(taken) == 110, "everybody got theirs"


async def test_other_ready_tasks_run_between_rounds():
    turns = FairScheduler()
    async with crowd(turns, 100, behind=True, seconds=0.0005) as taken:
        for _ in range(50):
            before = len(taken)
            await asyncio.sleep(0)
            assert len(taken) - before <= 4, "as many as had found that they fill a round"


async def test_short_slices_share_a_round(monkeypatch: pytest.MonkeyPatch):
    now = 0.0

    def work_by_hand(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    turns = FairScheduler()
    rounds: list[int] = []
    async with crowd(turns, 200, behind=False, seconds=5e-6, work=work_by_hand) as taken:
        for _ in range(30):
            before = len(taken)
            await asyncio.sleep(0)
            rounds.append(len(taken) - before)
    assert max(rounds) > 20


@pytest.mark.parametrize(("behind", "share"), [(True, 1 / 3), (False, 1 / 2)], ids=["behind", "in the ring"])
@pytest.mark.parametrize("count", [2, 100])
async def test_requests_get_priority_over_subscribers(behind: bool, share: float, count: int):
    turns = FairScheduler()
    async with crowd(turns, count, behind=behind, seconds=0.0004) as taken:
        with turns.request_in_flight(), turns.request_in_flight():
            began = time.perf_counter()
            await asyncio.sleep(0.3)
            took = time.perf_counter() - began
        # Of a machine that stands still meanwhile more may be wanted, and never less be left.
        assert 0 < len(taken) * 0.0004 <= took * share + 0.01


async def test_rounds_are_not_delayed_without_requests():
    turns = FairScheduler()
    async with crowd(turns, 50, behind=True, seconds=0.0004) as taken:
        for _ in range(20):
            before = len(taken)
            for _ in range(4):
                await asyncio.sleep(0)
            assert len(taken) > before, "a round in every few of the loop's"


async def test_cancelled_waiter_takes_no_slice():
    turns, taken = FairScheduler(), list[str]()
    one, two, three = (asyncio.create_task(waiting(turns, who, taken, behind=True)) for who in "abc")
    await asyncio.sleep(0)
    two.cancel()
    await asyncio.gather(one, three)
    assert taken == ["a", "c"]
    await waiting(turns, "d", taken, behind=False)
    assert taken == ["a", "c", "d"], "and turns are given again after nobody had asked for any"


async def test_slice_ends_after_half_a_millisecond():
    turns = FairScheduler()
    turn = TimeSlice(turns)
    lasting: list[bool] = []
    for _ in range(20):  # the machine may be busy with something else just now
        await asyncio.sleep(0.0005)
        assert turn.is_spent()
        await turn.next(catching_up=True)
        lasting.append(not turn.is_spent())
    assert any(lasting)


async def test_subscribers_in_one_round_share_its_time():
    turns, over = FairScheduler(), list[Sequence[bool]]()

    async def member(turn: TimeSlice) -> None:
        for _ in range(5):
            await turn.next(catching_up=True)  # with ever more others: who sends nothing needs little
        first = turn.is_spent()
        work(0.0006)
        over.append((first, turn.is_spent()))

    await asyncio.gather(*(member(TimeSlice(turns)) for _ in range(30)))
    assert all(after for _, after in over)
    assert any(before for before, _ in over), "who came behind another in the same round"


async def test_granted_slice_allows_one_message_at_least():
    turns = FairScheduler()
    turn = TimeSlice(turns)
    await turn.next(catching_up=False)
    work(0.001)
    turn.granted(unused=True)
    assert [turn.is_spent(), turn.is_spent()] == [False, True]
