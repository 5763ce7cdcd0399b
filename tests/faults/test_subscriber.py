"""A subscriber's process is frozen under load: it misses nothing when it goes on, and the others never notice."""

import asyncio
import itertools
import time
from contextlib import AsyncExitStack
from statistics import median

import pytest

from tests.faults.runner.run import LOAD_SECONDS, FaultRun, times_of
from tests.faults.runner.stage import stage
from tests.faults.runner.subscriber_process import LoneSubscriber, lone_subscriber

pytestmark = pytest.mark.faults


async def test_subscriber_process_is_frozen(request: pytest.FixtureRequest) -> None:
    async with AsyncExitStack() as open:
        on = await open.enter_async_context(stage())
        run, times = FaultRun("subscriber frozen", on), times_of(2)
        cursor = await on.cursor()
        lone = [
            await open.enter_async_context(lone_subscriber(f"lone {transport}", transport, on.ports, on.secret, cursor))
            for transport in ("websocket", "sse")
        ]
        seconds = itertools.cycle([20, 25, 30])
        async with asyncio.timeout(LOAD_SECONDS + times * 120 + 240), run.loaded():
            for _ in range(times):
                usual = await _usual_delay(run)
                delays = await _freeze(run, lone, next(seconds))
                assert median(delays) < 2 * usual + 0.5, (usual, delays)
                run.injections += 1
            await asyncio.sleep(3)
        await _reached(lone, await on.head())
        for one in lone:
            attendance = await one.end()
            assert attendance.attached <= 1 + times, attendance.troubles
            run.others.append(attendance)
        await run.judge(request.node)


async def _freeze(run: FaultRun, lone: list[LoneSubscriber], seconds: float) -> list[float]:
    """Stops both for so long, and waits until both have caught up; the delays of the others meanwhile."""
    for one in lone:
        one.freeze()
    places, delays = [one.reached for one in lone], list[float]()
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            delays.append(await _delay(run))
            await asyncio.sleep(0.3)
        head = await run.stage.head()
        assert all(head > place + 1000 for place in places), "too little happened meanwhile"
    finally:
        for one in lone:
            one.thaw()
    await _reached(lone, head)
    return delays


async def _usual_delay(run: FaultRun) -> float:
    """What the machine makes the others wait just now, with nobody frozen."""
    delays: list[float] = []
    for _ in range(10):
        delays.append(await _delay(run))
        await asyncio.sleep(0.3)
    return median(delays)


async def _delay(run: FaultRun) -> float:
    """Seconds until every other subscriber that stays has come to what is the head now."""
    staying = [one for one in run.subscribers if "staying" in one.attendance.name]
    began, head = time.monotonic(), await run.stage.head()
    async with asyncio.timeout(30):
        while min(one.reached for one in staying) < head:
            await asyncio.sleep(0.02)
    return time.monotonic() - began


async def _reached(lone: list[LoneSubscriber], head: int) -> None:
    async with asyncio.timeout(90):
        while min(one.reached for one in lone) < head:
            await asyncio.sleep(0.1)
