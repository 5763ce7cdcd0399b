"""The background loops of a process: which ones run, and how they are restarted."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress

import structlog

from xzepr.core.errors import Problem
from xzepr.features.processes.service import SERVE, WORK, Progress, remove_silent
from xzepr.features.relay.model import RelayStatus
from xzepr.hub import Core, Hub

_HOUSEKEEPING_SECONDS = 60.0
_REPORT_SECONDS = 1.0
_log = structlog.stdlib.get_logger(__name__)


@asynccontextmanager
async def serving_loops(hub: Hub, role: str = SERVE) -> AsyncGenerator[None]:
    """Runs the loops of a serving process: recorder, feed, relay, housekeeping and status reports.

    The block starts once the feed knows the head of the stream. At its end the recorder finishes its current batch.
    """
    loops = _loops(hub, role, lambda: hub.recorder.queue_length)
    async with _running(hub, {**loops, "recorder": hub.recorder.run}):
        yield


@asynccontextmanager
async def relay_loops(core: Core) -> AsyncGenerator[None]:
    """Runs the loops of a process without clients: all but the recorder."""
    async with _running(core, _loops(core, WORK, lambda: 0)):
        yield


def _loops(core: Core, role: str, queue_length: Callable[[], int]) -> dict[str, Callable[[], Awaitable[None]]]:
    return {
        "feed": core.feed.run,
        "relay": core.relay.run,
        "housekeeping": lambda: _run_housekeeping(core),
        "metrics": core.metrics.run,
        "status report": lambda: _report_status(core, role, queue_length),
    }


@asynccontextmanager
async def _running(core: Core, loops: Mapping[str, Callable[[], Awaitable[None]]]) -> AsyncGenerator[None]:
    tasks = [asyncio.create_task(_keep_running(name, run), name=name) for name, run in loops.items()]
    try:
        await core.feed.started()
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _keep_running(name: str, run: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await run()
        except Problem as problem:  # the database is down
            _log.warning("loop.interrupted", loop=name, error=problem.message)
        except Exception:
            _log.exception("loop.failed", loop=name)
        await asyncio.sleep(1)


async def _run_housekeeping(core: Core) -> None:
    while True:
        await core.stream.make_partitions(core.settings.stream.partition_size)
        await core.events.delete_old_keys()
        await core.retention.enforce()
        await remove_silent(core.db)
        await asyncio.sleep(_HOUSEKEEPING_SECONDS)


async def _report_status(core: Core, role: str, queue_length: Callable[[], int]) -> None:
    """Reports this process's status to the database and the lags to the metrics, once a second.

    Nothing depends on these reports: while the database is down, the last figures stay.
    """
    await core.feed.started()
    relayed = 0
    try:
        while True:
            with suppress(Problem, TimeoutError):
                await core.process.report(
                    core.db,
                    role,
                    feed_position=core.feed.head.position,
                    slowest_position=core.feed.subscribers.slowest,
                    relay=_relay_status(core),
                    recorder_queue=queue_length(),
                )
            core.metrics.set_queue_size(queue_length())
            _update_metrics(core)
            relay = core.relay.status
            if relay.published_messages > relayed:
                core.metrics.messages_relayed(relay.route, relay.published_messages - relayed)
                relayed = relay.published_messages
            await asyncio.sleep(_REPORT_SECONDS)
    finally:
        with suppress(Problem, TimeoutError):
            await core.process.remove_report(core.db)


def _relay_status(core: Core) -> RelayStatus | None:
    """Returns the relay's status; None in a process that neither relays nor has brokers configured."""
    kafka = core.settings.kafka
    return core.relay.status if kafka.enabled or kafka.brokers else None


def _update_metrics(core: Core) -> None:
    metrics, lags, relay, clients = core.metrics, core.process.lags, core.relay.status, core.process.clients()
    metrics.set_connections("websocket", clients.websockets)
    metrics.set_connections("sse", clients.event_streams)
    metrics.set_feed_lag(*_lag_of(lags.feed))
    metrics.set_subscriber_lag(*_lag_of(lags.slowest_subscriber))
    metrics.set_relay_state(relay.route, relay.state)
    if lags.relay is not None and core.settings.kafka.brokers:
        metrics.set_relay_lag(relay.route, *_lag_of(lags.relay))
        metrics.set_dead_letters(relay.route, lags.dead_letters)


def _lag_of(progress: Progress | None) -> tuple[int, float]:
    return (0, 0.0) if progress is None else (progress.lag, progress.lag_seconds)
