"""Callers share calls and batches; a cancelled caller does not cancel what others wait for."""

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence

import pytest

from xzepr.infra.concurrency import BatchLoader, SingleFlight, retrieve_exception


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


async def test_loader_that_keeps_batches_reads_keys_once() -> None:
    batches: list[list[int]] = []

    async def load(keys: Sequence[int]) -> dict[int, int]:
        batches.append(list(keys))
        return {key: key for key in keys if key != 3}

    loader = BatchLoader(load, keep=True)
    assert await asyncio.gather(*(loader.load(key) for key in (1, 3))) == [1, None]
    assert await asyncio.gather(*(loader.load(key) for key in (1, 2, 3))) == [1, 2, None]
    assert batches == [[1, 3], [2]]


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
