"""Deadlines of many entries with one timer."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

_MIN_SECONDS = 0.001  # the resolution of timers, which may fire that much early


class Expiring(Protocol):
    """An entry with a deadline."""

    def expire(self) -> None:
        """Ends the entry, which is late."""
        ...


class Deadlines:
    """Expires the entries that are not removed within a fixed time.

    All have the same time, so the first entry is always the next to expire. The timer is set for the entry that was
    first when it was set: at most once in that time, however many entries come and go.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self._seconds = seconds
        self._clock = clock
        self._open: dict[Expiring, float] = {}  # and when each expires, in this order
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # of the timer

    def __len__(self) -> int:
        return len(self._open)

    def add(self, entry: Expiring, now: float, loop: asyncio.AbstractEventLoop) -> None:
        """Adds an entry; `now` is the clock's time, and `loop` the running loop."""
        self._open[entry] = now + self._seconds
        if self._timer is None or self._loop is not loop:
            self._set_timer(loop, self._seconds)

    def remove(self, entry: Expiring) -> None:
        """Removes an entry, if it is there, before it expires."""
        self._open.pop(entry, None)

    def _set_timer(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._timer = loop.call_later(seconds, self._expire_late, loop)

    def _expire_late(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = self._clock()
        late: list[Expiring] = []
        for entry, expires_at in self._open.items():
            if expires_at > now:
                self._set_timer(loop, max(expires_at - now, _MIN_SECONDS))
                break
            late.append(entry)
        for entry in late:
            del self._open[entry]
        for entry in late:
            entry.expire()
