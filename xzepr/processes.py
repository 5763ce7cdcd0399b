"""Which loops run in a process that serves, and what happens when one of them ends."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import structlog

from xzepr.core.errors import Problem
from xzepr.features.stream.processes import SERVE, Progress, forget_silent
from xzepr.features.stream.published import RelayState
from xzepr.hub import Hub

_HOUSEKEEPING_SECONDS = 60.0
_DESCRIPTION_SECONDS = 1.0
_log = structlog.stdlib.get_logger(__name__)


@asynccontextmanager
async def running(hub: Hub, role: str = SERVE) -> AsyncGenerator[None]:
    """Runs a web process's loops: the recorder, the feed, the relay and housekeeping. Returns once the feed knows the
    head of the stream; at the end the recorder finishes the batch in hand."""
    loops: dict[str, Callable[[], Awaitable[None]]] = {
        "feed": hub.feed.run,
        "recorder": hub.recorder.run,
        "relay": hub.relay.run,
        "housekeeping": lambda: _keep_house(hub),
        "description": lambda: _describe(hub, role),
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
        await forget_silent(hub.db)
        await hub.retention.enforce()
        await asyncio.sleep(_HOUSEKEEPING_SECONDS)


async def _describe(hub: Hub, role: str) -> None:
    """Tells the other processes once a second how this one is, and the metrics how far behind everything is. Nothing
    depends on it: while the database does not take it, the last figures stand."""
    await hub.feed.started()
    try:
        while True:
            with suppress(Problem, TimeoutError):
                await hub.process.describe(
                    hub.db,
                    role,
                    feed=hub.feed.head.position,
                    slowest=hub.feed.slowest,
                    relay=hub.relay.status,
                    queue=hub.recorder.waiting,
                )
            _measure(hub)
            await asyncio.sleep(_DESCRIPTION_SECONDS)
    finally:
        with suppress(Problem, TimeoutError):
            await hub.process.leave(hub.db)


def _measure(hub: Hub) -> None:
    metrics, lags, relay, clients = hub.metrics, hub.process.lags, hub.relay.status, hub.process.clients()
    metrics.connected("websocket", clients.websockets)
    metrics.connected("sse", clients.event_streams)
    metrics.feed_lagged(*_behind(lags.feed))
    metrics.subscriber_lagged(*_behind(lags.slowest_subscriber))
    metrics.relay_became(relay.route, relay.state)
    if lags.relay is not None and hub.settings.kafka.brokers:
        metrics.relay_lagged(relay.route, *_behind(lags.relay))
    if relay.state is not RelayState.STANDBY and relay.dead_letters is not None:
        metrics.dead_letters_wait(relay.route, relay.dead_letters)


def _behind(progress: Progress | None) -> tuple[int, float]:
    return (0, 0.0) if progress is None else (progress.lag, progress.lag_seconds)
