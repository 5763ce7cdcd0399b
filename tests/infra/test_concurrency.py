"""Callers share calls and batches; a cancelled caller does not cancel what others wait for."""

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from contextvars import ContextVar

import pytest

from xzepr.infra.concurrency import BatchLoader, SharedRead, SingleFlight, retrieve_exception


@pytest.fixture
async def logged() -> AsyncIterator[list[str]]:
    """Collects what asyncio logs about unhandled exceptions."""
    messages: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: messages.append(context["message"]))
    yield messages
    loop.set_exception_handler(None)


class Source:
    """A data source that counts its calls, and returns nothing until `released` is set."""

    def __init__(self) -> None:
        self.calls = 0
        self.released = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.calls += 1
        value = self.calls
        await self.released.wait()
        if self.error is not None:
            raise self.error
        return value


async def started(*calls: "asyncio.Task[int]") -> None:
    """Lets the tasks run until they wait."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(call.done() for call in calls)


# SingleFlight


async def test_callers_of_one_key_share_a_call() -> None:
    source, flight = Source(), SingleFlight[str, int]()
    calls = [asyncio.create_task(flight.run("a", source)) for _ in range(3)]
    await started(*calls)
    assert ("a" in flight, "b" in flight) == (True, False)
    joined = asyncio.create_task(flight.join("a"))
    await started(joined)
    source.released.set()
    assert await asyncio.gather(*calls, joined) == [1, 1, 1, 1]
    assert "a" not in flight
    assert await flight.run("a", source) == 2


async def test_keys_have_separate_calls() -> None:
    source, flight = Source(), SingleFlight[str, int]()
    source.released.set()
    assert await asyncio.gather(flight.run("a", source), flight.run("b", source)) == [1, 2]


async def test_cancelled_caller_does_not_cancel_the_call() -> None:
    source, flight = Source(), SingleFlight[str, int]()
    first = asyncio.create_task(flight.run("a", source))
    second = asyncio.create_task(flight.run("a", source))
    await started(first, second)
    first.cancel()
    await asyncio.wait([first])
    source.released.set()
    assert await second == 1
    assert first.cancelled()


async def test_error_reaches_all_callers() -> None:
    source, flight = Source(), SingleFlight[str, int]()
    source.error = OSError("source is down")
    calls = [asyncio.create_task(flight.run("a", source)) for _ in range(2)]
    await started(*calls)
    source.released.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert outcomes == [source.error, source.error]
    source.error = None
    assert await flight.run("a", source) == 2


async def test_error_without_callers_is_not_logged(logged: list[str]) -> None:
    source, flight = Source(), SingleFlight[str, int]()
    source.error = OSError("source is down")
    call = asyncio.create_task(flight.run("a", source))
    await started(call)
    call.cancel()
    await asyncio.wait([call])
    source.released.set()
    while "a" in flight:
        await asyncio.sleep(0)
    gc.collect()
    assert logged == []


async def test_forgotten_call_serves_its_callers_only() -> None:
    source, flight = Source(), SingleFlight[str, int]()
    current: list[bool] = []

    async def call() -> int:
        value = await source()
        current.append(flight.is_current("a"))
        return value

    before = asyncio.create_task(flight.run("a", call))
    await started(before)
    flight.forget("a")
    after = asyncio.create_task(flight.run("a", call))
    await started(after)
    source.released.set()
    assert (await before, await after) == (1, 2)
    assert current == [False, True]
    assert "a" not in flight


# SharedRead


class Reads:
    """A source of `SharedRead` that records its calls, each of which ends when the test releases it."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.tasks: list[asyncio.Task[object] | None] = []
        self._outcomes: list[asyncio.Future[int]] = []
        self.shared = SharedRead[str, int](self._read)

    async def _read(self, key: str) -> int:
        self.begun.append(key)
        self.tasks.append(asyncio.current_task())
        self._outcomes.append(asyncio.get_running_loop().create_future())
        return await self._outcomes[-1]

    def call(self, key: str = "a") -> "asyncio.Task[int]":
        return asyncio.create_task(self.shared.read(key))

    def end(self, call: int, outcome: int | Exception) -> None:
        """Ends a call, by its number from 0."""
        if isinstance(outcome, Exception):
            self._outcomes[call].set_exception(outcome)
        else:
            self._outcomes[call].set_result(outcome)

    def is_idle(self) -> bool:
        return "a" not in self.shared and "b" not in self.shared


async def test_read_is_shared_until_it_begins() -> None:
    reads = Reads()
    first = [reads.call() for _ in range(3)]
    await started(*first)
    assert reads.begun == ["a"]
    late = [reads.call() for _ in range(3)]
    await started(*first, *late)
    assert reads.begun == ["a"], "the next call waits for the end of the running one"
    reads.end(0, 1)
    assert await asyncio.gather(*first) == [1, 1, 1]
    await started(*late)
    assert reads.begun == ["a", "a"]
    reads.end(1, 2)
    assert await asyncio.gather(*late) == [2, 2, 2]
    assert reads.is_idle()


async def test_read_begins_in_the_next_iteration_of_the_loop() -> None:
    reads = Reads()
    call = reads.call()
    await asyncio.sleep(0)  # the caller runs
    assert reads.begun == []
    await asyncio.sleep(0)
    assert reads.begun == ["a"]
    reads.end(0, 1)
    assert await call == 1


