"""Processes are killed and connections are cut under load. Nothing is lost or duplicated."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from tests.faults.runner.database import database_server
from tests.faults.runner.deployment import Deployment, HubProcess, deployment, need_broker
from tests.faults.runner.fault_run import under_fault
from tests.support.commit_proxy import Cut, commit_proxy
from tests.support.postgres import temporary_folder

pytestmark = pytest.mark.faults

# A hub closes a silent connection after the sum of both and two seconds more.
SHORT_TIMEOUTS = {"XZEPR__DATABASE__LOCK_TIMEOUT_SECONDS": "3", "XZEPR__DATABASE__STATEMENT_TIMEOUT_SECONDS": "3"}
TAKEOVER_SECONDS = 5.0  # until another relay leads after the leader was killed


async def test_web_process_is_killed(request: pytest.FixtureRequest) -> None:
    async with deployment() as system:
        victims = itertools.cycle(system.hubs)

        async def kill(system: Deployment) -> None:
            victim = next(victims)
            await victim.kill()
            await asyncio.sleep(1)
            await victim.start()

        await under_fault("kill -9 of a web process", system, request.node, kill, times=5)


async def test_relay_is_killed(request: pytest.FixtureRequest) -> None:
    async with deployment(relays=2) as system:
        need_broker(system)

        async def kill(system: Deployment) -> None:
            victim = await system.leader()
            killed_at = time.monotonic()
            await victim.kill()
            await _wait_for_new_leader(system, victim, killed_at + TAKEOVER_SECONDS)
            await victim.start()

        await under_fault("kill -9 of the relay", system, request.node, kill, times=5)


async def _wait_for_new_leader(system: Deployment, victim: HubProcess, end: float) -> None:
    """Waits until another process reports that its relay follows the stream. Fails after the time `end`."""
    try:
        assert await system.leader(end - time.monotonic()) is not victim
    except TimeoutError:
        log = "".join(line for relay in system.relays for line in relay.lines[-5:])
        pytest.fail(f"no other relay took over within {TAKEOVER_SECONDS:g} s of the kill:\n{log}")


async def test_postgresql_is_killed(request: pytest.FixtureRequest) -> None:
    async with deployment() as system:
        postgres = system.postgres
        endings: itertools.cycle[Callable[[], Awaitable[None]]] = itertools.cycle([postgres.crash, postgres.kill])

        async def kill(system: Deployment) -> None:
            await next(endings)()
            await asyncio.sleep(0.5)
            await system.postgres.start()

        await under_fault("kill -9 of PostgreSQL", system, request.node, kill, times=4, every=4)


async def test_broker_is_down_for_half_a_minute(request: pytest.FixtureRequest) -> None:
    async with deployment() as system:
        broker = need_broker(system)

        async def stop(system: Deployment) -> None:
            await asyncio.to_thread(broker.stop)
            await asyncio.sleep(30)
            await system.start_broker()

        await under_fault("broker stopped for 30 s", system, request.node, stop, times=1)


async def test_broker_is_restarted(request: pytest.FixtureRequest) -> None:
    async with deployment() as system:
        broker = need_broker(system)
        endings = itertools.cycle([broker.stop, broker.kill])

        async def restart(system: Deployment) -> None:
            await asyncio.to_thread(next(endings))
            await system.start_broker()

        await under_fault("broker restarted", system, request.node, restart, times=4, every=4)


async def test_connection_is_cut_during_commit(request: pytest.FixtureRequest) -> None:
    async with AsyncExitStack() as open:
        folder = open.enter_context(temporary_folder(on_disk=True))
        postgres = await open.enter_async_context(database_server(folder / "database"))
        url, way = await open.enter_async_context(commit_proxy(postgres.url))
        system = await open.enter_async_context(deployment(postgres=postgres, database_url=url, environ=SHORT_TIMEOUTS))
        manners = itertools.cycle(Cut)

        async def cut(system: Deployment) -> None:
            way.was_cut.clear()
            way.cut = next(manners)
            async with asyncio.timeout(60):
                await way.was_cut.wait()

        await under_fault("connection cut in COMMIT", system, request.node, cut, times=12)
