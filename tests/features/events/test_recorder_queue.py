"""The recorder's queue is bounded by number, bytes and time."""

import asyncio

import pytest

from xzepr.core.actor import SYSTEM
from xzepr.core.errors import Overloaded
from xzepr.features.events import queue as queues
from xzepr.features.events.model import Accepted, NewEvent
from xzepr.features.events.queue import Pending, Queue

NEW = NewEvent("n", "v", "r", "p", "k", "d", None, True, "R")


def pending(size: int = 1, deadline: float = 1.0) -> Pending:
    return Pending(SYSTEM, Accepted("E", NEW, b"", b"x" * size, b"", 1), deadline)


async def test_call_that_does_not_fit_is_rejected_whole():
    queue = Queue(3)
    queue.put([pending(), pending()])
    with pytest.raises(Overloaded):
        queue.put([pending(), pending()])
    assert len(queue) == 2
    queue.put([pending()])


async def test_queue_bytes_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(queues, "MAX_QUEUE_BYTES", 10)
    queue = Queue(100)
    queue.put([pending(6), pending(6)])
    with pytest.raises(Overloaded):
        queue.put([pending(1)])
    assert [p.size for p in await queue.take(10)] == [6, 6]
    queue.put([pending(5), pending(5)])
    assert len(queue) == 2


async def test_batch_is_bounded_by_count_or_bytes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(queues, "MAX_BATCH_BYTES", 10)
    queue = Queue(100)
    sizes = [1, 2, 3, 4, 11, 1, 9, 1]
    queue.put([pending(size) for size in sizes])
    assert [[p.size for p in await queue.take(3)] for _ in range(5)] == [[1, 2, 3], [4], [11], [1, 9], [1]]


async def test_take_waits_for_first_event():
    queue = Queue(1)
    take = asyncio.create_task(queue.take(5))
    await asyncio.sleep(0)
    assert not take.done()
    first = pending()
    queue.put([first])
    assert await take == [first]


async def test_late_events_are_rejected():
    queue = Queue(3)
    late, later, in_time = pending(deadline=1), pending(deadline=2), pending(deadline=3)
    queue.put([late, later, in_time])
    queue.reject_late(2.5)
    for rejected in (late, later):
        with pytest.raises(Overloaded):
            await rejected.result
    assert await queue.take(5) == [in_time]


async def test_pending_event_is_settled_once():
    cancelled, rejected = pending(), pending()
    cancelled.result.cancel()
    cancelled.resolve(Overloaded("ignored"))
    rejected.resolve(Overloaded("first"))
    rejected.resolve(Overloaded("second"))
    with pytest.raises(Overloaded, match="first"):
        await rejected.result


async def test_closed_queue_rejects_all_events():
    queue = Queue(3)
    waiting_event = pending()
    queue.put([waiting_event])
    queue.close(Overloaded("stopping"))
    with pytest.raises(Overloaded, match="stopping"):
        await waiting_event.result
    with pytest.raises(Overloaded, match="stopping"):
        queue.put([pending()])
    assert len(queue) == 0
    queue.open()
    queue.put([pending()])
    assert len(queue) == 1