async def test_reads_of_other_keys_run_at_once() -> None:
    reads = Reads()
    calls = [reads.call("a"), reads.call("b")]
    await started(*calls)
    assert reads.begun == ["a", "b"]
    reads.end(1, 2)
    assert await calls[1] == 2
    reads.end(0, 1)
    assert await calls[0] == 1
    assert reads.is_idle()


async def test_failed_read_fails_its_callers_alone() -> None:
    reads, error = Reads(), OSError("source is down")
    failed = [reads.call(), reads.call()]
    await started(*failed)
    later = reads.call()
    await started(later)
    reads.end(0, error)
    assert await asyncio.gather(*failed, return_exceptions=True) == [error, error]
    await started(later)
    reads.end(1, 2)
    assert await later == 2
    assert reads.is_idle()


async def test_cancelled_caller_does_not_cancel_shared_read() -> None:
    reads = Reads()
    cancelled, waiting = reads.call(), reads.call()
    await started(cancelled, waiting)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    reads.end(0, 1)
    assert await waiting == 1
    assert cancelled.cancelled()


async def test_read_without_callers_does_not_begin() -> None:
    reads = Reads()
    running = reads.call()
    await started(running)
    cancelled = reads.call()
    await started(cancelled)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    reads.end(0, 1)
    await running
    while not reads.is_idle():
        await asyncio.sleep(0)
    assert reads.begun == ["a"]


async def test_failed_read_without_callers_is_not_logged(logged: list[str]) -> None:
    reads = Reads()
    call = reads.call()
    await started(call)
    call.cancel()
    await asyncio.wait([call])
    reads.end(0, OSError("source is down"))
    while not reads.is_idle():
        await asyncio.sleep(0)
    gc.collect()
    assert logged == []


async def test_cancelled_read_cancels_waiting_callers() -> None:
    reads = Reads()
    running = reads.call()
    await started(running)
    waiting = reads.call()
    await started(waiting)
    (task,) = reads.tasks
    assert task is not None
    task.cancel()
    await asyncio.wait([running, waiting])
    assert running.cancelled()
    assert waiting.cancelled()
    assert reads.is_idle()


async def test_read_has_no_context_of_a_caller() -> None:
    request = ContextVar("request", default="none")
    seen: list[str] = []

    async def read(_: str) -> None:
        seen.append(request.get())

    request.set("first")
    await SharedRead(read).read("a")
    assert seen == ["none"]


# BatchLoader


async def test_simultaneous_keys_are_looked_up_in_one_batch() -> None:
    batches: list[list[int]] = []
    released = asyncio.Event()

    async def load(keys: Sequence[int]) -> dict[int, int]:
        batches.append(list(keys))
        await released.wait()
        return {key: key * key for key in keys if key != 3}

    loader = BatchLoader(load)
    first = [asyncio.create_task(loader.load(key)) for key in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    later = asyncio.create_task(loader.load(9))
    await asyncio.sleep(0)
    released.set()
    assert await asyncio.gather(*first) == [0, 1, 4, None, 16]
    assert await later == 81
    assert batches == [[0, 1, 2, 3, 4], [9]]


async def test_failed_lookup_fails_all_waiters() -> None:
    async def load(keys: Sequence[int]) -> dict[int, int]:
        await asyncio.sleep(0)
        if 1 in keys:
            raise OSError("source is down")
        return {key: key for key in keys}

    loader = BatchLoader(load)
    errors = await asyncio.gather(loader.load(1), loader.load(2), return_exceptions=True)
    assert [type(error) for error in errors] == [OSError, OSError]
    assert await loader.load(3) == 3, "a failure does not affect later lookups"


async def test_cancelled_waiter_does_not_cancel_lookup() -> None:
    async def load(keys: Sequence[int]) -> dict[int, int]:
        await asyncio.sleep(0)
        return {key: key for key in keys}

    loader = BatchLoader(load)
    cancelled, waiting = asyncio.create_task(loader.load(3)), asyncio.create_task(loader.load(4))
    await asyncio.sleep(0)
    cancelled.cancel()
    assert await waiting == 4


async def test_equal_keys_of_a_batch_are_read_once() -> None:
    batches: list[list[int]] = []

    async def load(keys: Sequence[int]) -> dict[int, int]:
        batches.append(list(keys))
        return {key: key for key in keys}

    loader = BatchLoader(load)
    assert await asyncio.gather(*(loader.load(key) for key in (1, 2, 1))) == [1, 2, 1]
    assert await loader.load(1) == 1
    assert batches == [[1, 2], [1]]


async def test_failed_batch_without_callers_is_not_logged(logged: list[str]) -> None:
    failed = asyncio.Event()

    async def load(_: Sequence[int]) -> dict[int, int]:
        await asyncio.sleep(0)
        failed.set()
        raise OSError("source is down")

    call = asyncio.create_task(BatchLoader(load).load(1))
    await asyncio.sleep(0)
    call.cancel()
    await failed.wait()
    await asyncio.sleep(0)
    gc.collect()
    assert logged == []


# retrieve_exception


async def test_retrieved_exception_is_not_logged(logged: list[str]) -> None:
    for error in (OSError("retrieved"), None):
        future = asyncio.get_running_loop().create_future()
        if error is not None:
            future.add_done_callback(retrieve_exception)
        future.set_exception(error or OSError("not retrieved"))
        await asyncio.sleep(0)
        del future
        gc.collect()
    assert logged == ["Future exception was never retrieved"]


async def test_cancelled_future_has_no_exception() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.add_done_callback(retrieve_exception)
    future.cancel()
    await asyncio.sleep(0)
    assert future.cancelled()
