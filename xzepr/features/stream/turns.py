"""Turns on the event loop: who has much to send goes on for a moment at a time, so that nobody waits long for them.

A subscriber that catches up is never short of messages, and a socket that is read takes hundreds of frames before it
asks to wait; a thousand who follow wake up at the same moment. They would hold the loop for seconds or for tens of
milliseconds at a time, and every create with them (see `docs/adr/0027-catching-up-takes-turns.md`).
"""

import asyncio
import time
from collections import deque
from collections.abc import Generator, Iterable
from contextlib import contextmanager

_ROUND_SECONDS = 0.0005
"""How long those go on, together, who are given their turns at once."""
_MOST_AT_ONCE = 64
_SHARES = 1.0, 4.0
"""While somebody waits for an answer, the pause after a round as a multiple of what the round took: who is in the ring
has half of the loop, or would fall behind where the processor has time for all; who is behind has a fifth."""
_LEAST_PAUSE_SECONDS = 0.001
"""Timers know no shorter ones: what is less is added up until it is as long."""
_MOST_PAUSE_SECONDS = 0.05
"""Also after a process stood still in the middle of a round, as a frozen one does."""
_LINGER_SECONDS = 0.005
"""Who was answered may ask again at once."""

Waiting = asyncio.Future[bool]
"""Done when somebody may go on: True when that is a turn that was given."""


class Turn:
    """One subscriber's share of the loop."""

    __slots__ = ("_turns", "_until", "_unused")

    def __init__(self, turns: "Turns") -> None:
        self._turns = turns
        self._unused = False
        self.begin()

    def is_spent(self) -> bool:
        """Whether it is time to let others go on: never before something was done with it."""
        if self._unused:
            self._unused = False
            return False
        return time.monotonic() >= self._until

    def begin(self) -> None:
        """It lasts from now on, without having been given: nobody was kept waiting."""
        self._until = time.monotonic() + _ROUND_SECONDS

    def given(self, *, unused: bool = False) -> None:
        """It was given just now, and lasts as long as those of all who were given theirs together; `unused`: the next
        thing is done with it in any case, also where others took all the time."""
        self._until = self._turns.round_ends
        self._unused = unused

    async def next(self, *, behind: bool) -> None:
        """Returns with another turn. Who is behind the ring and who is not take theirs alternately, so that the one
        kind does not wait for the other, however many they are."""
        await self._turns.wait(behind)
        self.given()


class _Kind:
    """Those who wait for a turn, in the order in which they asked, and how many are given theirs at once: as many as
    fill a round. Who has one message takes a twentieth of it, who has more takes all of it."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.waiting = deque[Waiting]()
        self._at_once = 1

    def give(self) -> bool:
        """Gives the first few their turns; whether there was anybody. Who was cancelled has gone."""
        given = 0
        while self.waiting and given < self._at_once:
            if not (mine := self.waiting.popleft()).done():
                mine.set_result(True)
                given += 1
        return given > 0

    def took(self, seconds: float) -> None:
        """So long went on whoever was given their turns."""
        if seconds < _ROUND_SECONDS / 2:
            self._at_once = min(self._at_once * 2, _MOST_AT_ONCE)
        elif seconds > _ROUND_SECONDS * 2:
            self._at_once = max(self._at_once // 2, 1)


class Turns:
    """Gives turns, one round after the other."""

    def __init__(self) -> None:
        self._kinds = tuple(_Kind(share) for share in _SHARES)
        """Who is in the ring, and who is behind it."""
        self._last = 0
        self._gives = False
        self._round_began = 0.0
        self._owed = 0.0
        self._hurried = 0
        self._hurried_until = 0.0
        self.round_ends = 0.0
        """When those who go on now have had their time."""

    @contextmanager
    def hurry(self) -> Generator[None]:
        """Somebody waits for an answer while the block lasts: turns are then given less often."""
        self._hurried += 1
        try:
            yield
        finally:
            self._hurried -= 1
            self._hurried_until = time.monotonic() + _LINGER_SECONDS

    async def wait(self, behind: bool) -> None:
        """Returns when it is the caller's turn."""
        mine: Waiting = asyncio.get_running_loop().create_future()
        self.queue((mine,), behind=behind)
        await mine

    def queue(self, waiting: Iterable[Waiting], *, behind: bool = False) -> None:
        """Each of these is done when it is its turn."""
        self._kinds[behind].waiting.extend(waiting)
        if not self._gives:
            self._gives = True
            asyncio.get_running_loop().call_soon(self._give)

    def _give(self) -> None:
        """One round. Who is given a turn goes on between the two calls that are put around them here."""
        loop = asyncio.get_running_loop()
        loop.call_soon(self._begin)
        for kind in (1 - self._last, self._last):
            if self._kinds[kind].give():
                self._last = kind
                loop.call_soon(self._end)
                return
        self._gives = False

    def _begin(self) -> None:
        self._round_began = time.monotonic()
        self.round_ends = self._round_began + _ROUND_SECONDS

    def _end(self) -> None:
        kind, now = self._kinds[self._last], time.monotonic()
        kind.took(now - self._round_began)
        hurried = self._hurried or now < self._hurried_until
        self._owed = self._owed + (now - self._round_began) * kind.share if hurried else 0.0
        loop = asyncio.get_running_loop()
        if self._owed < _LEAST_PAUSE_SECONDS:
            loop.call_soon(self._give)
        else:
            loop.call_later(min(self._owed, _MOST_PAUSE_SECONDS), self._give)
            self._owed = 0.0
