"""Cooperative scheduling of subscribers on the event loop: they run in time slices, so that requests are not delayed.

A subscriber that catches up never runs out of messages, and a socket accepts hundreds of frames before it blocks. A
thousand live subscribers wake at the same moment. Without time slices either would hold the loop for tens of
milliseconds up to seconds (see `docs/adr/0027-fair-scheduling-of-catch-up-subscribers.md`).
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from typing import Protocol

_SLICE_SECONDS = 0.0005  # for all subscribers of one round together
_MAX_PER_ROUND = 64
# Shares of the loop while a request is in flight. Live subscribers need half: with less they would fall behind the ring
# on a machine that has time for all of them.
_LIVE_SHARE = 0.5
_CATCH_UP_SHARE = 0.2
_MIN_PAUSE_SECONDS = 0.001  # the resolution of timers; shorter pauses add up until they are as long
_MAX_PAUSE_SECONDS = 0.05  # also after the process was frozen in the middle of a round
_LINGER_SECONDS = 0.005  # a client that got its response may send the next request at once

Waiter = asyncio.Future[bool]  # done when its owner may run; True if the scheduler granted the time slice


class Turn(Protocol):
    """A claim to a time slice."""

    def grant(self) -> bool:
        """Lets the owner run in this round. Returns False if it no longer waits."""
        ...


class _TaskTurn:
    """The turn of a task."""

    __slots__ = ("waiter",)

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter

    def grant(self) -> bool:
        """Wakes the task, unless it was cancelled."""
        if self.waiter.done():
            return False
        self.waiter.set_result(True)
        return True


class TimeSlice:
    """One subscriber's share of the event loop."""

    __slots__ = ("_scheduler", "_until", "_unused")

    def __init__(self, scheduler: "FairScheduler") -> None:
        self._scheduler = scheduler
        self._unused = False
        self.restart()

    def is_used_up(self) -> bool:
        """Returns whether the subscriber has to yield. The first call after `granted(unused=True)` returns False."""
        if self._unused:
            self._unused = False
            return False
        return time.monotonic() >= self._until

    def restart(self) -> None:
        """Starts a slice now, without waiting for the scheduler: the time before it was spent idle."""
        self._until = time.monotonic() + _SLICE_SECONDS

    def granted(self, *, unused: bool = False) -> None:
        """Starts the slice that the scheduler has just granted; it ends with the round.

        `unused`: the subscriber may do one thing even if the others of the round took all the time.
        """
        self._until = self._scheduler.round_ends_at
        self._unused = unused

    async def next(self, *, catching_up: bool) -> None:
        """Waits for the next slice. Live and catch-up subscribers alternate, so neither kind starves the other."""
        await self._scheduler.wait(catching_up)
        self.granted()


class _RunQueue:
    """Subscribers of one kind that wait for a slice, first come first served.

    The number released in one round adapts so that they fill the round: sending one message takes a twentieth of it,
    catching up takes all of it.
    """

    def __init__(self, share: float) -> None:
        self.pause_factor = (1 - share) / share
        self.waiting = deque[Turn]()
        self._per_round = 1

    def release(self) -> bool:
        """Grants slices to the first few; returns False if none was waiting. Cancelled waiters are skipped."""
        released = 0
        while self.waiting and released < self._per_round:
            released += self.waiting.popleft().grant()
        return released > 0

    def consumed(self, seconds: float) -> None:
        """Adapts the number per round to the time that the last round took."""
        if seconds < _SLICE_SECONDS / 2:
            self._per_round = min(self._per_round * 2, _MAX_PER_ROUND)
        elif seconds > _SLICE_SECONDS * 2:
            self._per_round = max(self._per_round // 2, 1)


class _InFlight:
    """A context in which a request runs. One object serves all requests: it has no state for each."""

    def __init__(self, scheduler: "FairScheduler") -> None:
        self._scheduler = scheduler

    def __enter__(self) -> None:
        self._scheduler.request_began()

    def __exit__(self, *_: object) -> None:
        self._scheduler.request_ended()


class FairScheduler:
    """Grants time slices, round after round, and pauses between rounds while a request is in flight."""

    def __init__(self) -> None:
        self._queues = _RunQueue(_LIVE_SHARE), _RunQueue(_CATCH_UP_SHARE)
        self._last = 0
        self._is_running = False
        self._round_started_at = 0.0
        self._owed_seconds = 0.0
        self._in_flight = 0
        self._in_flight_until = 0.0
        self.round_ends_at = 0.0
        """Monotonic time at which the slices of the current round end."""
        self._requests = _InFlight(self)

    def request_in_flight(self) -> "_InFlight":
        """Returns a context that gives requests priority over subscribers while its block runs."""
        return self._requests

    def request_began(self) -> None:
        """Counts a request."""
        self._in_flight += 1

    def request_ended(self) -> None:
        """Stops counting a request. Requests keep their priority for a moment, because others often follow."""
        self._in_flight -= 1
        self._in_flight_until = time.monotonic() + _LINGER_SECONDS

    async def wait(self, catching_up: bool) -> None:
        """Returns when the caller is granted a slice."""
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self.enqueue((_TaskTurn(waiter),), catching_up=catching_up)
        await waiter

    def enqueue(self, turns: Iterable[Turn], *, catching_up: bool = False) -> None:
        """Queues turns; each is granted once, in order."""
        self._queues[catching_up].waiting.extend(turns)
        if not self._is_running:
            self._is_running = True
            asyncio.get_running_loop().call_soon(self._run_round)

    def _run_round(self) -> None:
        # Released subscribers run between the two callbacks that are scheduled around them here.
        loop = asyncio.get_running_loop()
        loop.call_soon(self._start_round)
        for kind in (1 - self._last, self._last):
            if self._queues[kind].release():
                self._last = kind
                loop.call_soon(self._end_round)
                return
        self._is_running = False

    def _start_round(self) -> None:
        self._round_started_at = time.monotonic()
        self.round_ends_at = self._round_started_at + _SLICE_SECONDS

    def _end_round(self) -> None:
        queue, now = self._queues[self._last], time.monotonic()
        seconds = now - self._round_started_at
        queue.consumed(seconds)
        has_requests = self._in_flight or now < self._in_flight_until
        self._owed_seconds = self._owed_seconds + seconds * queue.pause_factor if has_requests else 0.0
        loop = asyncio.get_running_loop()
        if self._owed_seconds < _MIN_PAUSE_SECONDS:
            loop.call_soon(self._run_round)
        else:
            loop.call_later(min(self._owed_seconds, _MAX_PAUSE_SECONDS), self._run_round)
            self._owed_seconds = 0.0
