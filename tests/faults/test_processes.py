"""Processes are killed while clients record and subscribers follow: nothing is lost, and nothing comes twice."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from tests.faults.runner.database import database_server
from tests.faults.runner.run import under_fault
from tests.faults.runner.stage import ServingHub, Stage, need_broker, stage
from tests.support.commit_proxy import Cut, wire
from tests.support.postgres import temporary_folder

pytestmark = pytest.mark.faults

BRIEF = {"XZEPR__DATABASE__LOCK_TIMEOUT_SECONDS": "3", "XZEPR__DATABASE__STATEMENT_TIMEOUT_SECONDS": "3"}
"""A server gives up a connection from which nothing comes after both of these and two seconds more."""
TAKEOVER_SECONDS = 5.0
"""In which a relay that was killed has a successor."""


async def test_web_process_is_killed(request: pytest.FixtureRequest) -> None:
    async with stage() as on:
        victims = itertools.cycle(on.hubs)

        async def kill(on: Stage) -> None:
            victim = next(victims)
            await victim.kill()
            await asyncio.sleep(1)
            await victim.start()

        await under_fault("kill -9 of a web process", on, request.node, kill, times=5)


async def test_relay_is_killed(request: pytest.FixtureRequest) -> None:
    async with stage(relays=2) as on:
        need_broker(on)

        async def kill(on: Stage) -> None:
            victim = await on.leader()
            killed_at = time.monotonic()
            await victim.kill()
            await _another_leads(on, victim, killed_at + TAKEOVER_SECONDS)
            await victim.start()

        await under_fault("kill -9 of the relay", on, request.node, kill, times=5)


async def _another_leads(on: Stage, victim: ServingHub, end: float) -> None:
    """Fails unless before the end another process says that its relay follows the stream."""
    try:
        assert await on.leader(end - time.monotonic()) is not victim
    except TimeoutError:
        words = "".join(line for relay in on.relays for line in relay.lines[-5:])
        pytest.fail(f"within {TAKEOVER_SECONDS:g} s of the kill no other relay took over:\n{words}")


async def test_postgresql_is_killed(request: pytest.FixtureRequest) -> None:
    async with stage() as on:
        ways: itertools.cycle[Callable[[], Awaitable[None]]] = itertools.cycle([on.postgres.crash, on.postgres.kill])

        async def kill(on: Stage) -> None:
            await next(ways)()
            await asyncio.sleep(0.5)
            await on.postgres.start()

        await under_fault("kill -9 of PostgreSQL", on, request.node, kill, times=4, every=4)


async def test_broker_is_down_for_half_a_minute(request: pytest.FixtureRequest) -> None:
    async with stage() as on:
        broker = need_broker(on)

        async def stop(on: Stage) -> None:
            await asyncio.to_thread(broker.stop)
            await asyncio.sleep(30)
            await on.start_broker()

        await under_fault("broker stopped for 30 s", on, request.node, stop, times=1)


async def test_broker_is_restarted(request: pytest.FixtureRequest) -> None:
    async with stage() as on:
        broker = need_broker(on)
        ways = itertools.cycle([broker.stop, broker.kill])

        async def restart(on: Stage) -> None:
            await asyncio.to_thread(next(ways))
            await on.start_broker()

        await under_fault("broker restarted", on, request.node, restart, times=4, every=4)


async def test_connection_is_cut_during_commit(request: pytest.FixtureRequest) -> None:
    async with AsyncExitStack() as open:
        folder = open.enter_context(temporary_folder(on_disk=True))
        postgres = await open.enter_async_context(database_server(folder / "database"))
        url, way = await open.enter_async_context(wire(postgres.url))
        on = await open.enter_async_context(stage(postgres=postgres, database_url=url, environ=BRIEF))
        manners = itertools.cycle(Cut)

        async def cut(on: Stage) -> None:
            way.was_cut.clear()
            way.cut = next(manners)
            async with asyncio.timeout(60):
                await way.was_cut.wait()

        await under_fault("connection cut in COMMIT", on, request.node, cut, times=12)
