"""The queue of events that wait for the recorder, with limits on number, bytes and time."""

import asyncio
import threading
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
    """A first-in, first-out queue. When it is full, new events are rejected at once.

    The recorder's thread takes events from it. All other methods are called on the event loop.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._waiting: deque[Pending] = deque()
        self._bytes = 0
        self._changed = threading.Condition(threading.Lock())  # guards all fields; notified when `take` need not wait
        self._stopped = False
        self._closed: Problem | None = None
        self._will_notify = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, pendings: Sequence[Pending]) -> None:
        """Appends all events, or none and raises Overloaded. Raises the problem of `close` if the queue is closed.

        A waiting `take` returns once the callbacks that are ready have run.
        """
        size = sum([pending.size for pending in pendings])
        with self._changed:
            if self._closed is not None:
                raise self._closed
            is_full = len(self._waiting) + len(pendings) > self._size
            if is_full or (self._waiting and self._bytes + size > MAX_QUEUE_BYTES):
                raise Overloaded("too many events are waiting; nothing was recorded", retry_after=1)
            self._waiting.extend(pendings)
            self._bytes += size
        if not self._will_notify:
            self._will_notify = True
            asyncio.get_running_loop().call_soon(self._notify)

    def _notify(self) -> None:
        # After the other callbacks of this iteration of the loop. Their events then belong to the same batch, and the
        # recorder's thread does not compete for the interpreter with them.
        self._will_notify = False
        with self._changed:
            self._changed.notify()

    def take(self, limit: int) -> list[Pending]:
        """Waits for an event, then removes and returns up to `limit` events or MAX_BATCH_BYTES. Empty after `stop`."""
        with self._changed:
            while not self._waiting and not self._stopped:
                self._changed.wait()
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
        late: list[Pending] = []
        with self._changed:
            while self._waiting and self._waiting[0].deadline < now:
                late.append(self._pop())
        for pending in late:
            pending.resolve(Overloaded("the event waited too long in the queue; it was not recorded", retry_after=1))

    def open(self) -> None:
        """Starts to accept events, and to return them."""
        with self._changed:
            self._closed = None
            self._stopped = False

    def stop(self) -> None:
        """Ends `take` without events. The queue still accepts them."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def close(self, problem: Problem) -> None:
        """Rejects the events in the queue, and every event until `open`, with `problem`."""
        with self._changed:
            self._closed = problem
            rejected = [self._pop() for _ in range(len(self._waiting))]
        for pending in rejected:
            pending.resolve(problem)

    def _pop(self) -> Pending:
        pending = self._waiting.popleft()
        self._bytes -= pending.size
        return pending
