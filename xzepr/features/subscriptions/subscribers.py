"""The subscribers of a process, and how each gets new messages: by a push if it can be sent at once, else by its task.

A task that wakes costs more than the frame that it sends. A subscriber that waits at the head of the stream and whose
client reads gets its messages without its task (see `docs/adr/0035-messages-are-pushed-to-waiting-subscribers.md`).
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from enum import Enum

from xzepr.features.subscriptions.scheduler import FairScheduler, TimeSlice, Waiter

_MAX_WOKEN_AT_ONCE = 20  # each sends a message or two, which together takes about one slice


class Pushed(Enum):
    """The outcome of a push."""

    ALL = "all"
    """The subscriber has reached the head of the stream."""
    SOME = "some"
    """The time slice was used up first."""
    BLOCKED = "blocked"
    """The subscriber's task has to continue, for example because the client does not read."""


Push = Callable[[], Pushed]  # sends a waiting subscriber's messages without its task, within its time slice


class Subscriber:
    """A reader of the stream and the position that it has reached."""

    __slots__ = ("_subscribers", "position", "push", "time_slice", "waiter")

    def __init__(self, position: int, time_slice: TimeSlice, subscribers: "Subscribers") -> None:
        self.position = position
        """Every message up to here was handled."""
        self.time_slice = time_slice
        self.push: Push | None = None
        self.waiter: Waiter | None = None
        """Wakes the subscriber's task; None while it runs."""
        self._subscribers = subscribers

    def grant(self) -> bool:
        """Lets the subscriber run in this round of the scheduler. Returns False if it no longer waits."""
        if self.waiter is None or self.waiter.done():
            return False
        self._subscribers.add_turn(self)
        return True

    def __enter__(self) -> "Subscriber":
        self._subscribers.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._subscribers.discard(self)


class Subscribers:
    """The subscribers of one feed: how far each one is, and which wait for new messages."""

    def __init__(self, scheduler: FairScheduler) -> None:
        self._scheduler = scheduler
        self._subscribers = set[Subscriber]()
        self._waiting = dict[Subscriber, None]()  # in the order in which they began to wait
        self._turns: list[Subscriber] = []  # of this round of the scheduler

    def subscribed(self, position: int) -> AbstractContextManager[Subscriber]:
        """Registers a subscriber while a block runs; its owner keeps `position` up to date."""
        return Subscriber(position, TimeSlice(self._scheduler), self)

    def add(self, subscriber: Subscriber) -> None:
        """Registers a subscriber."""
        self._subscribers.add(subscriber)

    def discard(self, subscriber: Subscriber) -> None:
        """Removes a subscriber."""
        self._subscribers.discard(subscriber)

    @property
    def slowest(self) -> int | None:
        """Position of the slowest subscriber; None without subscribers. Takes 1.5 ms for 20,000."""
        return min((subscriber.position for subscriber in self._subscribers), default=None)

    async def wait(self, subscriber: Subscriber, timeout_seconds: float) -> None:
        """Returns after the next `wake_all` or the timeout, with a time slice for the subscriber.

        While its pushes suffice, the subscriber keeps waiting.
        """
        loop = asyncio.get_running_loop()
        waiter: Waiter = loop.create_future()
        subscriber.waiter = waiter
        self._waiting[subscriber] = None
        timer = loop.call_later(timeout_seconds, _expire, waiter)
        try:
            was_scheduled = await waiter
        finally:
            timer.cancel()
            subscriber.waiter = None
            self._waiting.pop(subscriber, None)
        if was_scheduled:
            subscriber.time_slice.granted(unused=True)
        else:
            subscriber.time_slice.restart()

    def wake_all(self) -> None:
        """Lets waiting subscribers run: at once if they are few, else through the scheduler."""
        waiting, self._waiting = self._waiting, {}
        if len(waiting) > _MAX_WOKEN_AT_ONCE:
            self._scheduler.enqueue(waiting)
        elif waiting:
            asyncio.get_running_loop().call_soon(self._run_few, waiting)

    def add_turn(self, subscriber: Subscriber) -> None:
        """Lets a subscriber run in this round, after those that were added before."""
        if not self._turns:
            asyncio.get_running_loop().call_soon(self._run_turns)
        self._turns.append(subscriber)

    def _run_few(self, subscribers: Iterable[Subscriber]) -> None:
        for subscriber in subscribers:
            subscriber.time_slice.restart()
            self._run(subscriber, scheduled=False)

    def _run_turns(self) -> None:
        turns, self._turns = self._turns, []
        for subscriber in turns:
            subscriber.time_slice.granted(unused=True)
            self._run(subscriber, scheduled=True)

    def _run(self, subscriber: Subscriber, *, scheduled: bool) -> None:
        """Pushes to a waiting subscriber; wakes its task if that is not possible."""
        waiter, push = subscriber.waiter, subscriber.push
        if waiter is None or waiter.done():  # its task runs, or was cancelled
            return
        try:
            outcome = Pushed.BLOCKED if push is None else push()
        except Exception:  # the task tries again and handles the exception
            outcome = Pushed.BLOCKED
        if outcome is Pushed.ALL:
            self._waiting[subscriber] = None
        elif outcome is Pushed.SOME:
            self._scheduler.enqueue((subscriber,))
        else:
            waiter.set_result(scheduled)


def _expire(waiter: Waiter) -> None:
    if not waiter.done():
        waiter.set_result(False)
