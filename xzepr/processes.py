"""Which loops run in a process that serves, and what happens when one of them ends."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from xzepr.features.stream.relay import RelayState
from xzepr.hub import Hub

_HOUSEKEEPING_SECONDS = 60.0
_log = structlog.stdlib.get_logger(__name__)


@asynccontextmanager
async def running(hub: Hub) -> AsyncGenerator[None]:
    """Runs a web process's loops: the recorder, the feed, the relay and housekeeping. Returns once the feed knows the
    head of the stream; at the end the recorder finishes the batch in hand."""
    loops: dict[str, Callable[[], Awaitable[None]]] = {
        "feed": hub.feed.run,
        "recorder": hub.recorder.run,
        "relay": hub.relay.run,
        "housekeeping": lambda: _keep_house(hub),
        "relay metrics": lambda: _measure_relay(hub),
    }
    tasks = [asyncio.create_task(_forever(name, run), name=name) for name, run in loops.items()]
    try:
        await hub.feed.started()
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _forever(name: str, run: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await run()
        except Exception:
            _log.exception("loop.failed", loop=name)
        await asyncio.sleep(1)


async def _keep_house(hub: Hub) -> None:
    while True:
        await hub.stream.make_partitions(hub.settings.stream.partition_size)
        await hub.events.forget_keys()
        await asyncio.sleep(_HOUSEKEEPING_SECONDS)


async def _measure_relay(hub: Hub) -> None:
    await hub.feed.started()
    while True:
        status = hub.relay.status
        hub.metrics.relay_became(status.route, status.state)
        if status.state is not RelayState.STANDBY and (lag := status.lag(hub.feed.head.position)) is not None:
            hub.metrics.relay_lagged(status.route, lag)
        if status.state is not RelayState.STANDBY and status.dead_letters is not None:
            hub.metrics.dead_letters_wait(status.route, status.dead_letters)
        await asyncio.sleep(1)
