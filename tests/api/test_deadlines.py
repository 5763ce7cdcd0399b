"""Deadlines of many entries with one timer, on a loop and a clock that only the test advances."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from tests.support.accounts import Clock
from xzepr.api.deadlines import Deadlines


@dataclass(eq=False)
class Entry:
    """An entry that notes whether it expired."""

    expired: bool = False

    def expire(self) -> None:
        self.expired = True


@dataclass
class TimerLoop:
    """Collects the timers that are set, and runs them when the test says so."""

    delays: list[float] = field(default_factory=list[float])
    callback: Callable[[], None] | None = None

    def call_later(self, delay: float, callback: Callable[..., None], *arguments: Any) -> object:
        self.delays.append(delay)
        self.callback = lambda: callback(*arguments)
        return object()

    def fire(self) -> None:
        """Runs the timer that is set."""
        callback, self.callback = self.callback, None
        assert callback is not None
        callback()


@dataclass
class Timed:
    """Deadlines of ten seconds."""

    clock: Clock = field(default_factory=Clock)
    loop: TimerLoop = field(default_factory=TimerLoop)

    def __post_init__(self) -> None:
        self.deadlines = Deadlines(10, self.clock)

    def add(self, loop: TimerLoop | None = None) -> Entry:
        entry = Entry()
        self.deadlines.add(entry, self.clock.time, cast(asyncio.AbstractEventLoop, loop or self.loop))
        return entry


def test_many_entries_set_one_timer() -> None:
    timed = Timed()
    for number in range(10_000):
        timed.clock.time = number / 1001
        timed.deadlines.remove(timed.add())
    assert timed.loop.delays == [10]
    timed.clock.time = 10
    timed.loop.fire()
    assert timed.loop.callback is None, "no timer without entries"
    timed.add()
    assert timed.loop.delays == [10, 10]


def test_entries_expire_in_turn() -> None:
    timed = Timed()
    first = timed.add()
    timed.clock.time = 4
    second, third = timed.add(), timed.add()
    timed.clock.time = 10
    timed.loop.fire()
    assert (first.expired, second.expired) == (True, False)
    timed.clock.time = 14
    timed.loop.fire()
    assert (second.expired, third.expired) == (True, True)
    assert timed.loop.delays == [10, 4]
    assert len(timed.deadlines) == 0


def test_entry_removed_just_before_its_deadline_does_not_expire() -> None:
    timed = Timed()
    removed, late = timed.add(), timed.add()
    timed.clock.time = 9.999
    timed.deadlines.remove(removed)
    timed.deadlines.remove(removed)
    timed.clock.time = 10
    timed.loop.fire()
    assert (removed.expired, late.expired) == (False, True)


def test_timer_that_fires_too_early_is_set_again() -> None:
    timed = Timed()
    entry = timed.add()
    timed.clock.time = 9.9999
    timed.loop.fire()
    assert (entry.expired, timed.loop.delays) == (False, [10, 0.001])


def test_entry_that_expires_may_remove_others() -> None:
    timed = Timed()
    entries = [timed.add() for _ in range(3)]

    def remove_all() -> None:
        for entry in entries:
            timed.deadlines.remove(entry)

    entries[0].expire = remove_all
    timed.clock.time = 10
    timed.loop.fire()
    assert len(timed.deadlines) == 0


def test_another_loop_sets_a_timer_for_itself() -> None:
    timed, loop = Timed(), TimerLoop()
    timed.add()
    entry = timed.add(loop)
    assert loop.delays == [10]
    timed.clock.time = 10
    loop.fire()
    assert entry.expired
