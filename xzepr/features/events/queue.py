"""Events that wait for the recorder: bounded in number, bytes and time."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from xzepr.core.actor import Actor
from xzepr.core.errors import Overloaded, Problem
from xzepr.features.events.model import Accepted, Recorded
from xzepr.infra.concurrency import retrieve_exception

MAX_BATCH_BYTES = 8 * 1024 * 1024
"""Of payloads in one transaction; a larger single event goes alone."""
MAX_QUEUE_BYTES = 64 * 1024 * 1024


@dataclass(slots=True, eq=False)
class Pending:
    """One event on its way, and who waits for it."""

    actor: Actor
    accepted: Accepted
    deadline: float
    """On the loop's clock; past it, if its turn has not begun, it is refused."""
    result: "asyncio.Future[Recorded]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def size(self) -> int:
        """Bytes of its payload."""
        return len(self.accepted.payload)

    def resolve(self, outcome: Recorded | Exception) -> None:
        """Answers who waits, if somebody still does."""
        if self.result.done():
            return
        if isinstance(outcome, Exception):
            self.result.set_exception(outcome)
            retrieve_exception(self.result)
        else:
            self.result.set_result(outcome)


class Queue:
    """First in, first out. Full means refused at once, never memory."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._waiting: deque[Pending] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._closed: Problem | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, pendings: Sequence[Pending]) -> None:
        """Takes all of them, or raises Overloaded and takes none."""
        if self._closed is not None:
            raise self._closed
        size = sum(pending.size for pending in pendings)
        if len(self._waiting) + len(pendings) > self._size or (self._waiting and self._bytes + size > MAX_QUEUE_BYTES):
            raise Overloaded("too many events are waiting; nothing was recorded", retry_after=1)
        self._waiting.extend(pendings)
        self._bytes += size
        self._filled.set()

    async def take(self, limit: int) -> list[Pending]:
        """Waits for the first, and takes what stands behind it, up to `most` events or MAX_BATCH_BYTES."""
        while not self._waiting:
            self._filled.clear()
            await self._filled.wait()
        batch = [self._pop()]
        size = batch[0].size
        while self._waiting and len(batch) < limit and size + self._waiting[0].size <= MAX_BATCH_BYTES:
            batch.append(self._pop())
            size += batch[-1].size
        return batch

    def reject_late(self, now: float) -> None:
        """Refuses what has waited past its deadline. Deadlines grow along the queue."""
        while self._waiting and self._waiting[0].deadline < now:
            self._pop().resolve(
                Overloaded("the event waited too long for its turn; it was not recorded", retry_after=1)
            )

    def open(self) -> None:
        """Somebody takes from now on."""
        self._closed = None

    def close(self, problem: Problem) -> None:
        """Nobody takes any more: refuses everything that waits, and whatever comes."""
        self._closed = problem
        while self._waiting:
            self._pop().resolve(problem)

    def _pop(self) -> Pending:
        pending = self._waiting.popleft()
        self._bytes -= pending.size
        return pending
