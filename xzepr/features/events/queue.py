"""The queue of events that wait for the recorder, with limits on number, bytes and time."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from xzepr.core.actor import Actor
from xzepr.core.errors import Overloaded, Problem
from xzepr.features.events.model import Accepted, Recorded
from xzepr.infra.concurrency import retrieve_exception

# Of payloads in one transaction. A single larger event gets its own transaction.
MAX_BATCH_BYTES = 8 * 1024 * 1024
MAX_QUEUE_BYTES = 64 * 1024 * 1024  # of payloads in the queue


@dataclass(slots=True, eq=False)
class Pending:
    """A queued event, and the future that its caller awaits."""

    actor: Actor
    accepted: Accepted
    deadline: float
    """On the event loop's clock. The event is rejected if its transaction has not begun by then."""
    result: "asyncio.Future[Recorded]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def size(self) -> int:
        """The size of the payload in bytes."""
        return len(self.accepted.payload)

    def resolve(self, outcome: Recorded | Exception) -> None:
        """Completes the future, unless the caller has cancelled it."""
        if self.result.done():
            return
        if isinstance(outcome, Exception):
            self.result.set_exception(outcome)
            retrieve_exception(self.result)
        else:
            self.result.set_result(outcome)


class Queue:
    """A first-in, first-out queue. When it is full, new events are rejected at once."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._waiting: deque[Pending] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._closed: Problem | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, pendings: Sequence[Pending]) -> None:
        """Appends all events, or none and raises Overloaded. Raises the problem of `close` if the queue is closed."""
        if self._closed is not None:
            raise self._closed
        size = sum(pending.size for pending in pendings)
        if len(self._waiting) + len(pendings) > self._size or (self._waiting and self._bytes + size > MAX_QUEUE_BYTES):
            raise Overloaded("too many events are waiting; nothing was recorded", retry_after=1)
        self._waiting.extend(pendings)
        self._bytes += size
        self._filled.set()

    async def take(self, limit: int) -> list[Pending]:
        """Waits for an event, then removes and returns up to `limit` events or MAX_BATCH_BYTES."""
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
        """Rejects events whose deadline has passed. The first event has the earliest deadline."""
        while self._waiting and self._waiting[0].deadline < now:
            self._pop().resolve(
                Overloaded("the event waited too long in the queue; it was not recorded", retry_after=1)
            )

    def open(self) -> None:
        """Starts to accept events."""
        self._closed = None

    def close(self, problem: Problem) -> None:
        """Rejects the events in the queue, and every event until `open`, with `problem`."""
        self._closed = problem
        while self._waiting:
            self._pop().resolve(problem)

    def _pop(self) -> Pending:
        pending = self._waiting.popleft()
        self._bytes -= pending.size
        return pending
