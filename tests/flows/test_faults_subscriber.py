"""A subscriber's process is frozen under load: it misses nothing when it goes on, and the others never notice."""

import asyncio
import itertools
import time
from contextlib import AsyncExitStack

import pytest

from tests.support.faults.lone_subscriber import LoneSubscriber, lone_subscriber
from tests.support.faults.run import LOAD_SECONDS, FaultRun, times_of
from tests.support.faults.stage import stage

pytestmark = pytest.mark.faults

LONGEST_DELAY_SECONDS = 5.0
"""Of the others, on a machine that is busy with everything at once; they have no other reason to wait."""


async def test_a_subscriber_is_frozen(request: pytest.FixtureRequest) -> None:
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
            await asyncio.sleep(3)
            for _ in range(times):
                await _freeze(run, lone, next(seconds))
                run.injections += 1
            await asyncio.sleep(3)
        await _reached(lone, await on.head())
        for one in lone:
            attendance = await one.end()
            assert attendance.attached <= 1 + times, attendance.troubles
            run.others.append(attendance)
        await run.judge(request.node)


async def _freeze(run: FaultRun, lone: list[LoneSubscriber], seconds: float) -> None:
    """Stops both for so long, watches the others meanwhile, and waits until both have caught up."""
    for one in lone:
        one.freeze()
    places = [one.reached for one in lone]
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await _all_within(run, await run.stage.head(), LONGEST_DELAY_SECONDS)
            await asyncio.sleep(0.5)
        head = await run.stage.head()
        assert all(head > place + 1000 for place in places), "too little happened meanwhile"
    finally:
        for one in lone:
            one.thaw()
    await _reached(lone, head)


async def _all_within(run: FaultRun, head: int, seconds: float) -> None:
    """Returns when every other subscriber that stays has come to that head; fails when that takes long."""
    staying = [one for one in run.subscribers if "staying" in one.attendance.name]
    async with asyncio.timeout(seconds):
        while min(one.reached for one in staying) < head:
            await asyncio.sleep(0.02)


async def _reached(lone: list[LoneSubscriber], head: int) -> None:
    async with asyncio.timeout(90):
        while min(one.reached for one in lone) < head:
            await asyncio.sleep(0.1)
