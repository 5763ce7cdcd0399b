"""Batches for graphql-core, which resolves the fields of each object separately.

The objects whose field is resolved in one iteration of the event loop get their values from one call. A plan does not
need this: it has all objects of a level at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, cast

from xzepr.infra.concurrency import retrieve_exception, shielded

# Takes the objects of a level and returns a value or an exception for each.
Load = Callable[[list[object]], object]


class Batches:
    """The batches of one operation, or of one message of a subscription. A context has them as `batches`."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[Hashable, tuple[list[object], asyncio.Task[Sequence[object]]]] = {}

    async def value(self, key: Hashable, source: object, load: Load) -> object:
        """Returns the value for one object. Raises its exception, or that of `load`. Batches have different keys.

        graphql-core cancels the siblings of a field that fails. That does not cancel the batch of other objects.
        """
        if (batch := self._open.get(key)) is None:
            sources: list[object] = []
            task = asyncio.create_task(self._run(key, sources, load))
            task.add_done_callback(retrieve_exception)
            batch = self._open[key] = sources, task
        sources, task = batch
        index = len(sources)
        sources.append(source)
        value = (await asyncio.shield(task))[index]
        if isinstance(value, Exception):
            raise value
        return value

    async def _run(self, key: Hashable, sources: list[object], load: Load) -> Sequence[object]:
        await asyncio.sleep(0)
        del self._open[key]
        return await values_for(sources, load(sources))


async def values_for(sources: Sequence[object], loading: object) -> list[object]:
    """Returns what a batch has loaded. Raises RuntimeError unless there is a value for each object."""
    values = cast(Any, await shielded(cast("Awaitable[Any]", loading)) if isinstance(loading, Awaitable) else loading)
    if len(values) != len(sources):
        raise RuntimeError("a batch must return a value for each object")
    return list(values)
