"""A subscriber's process is paused under load. It misses nothing after it resumes, and the others are not delayed."""

import asyncio
import itertools
import time
from contextlib import AsyncExitStack
from statistics import median

import pytest

from tests.faults.runner.deployment import deployment
from tests.faults.runner.fault_run import WORKLOAD_SECONDS, FaultRun, injection_count
from tests.faults.runner.subscriber_process import SubscriberProcess, subscriber_process

pytestmark = pytest.mark.faults


async def test_subscriber_process_is_frozen(request: pytest.FixtureRequest) -> None:
    async with AsyncExitStack() as open:
        system = await open.enter_async_context(deployment())
        run, times = FaultRun("subscriber paused", system), injection_count(2)
        cursor = await system.cursor()
        victims = [
            await open.enter_async_context(
                subscriber_process(f"paused {transport}", transport, system.ports, system.secret, cursor)
            )
            for transport in ("websocket", "sse")
        ]
        seconds = itertools.cycle([20, 25, 30])
        async with asyncio.timeout(WORKLOAD_SECONDS + times * 120 + 240), run.under_load():
            for _ in range(times):
                normal = await _normal_delay(run)
                delays = await _freeze(run, victims, next(seconds))
                assert median(delays) < 2 * normal + 0.5, (normal, delays)
                run.injections += 1
            await asyncio.sleep(3)
        await _wait_until_reached(victims, await system.head())
        for victim in victims:
            record = await victim.end()
            assert record.connections <= 1 + times, record.retry_reasons
            run.extra_records.append(record)
        await run.check(request.node)


async def _freeze(run: FaultRun, victims: list[SubscriberProcess], seconds: float) -> list[float]:
    """Pauses the victims for `seconds`, then waits until they have caught up. Returns the delays of the others."""
    for victim in victims:
        victim.freeze()
    positions, delays = [victim.reached for victim in victims], list[float]()
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            delays.append(await _delay(run))
            await asyncio.sleep(0.3)
        head = await run.system.head()
        assert all(head > position + 1000 for position in positions), "fewer than 1000 messages during the pause"
    finally:
        for victim in victims:
            victim.thaw()
    await _wait_until_reached(victims, head)
    return delays


async def _normal_delay(run: FaultRun) -> float:
    """Returns the median delay of the other subscribers while none is paused."""
    delays: list[float] = []
    for _ in range(10):
        delays.append(await _delay(run))
        await asyncio.sleep(0.3)
    return median(delays)


async def _delay(run: FaultRun) -> float:
    """Returns the seconds until every permanent subscriber has reached the current head."""
    permanent = [subscriber for subscriber in run.subscribers if not subscriber.reconnecting]
    began, head = time.monotonic(), await run.system.head()
    async with asyncio.timeout(30):
        while min(subscriber.reached for subscriber in permanent) < head:
            await asyncio.sleep(0.02)
    return time.monotonic() - began


async def _wait_until_reached(victims: list[SubscriberProcess], head: int) -> None:
    async with asyncio.timeout(90):
        while min(victim.reached for victim in victims) < head:
            await asyncio.sleep(0.1)
