"""Turns on the event loop: who has much to send goes on for a moment at a time, so that nobody waits long for them.

A subscriber that catches up is never short of messages, and a socket that is read takes hundreds of frames before it
asks to wait. A thousand such subscribers would hold the loop for seconds at a time, and every create with them (see
`docs/adr/0027-catching-up-takes-turns.md`).
"""

import asyncio
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager

_TURN_SECONDS = 0.0005
"""How long somebody goes on before others get their turn."""
_PAUSE_SECONDS = 0.002
"""Between two turns while somebody waits for an answer, who so gets about four fifths of the loop."""
_MANY = 40
"""So many have to wait for their turns for a whole pause. A few cannot hold the loop, and would fall behind for good
where all that is recorded is a steady load: their pauses are as much shorter as they are fewer."""
_LINGER_SECONDS = 0.005
"""Who was answered may ask again at once."""


class Turn:
    """One subscriber's share of the loop. Who has waited for news begins with one."""

    __slots__ = ("_turns", "_until")

    def __init__(self, turns: "Turns") -> None:
        self._turns = turns
        self.begin()

    @property
    def is_over(self) -> bool:
        """Whether it is time to let others go on."""
        return time.monotonic() >= self._until

    def begin(self) -> None:
        """It lasts from now on."""
        self._until = time.monotonic() + _TURN_SECONDS

    async def next(self, *, behind: bool) -> None:
        """Returns with another turn. Who is behind the ring and who is not take theirs alternately, so that the one
        kind does not wait for the other, however many they are."""
        await self._turns.wait(behind)
        self.begin()


class Turns:
    """Gives turns, one after the other, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._waiting = deque[asyncio.Future[None]](), deque[asyncio.Future[None]]()
        """Who is in the ring, and who is behind it."""
        self._kind = 0
        self._gives = False
        self._hurried = 0
        self._hurried_until = 0.0

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
        loop = asyncio.get_running_loop()
        mine = loop.create_future()
        self._waiting[behind].append(mine)
        if not self._gives:
            self._gives = True
            loop.call_soon(self._give)
        await mine

    def _give(self) -> None:
        """One turn: it is taken in this round of the loop or the next, and another is given in a later one."""
        self._kind = 1 - self._kind
        self._gives = _give_first(self._waiting[self._kind]) or _give_first(self._waiting[1 - self._kind])
        if not self._gives:
            return
        loop = asyncio.get_running_loop()
        if seconds := self.pause:
            loop.call_later(seconds, self._give)
        else:
            loop.call_soon(self._give)

    @property
    def pause(self) -> float:
        """Seconds from this turn to the next one; 0 while nobody waits for an answer."""
        if not self._hurried and time.monotonic() >= self._hurried_until:
            return 0
        return _PAUSE_SECONDS * min(1.0, sum(map(len, self._waiting)) / _MANY)


def _give_first(waiting: "deque[asyncio.Future[None]]") -> bool:
    while waiting:
        mine = waiting.popleft()
        if not mine.done():  # who was cancelled has gone
            mine.set_result(None)
            return True
    return False
