"""Who reads the stream through the feed of one process: how far each is, and how they wake up who wait for news."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

from xzepr.features.stream.turns import Turn, Turns, Waiting

_FEW = 20
"""So many may go on at the same moment: each sends a message or two, which takes them all about as long as a turn."""


class Reader:
    """Somebody who reads the stream, and how far they are."""

    __slots__ = ("position", "turn")

    def __init__(self, position: int, turn: Turn) -> None:
        self.position = position
        """All up to here was read and dealt with."""
        self.turn = turn
        """How long they go on before others do; it begins anew when they have waited for news."""


class Readers:
    """All of them."""

    def __init__(self) -> None:
        self.turns = Turns()
        self._here = set[Reader]()
        self._asleep = dict[Waiting, None]()
        """In the order in which they began to wait."""

    @contextmanager
    def reading(self, position: int) -> Generator[Reader]:
        """A reader, counted while the block lasts; who reads says in it how far they are."""
        reader = Reader(position, Turn(self.turns))
        self._here.add(reader)
        try:
            yield reader
        finally:
            self._here.discard(reader)

    @property
    def slowest(self) -> int | None:
        """The position of the reader that is most behind; None without readers. Looks at each: 1.5 ms for 20,000."""
        return min((reader.position for reader in self._here), default=None)

    async def sleep(self, reader: Reader) -> None:
        """Returns after the next `wake`, with a turn of the reader's. Where many sleep each wakes up when that has
        come: a thousand who go on together would hold the loop."""
        mine: Waiting = asyncio.get_running_loop().create_future()
        self._asleep[mine] = None
        try:
            in_turn = await mine
        finally:
            self._asleep.pop(mine, None)
        if in_turn:
            reader.turn.given(unused=True)
        else:
            reader.turn.begin()

    def wake(self) -> None:
        """There is news."""
        asleep, self._asleep = self._asleep, {}
        if len(asleep) > _FEW:
            self.turns.queue(asleep)
            return
        for one in asleep:
            if not one.done():
                one.set_result(False)
