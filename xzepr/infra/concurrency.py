"""Shared work on the event loop: one call for many callers, and one read for many keys."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from functools import partial
from typing import Any, Generic, TypeVar, cast

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")


def retrieve_exception(future: "asyncio.Future[Any]") -> None:
    """Marks the exception of a finished future as retrieved, so that asyncio does not log it if nothing awaits it."""
    if not future.cancelled():
        future.exception()


async def shielded(awaitable: Awaitable[T]) -> T:
    """Awaits a value and does not cancel a shared future.

    If another task cancels the future, that is an ordinary error. If this task is cancelled, it raises CancelledError.
    """
    if asyncio.isfuture(awaitable):
        awaitable = asyncio.shield(cast("asyncio.Future[T]", awaitable))
    try:
        return await awaitable
    except asyncio.CancelledError:
        if is_cancelled():
            raise
        raise cancelled_by_another() from None


def is_cancelled() -> bool:
    """Returns whether the current task is being cancelled. True outside a task."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def cancelled_by_another() -> RuntimeError:
    """Returns the error of a CancelledError that another task has caused."""
    return RuntimeError("a future that this field awaited was cancelled by another task")


class SingleFlight(Generic[K, V]):
    """Makes one call per key at a time; callers that come while it runs share its outcome.

    A cancelled caller does not cancel the call. An exception reaches all callers, and is not logged if none is left.
    """

    def __init__(self) -> None:
        self._calls: dict[K, asyncio.Future[V]] = {}

    def __contains__(self, key: K) -> bool:
        """Returns whether a call for the key is running."""
        return key in self._calls

    async def run(self, key: K, call: Callable[[], Awaitable[V]]) -> V:
        """Returns the result of the running call for the key, or of a new one."""
        if (future := self._calls.get(key)) is None:
            future = self.start(key, call())
        return await asyncio.shield(future)

    def start(self, key: K, awaitable: Awaitable[V]) -> "asyncio.Future[V]":
        """Makes this the running call for the key, for which none may run; `join` returns its result."""
        future = self._calls[key] = asyncio.ensure_future(awaitable)
        future.add_done_callback(partial(self._done, key))
        return future

    async def join(self, key: K) -> V:
        """Returns the result of the call for the key, which must be running."""
        return await asyncio.shield(self._calls[key])

    def is_current(self, key: K) -> bool:
        """Returns whether the current task is the call for the key. It no longer is after `forget`."""
        return self._calls.get(key) is asyncio.current_task()

    def forget(self, key: K) -> None:
        """Makes the next caller start a new call. A running one still serves the callers that wait for it."""
        self._calls.pop(key, None)

    def _done(self, key: K, future: "asyncio.Future[V]") -> None:
        if self._calls.get(key) is future:
            del self._calls[key]
        retrieve_exception(future)


class SharedRead(Generic[K, V]):
    """Makes one call per key at a time, each for all callers that came before it began.

    A call that has begun may miss what a caller has just written, so later callers share the next call, which begins
    when the current one ends. A cancelled caller does not cancel the call. An exception reaches all callers of a call.
    """

    def __init__(self, read: Callable[[K], Awaitable[V]]) -> None:
        self._read = read
        self._callers: dict[K, list[asyncio.Future[V]]] = {}  # of the calls that have not begun, by key
        self._tasks: dict[K, asyncio.Task[None]] = {}  # that make the calls, by key

    def __contains__(self, key: K) -> bool:
        """Returns whether a call for the key is running or about to begin."""
        return key in self._tasks

    async def read(self, key: K) -> V:
        """Returns the result of a call that has not begun yet. It begins at once unless another one runs."""
        caller: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        if (callers := self._callers.get(key)) is not None:
            callers.append(caller)
        else:
            self._callers[key] = [caller]
            if key not in self._tasks:
                # The context of one caller, such as its request's id, does not hold for the others.
                self._tasks[key] = asyncio.create_task(self._serve(key), context=Context())
        return await caller

    async def _serve(self, key: K) -> None:
        try:
            while (callers := self._callers.pop(key, None)) is not None:
                await self._call(key, callers)
        finally:
            del self._tasks[key]
            for caller in self._callers.pop(key, ()):  # only if this task was cancelled, at the end of the loop
                caller.cancel()

    async def _call(self, key: K, callers: list["asyncio.Future[V]"]) -> None:
        if all(caller.cancelled() for caller in callers):
            return
        try:
            value = await self._read(key)
        except Exception as error:
            for caller in callers:
                if not caller.done():
                    caller.set_exception(error)
        except BaseException:
            for caller in callers:
                caller.cancel()
            raise
        else:
            for caller in callers:
                if not caller.done():
                    caller.set_result(value)


class BatchLoader(Generic[K, V]):
    """Reads all keys that are requested in one iteration of the event loop with one call.

    Each batch has one task, not one future per key as in Strawberry's DataLoader. The task is shielded: a cancelled
    caller does not cancel a batch that others wait for.
    """

    def __init__(self, read: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]) -> None:
        """`read` returns the values that exist."""
        self._read = read
        self._keys: dict[K, None] = {}  # of the next batch, in the order of their requests
        self._next: asyncio.Task[Mapping[K, V]] | None = None

    async def load(self, key: K) -> V | None:
        """Returns the value of a key; None if it has none. Raises what `read` raises."""
        if self._next is None:
            self._next = asyncio.create_task(self._run())
            self._next.add_done_callback(retrieve_exception)
        self._keys[key] = None
        return (await asyncio.shield(self._next)).get(key)

    async def _run(self) -> Mapping[K, V]:
        await asyncio.sleep(0)
        keys, self._keys, self._next = list(self._keys), {}, None
        return await self._read(keys)
