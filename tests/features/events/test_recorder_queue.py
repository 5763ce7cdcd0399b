"""The recorder's queue is bounded by number, bytes and time, and loses no event."""

import asyncio

import pytest

from tests.support.hub import until
from xzepr.core.actor import SYSTEM
from xzepr.core.errors import Overloaded
from xzepr.features.events import queue as queues
from xzepr.features.events.model import Accepted, NewEvent
from xzepr.features.events.queue import Call, Pending, Queue

NEW = NewEvent("n", "v", "r", "p", "k", "d", None, True, "R")


def pending(size: int = 1, deadline: float = 1.0) -> Pending:
    return Pending(SYSTEM, Accepted("E", NEW, (), b"", b"x" * size, None), 1, (), deadline, Call([None]), 0)


async def outcome(pending: Pending) -> object:
    """Returns the result of an event's call. Raises it if it is an exception."""
    await pending.call.finished
    [result] = pending.call.results
    if isinstance(result, Exception):
        raise result
    return result


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
    await asyncio.sleep(0.05)
    assert not take.done()
    first = pending()
    queue.put([first])
    assert await take == [first]


async def test_puts_of_one_loop_iteration_are_one_batch():
    queue, loop = Queue(10), asyncio.get_running_loop()
    take = asyncio.create_task(queue.take(10))
    await asyncio.sleep(0)
    sent = [pending() for _ in range(5)]
    for event in sent:
        loop.call_soon(queue.put, [event])
    assert await take == sent


async def test_late_events_are_rejected():
    queue = Queue(3)
    late, later, in_time = pending(deadline=1), pending(deadline=2), pending(deadline=3)
    queue.put([late, later, in_time])
    queue.reject_late(2.5)
    for rejected in (late, later):
        with pytest.raises(Overloaded):
            await outcome(rejected)
    assert await queue.take(5) == [in_time]


async def test_pending_event_is_settled_once():
    cancelled, rejected = pending(), pending()
    cancelled.call.finished.cancel()
    cancelled.resolve(Overloaded("ignored"))
    rejected.resolve(Overloaded("first"))
    rejected.resolve(Overloaded("second"))
    with pytest.raises(Overloaded, match="first"):
        await outcome(rejected)


async def test_call_is_finished_when_all_events_have_results():
    problem = Overloaded("before the queue")
    call = Call([None, problem, None])
    call.resolve(0, Overloaded("a"))
    call.resolve(0, Overloaded("ignored"))
    assert not call.finished.done()
    call.resolve(2, Overloaded("b"))
    await call.finished
    assert [str(result) for result in call.results] == ["a", "before the queue", "b"]
    assert Call([problem]).finished.done(), "it has no event in the queue"


async def test_closed_queue_rejects_all_events():
    queue = Queue(3)
    waiting_event = pending()
    queue.put([waiting_event])
    queue.close(Overloaded("stopping"))
    with pytest.raises(Overloaded, match="stopping"):
        await outcome(waiting_event)
    with pytest.raises(Overloaded, match="stopping"):
        queue.put([pending()])
    assert len(queue) == 0
    queue.open()
    queue.put([pending()])
    assert len(queue) == 1


async def test_stopped_queue_returns_no_events():
    queue = Queue(3)
    take = asyncio.create_task(queue.take(5))
    await asyncio.sleep(0)
    queue.stop()
    assert await take == []
    queue.put([pending()])
    assert await queue.take(5) == []
    assert len(queue) == 1, "it waits until the queue is closed or opened"
    queue.open()
    assert len(await queue.take(5)) == 1


async def test_cancelled_take_loses_no_event():
    queue, first = Queue(3), pending()
    take = asyncio.create_task(queue.take(5))
    await asyncio.sleep(0)
    queue.put([first])  # wakes the task, which is cancelled before it runs
    take.cancel()
    await asyncio.wait([take])
    assert take.cancelled()
    assert await queue.take(5) == [first]


async def test_concurrent_take_loses_no_event():
    queue, taken = Queue(10_000), list[Pending]()

    async def take_all() -> None:
        while batch := await queue.take(7):
            taken.extend(batch)
            await asyncio.sleep(0)

    taker = asyncio.create_task(take_all())
    sent = [pending() for _ in range(3_000)]
    for start in range(0, len(sent), 3):
        queue.put(sent[start : start + 3])
        if start % 7 == 0:
            await asyncio.sleep(0)
    await until(lambda: len(queue) == 0)
    queue.stop()
    await taker
    assert taken == sent
