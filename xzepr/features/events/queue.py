"""The queue of events that wait for the recorder, with limits on number, bytes and time."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from xzepr.core.actor import Actor
from xzepr.core.errors import Overloaded, Problem
from xzepr.features.events.model import Accepted, Recorded

# Of payloads in one transaction. A single larger event gets its own transaction.
MAX_BATCH_BYTES = 8 * 1024 * 1024
MAX_QUEUE_BYTES = 64 * 1024 * 1024  # of payloads in the queue


class Call:
    """A call of the recorder, which waits for the results of all its events."""

    __slots__ = ("_missing", "finished", "results")

    def __init__(self, results: list[Recorded | Exception | None]) -> None:
        """`results` has None for each event that is to be recorded."""
        self.results = results
        self._missing = results.count(None)
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when no result is None. A caller that is cancelled cancels this future and nothing else."""
        if not self._missing:
            self.finished.set_result(None)

    def resolve(self, index: int, result: Recorded | Exception) -> None:
        """Sets the result of an event, unless it has one."""
        if self.results[index] is not None:
            return
        self.results[index] = result
        self._missing -= 1
        if not self._missing and not self.finished.done():
            self.finished.set_result(None)


@dataclass(slots=True, eq=False)
class Pending:
    """A queued event, and the call that waits for its result."""

    actor: Actor
    accepted: Accepted
    revision: int
    """The revision of the receiver's schema that accepted the payload; 0 if the payload was not validated."""
    row: tuple[bytes, ...]
    """The event as `batch_store.row_of` encodes it."""
    deadline: float
    """On the event loop's clock. The event is rejected if its transaction has not begun by then."""
    call: Call
    index: int
    """The event's place in the call."""

    @property
    def size(self) -> int:
        """The size of the payload in bytes."""
        return len(self.accepted.payload)

    def resolve(self, result: Recorded | Exception) -> None:
        """Gives the call the result of this event."""
        self.call.resolve(self.index, result)


class Queue:
    """A first-in, first-out queue. When it is full, new events are rejected at once."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._waiting: deque[Pending] = deque()
        self._bytes = 0
        self._stopped = False
        self._closed: Problem | None = None
        self._taker: asyncio.Future[None] | None = None  # resolved when `take` need not wait any longer

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, pendings: Sequence[Pending]) -> None:
        """Appends all events, or none and raises Overloaded. Raises the problem of `close` if the queue is closed."""
        size = sum([pending.size for pending in pendings])
        if self._closed is not None:
            raise self._closed
        is_full = len(self._waiting) + len(pendings) > self._size
        if is_full or (self._waiting and self._bytes + size > MAX_QUEUE_BYTES):
            raise Overloaded("too many events are waiting; nothing was recorded", retry_after=1)
        self._waiting.extend(pendings)
        self._bytes += size
        self._wake()

    async def take(self, limit: int) -> list[Pending]:
        """Waits for an event, then removes and returns up to `limit` events or MAX_BATCH_BYTES. Empty after `stop`."""
        while not self._waiting and not self._stopped:
            self._taker = asyncio.get_running_loop().create_future()
            await self._taker
        if self._stopped:
            return []
        batch = [self._pop()]
        size = batch[0].size
        while self._waiting and len(batch) < limit and size + self._waiting[0].size <= MAX_BATCH_BYTES:
            batch.append(self._pop())
            size += batch[-1].size
        return batch

    def reject_late(self, now: float) -> None:
        """Rejects events whose deadline has passed. The first event has the earliest deadline."""
        while self._waiting and self._waiting[0].deadline < now:
            late = self._pop()
            late.resolve(Overloaded("the event waited too long in the queue; it was not recorded", retry_after=1))

    def open(self) -> None:
        """Starts to accept events, and to return them."""
        self._closed = None
        self._stopped = False

    def stop(self) -> None:
        """Ends `take` without events. The queue still accepts them."""
        self._stopped = True
        self._wake()

    def close(self, problem: Problem) -> None:
        """Rejects the events in the queue, and every event until `open`, with `problem`."""
        self._closed = problem
        while self._waiting:
            self._pop().resolve(problem)

    def _wake(self) -> None:
        if self._taker is not None and not self._taker.done():
            self._taker.set_result(None)

    def _pop(self) -> Pending:
        pending = self._waiting.popleft()
        self._bytes -= pending.size
        return pending
