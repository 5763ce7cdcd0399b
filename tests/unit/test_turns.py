"""Turns on the event loop: in order, for both kinds alternately, and seldom while somebody is in a hurry."""

import asyncio
import time

from xzepr.features.stream.turns import Turn, Turns


async def waiting(turns: Turns, who: str, taken: list[str], *, behind: bool, times: int) -> None:
    for _ in range(times):
        await turns.wait(behind)
        taken.append(who)


async def test_turns_are_given_in_the_order_in_which_they_were_asked_for():
    turns, taken = Turns(), list[str]()
    await asyncio.gather(*(waiting(turns, who, taken, behind=True, times=3) for who in "abc"))
    assert "".join(taken) == "abcabcabc"


async def test_who_is_in_the_ring_gets_every_second_turn_however_many_are_behind():
    turns, taken = Turns(), list[str]()
    many = [asyncio.create_task(waiting(turns, "behind", taken, behind=True, times=10)) for _ in range(100)]
    await asyncio.sleep(0)
    await waiting(turns, "near", taken, behind=False, times=10)
    given = taken[: taken.index("near") + 1], taken.count("near"), taken.count("behind")
    assert given[1] == 10
    assert given[2] <= 12, "one of those behind for each of the other's"
    await asyncio.gather(*many)
    assert len(taken) == 1010, "everybody got theirs"


async def test_everything_else_that_is_ready_runs_between_two_turns():
    turns, taken = Turns(), list[str]()

    async def other() -> None:
        while taken.count("turn") < 20:
            taken.append("other")
            await asyncio.sleep(0)

    await asyncio.gather(*(waiting(turns, "turn", taken, behind=True, times=5) for _ in range(4)), other())
    assert "turn turn" not in " ".join(taken)


async def test_while_somebody_is_in_a_hurry_turns_are_given_less_often():
    turns, taken = Turns(), list[str]()
    many = [asyncio.create_task(waiting(turns, "turn", taken, behind=True, times=40)) for _ in range(100)]
    began = time.monotonic()
    with turns.hurry(), turns.hurry():
        await asyncio.sleep(0.1)
        assert 0 < len(taken) <= (time.monotonic() - began) / 0.002 + 1, "one in two milliseconds"
    await asyncio.gather(*many)
    assert len(taken) == 4000


async def test_a_few_who_wait_get_their_turns_sooner_than_many():
    async def pauses(*counts: int) -> list[float]:
        found: list[float] = []
        for count in counts:
            turns = Turns()
            many = [asyncio.create_task(turns.wait(behind=number % 2 == 0)) for number in range(count)]
            await asyncio.sleep(0)  # all have asked, and none has been given
            with turns.hurry():
                found.append(turns.pause)
            for task in many:
                task.cancel()
            await asyncio.gather(*many, return_exceptions=True)
        return found

    assert await pauses(1000, 40, 4, 0) == [0.002, 0.002, 0.0002, 0]


async def test_nobody_pauses_while_nobody_waits_for_an_answer():
    turns = Turns()
    waiting = asyncio.create_task(turns.wait(behind=True))
    assert turns.pause == 0
    await waiting


async def test_four_who_wait_are_not_made_to_wait_as_forty_are():
    async def given(count: int) -> int:
        turns, taken = Turns(), list[str]()
        many = [asyncio.create_task(waiting(turns, "turn", taken, behind=True, times=1000)) for _ in range(count)]
        with turns.hurry():
            await asyncio.sleep(0.2)
        for task in many:
            task.cancel()
        await asyncio.gather(*many, return_exceptions=True)
        return len(taken)

    # Whatever the machine does meanwhile: the most of several looks tells what the pause allows.
    few, many = [max([await given(count) for _ in range(3)]) for count in (4, 40)]
    assert few > 1.3 * many


async def test_who_has_gone_takes_no_turn_from_others():
    turns, taken = Turns(), list[str]()
    one, two, three = (asyncio.create_task(waiting(turns, who, taken, behind=True, times=1)) for who in "abc")
    await asyncio.sleep(0)
    two.cancel()
    await asyncio.gather(one, three)
    assert taken == ["a", "c"]
    await waiting(turns, "d", taken, behind=False, times=1)
    assert taken == ["a", "c", "d"], "and turns are given again after nobody had asked for any"


async def test_a_turn_is_over_after_half_a_millisecond_and_begins_anew_when_it_is_given():
    turn = Turn(Turns())
    lasting: list[bool] = []
    for _ in range(20):  # the machine may be busy with something else just now
        await asyncio.sleep(0.0005)
        assert turn.is_over
        await turn.next(behind=True)
        lasting.append(not turn.is_over)
    assert any(lasting)
