"""Turns on the event loop: in order, for both kinds alternately, and seldom while somebody is in a hurry."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from xzepr.features.stream import turns as module
from xzepr.features.stream.turns import Turn, Turns


def work(seconds: float) -> None:
    """Keeps the loop busy."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


async def waiting(
    turns: Turns, who: str, taken: list[str], *, behind: bool, times: int = 1, seconds: float = 0
) -> None:
    for _ in range(times):
        await turns.wait(behind)
        taken.append(who)
        work(seconds)


@asynccontextmanager
async def crowd(
    turns: Turns, count: int, *, behind: bool, seconds: float, work: Callable[[float], None] = work
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


async def test_turns_are_given_in_the_order_in_which_they_were_asked_for():
    turns, taken = Turns(), list[str]()
    await asyncio.gather(*(waiting(turns, who, taken, behind=True, times=3) for who in "abc"))
    assert "".join(taken) == "abcabcabc"


async def test_who_is_in_the_ring_gets_every_second_round_however_many_are_behind():
    turns, taken = Turns(), list[str]()
    many = [asyncio.create_task(waiting(turns, "behind", taken, behind=True, seconds=0.0005)) for _ in range(100)]
    await asyncio.sleep(0)
    await waiting(turns, "near", taken, behind=False, times=10, seconds=0.0005)
    assert taken.count("near") == 10
    assert taken.count("behind") <= 30, "a few of those behind for each of the other's"
    await asyncio.gather(*many)
    assert len(taken) == 110, "everybody got theirs"


async def test_everything_else_that_is_ready_runs_between_two_rounds():
    turns = Turns()
    async with crowd(turns, 100, behind=True, seconds=0.0005) as taken:
        for _ in range(50):
            before = len(taken)
            await asyncio.sleep(0)
            assert len(taken) - before <= 4, "as many as had found that they fill a round"


async def test_who_needs_little_is_given_a_turn_together_with_others(monkeypatch: pytest.MonkeyPatch):
    now = 0.0

    def work_by_hand(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    turns = Turns()
    rounds: list[int] = []
    async with crowd(turns, 200, behind=False, seconds=5e-6, work=work_by_hand) as taken:
        for _ in range(30):
            before = len(taken)
            await asyncio.sleep(0)
            rounds.append(len(taken) - before)
    assert max(rounds) > 20


@pytest.mark.parametrize(("behind", "share"), [(True, 1 / 3), (False, 1 / 2)], ids=["behind", "in the ring"])
@pytest.mark.parametrize("count", [2, 100])
async def test_while_somebody_is_in_a_hurry_the_loop_is_theirs_for_half_or_two_thirds_of_the_time(
    behind: bool, share: float, count: int
):
    turns = Turns()
    async with crowd(turns, count, behind=behind, seconds=0.0004) as taken:
        with turns.hurry(), turns.hurry():
            began = time.perf_counter()
            await asyncio.sleep(0.3)
            took = time.perf_counter() - began
        # Of a machine that stands still meanwhile more may be wanted, and never less be left.
        assert 0 < len(taken) * 0.0004 <= took * share + 0.01


async def test_with_nobody_in_a_hurry_they_wait_for_nothing():
    turns = Turns()
    async with crowd(turns, 50, behind=True, seconds=0.0004) as taken:
        for _ in range(20):
            before = len(taken)
            for _ in range(4):
                await asyncio.sleep(0)
            assert len(taken) > before, "a round in every few of the loop's"


async def test_who_has_gone_takes_no_turn_from_others():
    turns, taken = Turns(), list[str]()
    one, two, three = (asyncio.create_task(waiting(turns, who, taken, behind=True)) for who in "abc")
    await asyncio.sleep(0)
    two.cancel()
    await asyncio.gather(one, three)
    assert taken == ["a", "c"]
    await waiting(turns, "d", taken, behind=False)
    assert taken == ["a", "c", "d"], "and turns are given again after nobody had asked for any"


async def test_a_turn_is_over_after_half_a_millisecond_and_begins_anew_when_it_is_given():
    turns = Turns()
    turn = Turn(turns)
    lasting: list[bool] = []
    for _ in range(20):  # the machine may be busy with something else just now
        await asyncio.sleep(0.0005)
        assert turn.is_spent()
        await turn.next(behind=True)
        lasting.append(not turn.is_spent())
    assert any(lasting)


async def test_those_who_go_on_together_share_the_time_of_one():
    turns, over = Turns(), list[Sequence[bool]]()

    async def member(turn: Turn) -> None:
        for _ in range(5):
            await turn.next(behind=True)  # with ever more others: who sends nothing needs little
        first = turn.is_spent()
        work(0.0006)
        over.append((first, turn.is_spent()))

    await asyncio.gather(*(member(Turn(turns)) for _ in range(30)))
    assert all(after for _, after in over)
    assert any(before for before, _ in over), "who came behind another in the same round"


async def test_a_turn_that_was_given_is_good_for_one_thing_though_others_took_its_time():
    turns = Turns()
    turn = Turn(turns)
    await turn.next(behind=False)
    work(0.001)
    turn.given(unused=True)
    assert [turn.is_spent(), turn.is_spent()] == [False, True]
