"""Processes are killed while clients record and subscribers follow: nothing is lost, and nothing comes twice."""

import asyncio
import itertools

import pytest

from tests.support.faults.run import under_fault
from tests.support.faults.stage import Stage, stage

pytestmark = pytest.mark.faults


async def test_kill_of_a_web_process(request: pytest.FixtureRequest) -> None:
    async with stage() as on:
        victims = itertools.cycle(on.hubs)

        async def kill(on: Stage) -> None:
            victim = next(victims)
            await victim.kill()
            await asyncio.sleep(1)
            await victim.start()

        await under_fault("kill -9 of a web process", on, request.node, kill, times=5)
