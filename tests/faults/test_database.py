"""PostgreSQL faults under load: no free connection, a paused writer, a wrong clock. No promise is broken."""

import asyncio
import itertools
import os
import random
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.faults.runner.database import DatabaseServer, database_server
from tests.faults.runner.deployment import Deployment, HubProcess, deployment
from tests.faults.runner.fault_run import under_fault
from tests.faults.runner.postgres_faults import (
    Clock,
    all_connections_taken,
    graphql_response,
    old_server,
    writer_lock_holder,
)
from tests.support.postgres import temporary_folder

pytestmark = pytest.mark.faults

CREATE = "mutation ($input: CreateEventInput!) { createEvent(input: $input) { event { id occurredAt recordedAt } } }"
TIMEOUTS = {"XZEPR__DATABASE__LOCK_TIMEOUT_SECONDS": "2", "XZEPR__DATABASE__STATEMENT_TIMEOUT_SECONDS": "4"}


def event(system: Deployment, **fields: object) -> dict[str, object]:
    """Returns the input of an event outside the workload."""
    texts = dict.fromkeys(("name", "version", "release", "platformId", "package", "description"), "x")
    payload = {"key": "beside"}
    return {**texts, "payload": payload, "success": True, "eventReceiverId": system.receivers[0], **fields}


async def test_all_database_connections_are_taken(request: pytest.FixtureRequest) -> None:
    async with AsyncExitStack() as open:
        folder = open.enter_context(temporary_folder(on_disk=True))
        settings = {"max_connections": "60"}
        postgres = await open.enter_async_context(database_server(folder / "database", settings=settings))
        system = await open.enter_async_context(deployment(postgres=postgres))

        async def take(system: Deployment) -> None:
            async with all_connections_taken(system.postgres):
                end = time.monotonic() + 4
                for hub in itertools.cycle(system.hubs):
                    response = await graphql_response(hub.port, system.secret, CREATE, input=event(system))
                    [error] = response.json["errors"]
                    assert error["extensions"]["code"] in ("UNAVAILABLE", "OVERLOADED"), error
                    assert error["extensions"]["retryAfter"] > 0, error
                    if time.monotonic() > end:
                        return

        await under_fault("all connection slots taken", system, request.node, take, times=3)


@asynccontextmanager
async def _server(folder: Path, major: int) -> AsyncGenerator[DatabaseServer]:
    async with database_server(folder) if major == 18 else old_server(folder, major) as server:
        yield server


@pytest.mark.parametrize("major", [18, 15], ids=["PostgreSQL 18", "PostgreSQL 15"])
async def test_writer_freezes_while_holding_the_lock(request: pytest.FixtureRequest, major: int) -> None:
    async with AsyncExitStack() as open:
        folder = open.enter_context(temporary_folder(on_disk=True))
        postgres = await open.enter_async_context(_server(folder / "database", major))
        system = await open.enter_async_context(deployment(postgres=postgres, environ=TIMEOUTS))
        victims = itertools.cycle(system.hubs)

        async def freeze(system: Deployment) -> None:
            victim = next(victims)
            stuck = await _pause_while_writing(system, victim)
            try:
                await _wait_for_other_writers(system.postgres, stuck)
            finally:
                os.kill(victim.pid, signal.SIGCONT)

        name = "writer paused between lock and COMMIT" + ("" if major == 18 else f", PostgreSQL {major}")
        await under_fault(name, system, request.node, freeze, times=3)


async def _pause_while_writing(system: Deployment, victim: HubProcess) -> object:
    """Pauses the hub repeatedly until its session holds the writer lock. Returns the session's process id."""
    async with asyncio.timeout(30):
        while True:
            await asyncio.sleep(random.uniform(0.005, 0.05))
            os.kill(victim.pid, signal.SIGSTOP)
            first = await writer_lock_holder(system.postgres)
            await asyncio.sleep(0.3)
            if first is not None and first == await writer_lock_holder(system.postgres):
                return first[0]
            os.kill(victim.pid, signal.SIGCONT)


async def _wait_for_other_writers(postgres: DatabaseServer, stuck: object) -> None:
    """Waits until the stuck session has ended and messages are written again. Fails if the timeouts do not do that."""
    async with asyncio.timeout(2 + 4 + 2 + 4):
        while await postgres.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (stuck,)):
            await asyncio.sleep(0.1)
        head = "SELECT max(position) FROM messages"
        before = await postgres.execute(head)
        while await postgres.execute(head) == before:
            await asyncio.sleep(0.1)


async def test_database_clock_is_set_back_an_hour(request: pytest.FixtureRequest) -> None:
    async with AsyncExitStack() as open:
        folder = open.enter_context(temporary_folder(on_disk=True))
        clock = Clock(folder)
        postgres = await open.enter_async_context(database_server(folder / "database", environ=clock.environ))
        system = await open.enter_async_context(deployment(postgres=postgres))
        hours = itertools.count(-1, -1)

        async def set_back(system: Deployment) -> None:
            clock.set_offset(next(hours))
            await asyncio.sleep(2)

        await under_fault("clock set back an hour", system, request.node, set_back, times=4)
        await _other_times_are_right(system)


async def _other_times_are_right(system: Deployment) -> None:
    """Checks that a wrong database clock affects neither the times of clients nor tickets nor the order of events."""
    [(database_time,)] = await system.postgres.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
    assert time.time() - float(str(database_time)) > 3500
    last = (await system.postgres.execute("SELECT max(time)::text FROM messages"))[0][0]
    now = datetime.now(UTC)
    created = (await system.graphql(CREATE, input=event(system, occurredAt=now.isoformat())))["createEvent"]["event"]
    assert datetime.fromisoformat(created["occurredAt"]) == now
    assert datetime.fromisoformat(created["recordedAt"]) >= datetime.fromisoformat(f"{last}")
    ticket = await system.graphql("mutation { createStreamTicket { ticket } }")
    assert ticket["createStreamTicket"]["ticket"]
    future = await graphql_response(
        system.ports[0], system.secret, CREATE, input=event(system, occurredAt="2099-01-01T00:00:00Z")
    )
    assert future.codes == ["INVALID_INPUT"]
