"""PostgreSQL in trouble while clients record: no connection is free, a writer freezes in its turn, the clock lies."""

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
from tests.faults.runner.postgres_faults import Clock, all_connections_taken, answer, old_server, turn
from tests.faults.runner.run import under_fault
from tests.faults.runner.stage import ServingHub, Stage, stage
from tests.support.postgres import temporary_folder

pytestmark = pytest.mark.faults

CREATE = "mutation ($input: CreateEventInput!) { createEvent(input: $input) { event { id createdAt recordedAt } } }"
LIMITS = {"XZEPR__DATABASE__LOCK_TIMEOUT_SECONDS": "2", "XZEPR__DATABASE__STATEMENT_TIMEOUT_SECONDS": "4"}


def event(on: Stage, **more: object) -> dict[str, object]:
    """An event beside those of the clients."""
    named = dict.fromkeys(("name", "version", "release", "platformId", "package", "description"), "x")
    payload = {"key": "beside"}
    return {**named, "payload": payload, "success": True, "eventReceiverId": on.receivers[0], **more}


async def test_all_database_connections_are_taken(request: pytest.FixtureRequest) -> None:
    async with AsyncExitStack() as open:
        folder = open.enter_context(temporary_folder(on_disk=True))
        small = {"max_connections": "60"}
        postgres = await open.enter_async_context(database_server(folder / "database", settings=small))
        on = await open.enter_async_context(stage(postgres=postgres))

        async def take(on: Stage) -> None:
            async with all_connections_taken(on.postgres):
                until = time.monotonic() + 4
                for hub in itertools.cycle(on.hubs):
                    refused = await answer(hub.port, on.secret, CREATE, input=event(on))
                    [error] = refused.json["errors"]
                    assert error["extensions"]["code"] in ("UNAVAILABLE", "OVERLOADED"), error
                    assert error["extensions"]["retryAfter"] > 0, error
                    if time.monotonic() > until:
                        return

        await under_fault("all connection slots taken", on, request.node, take, times=3)


@asynccontextmanager
async def _server(folder: Path, major: int) -> AsyncGenerator[DatabaseServer]:
    async with database_server(folder) if major == 18 else old_server(folder, major) as server:
        yield server


@pytest.mark.parametrize("major", [18, 15], ids=["PostgreSQL 18", "PostgreSQL 15"])
async def test_writer_freezes_while_holding_the_lock(request: pytest.FixtureRequest, major: int) -> None:
    async with AsyncExitStack() as open:
        folder = open.enter_context(temporary_folder(on_disk=True))
        postgres = await open.enter_async_context(_server(folder / "database", major))
        on = await open.enter_async_context(stage(postgres=postgres, environ=LIMITS))
        victims = itertools.cycle(on.hubs)

        async def freeze(on: Stage) -> None:
            victim = next(victims)
            stuck = await _frozen_in_its_turn(on, victim)
            try:
                await _others_go_on(on.postgres, stuck)
            finally:
                os.kill(victim.pid, signal.SIGCONT)

        name = "writer frozen between lock and COMMIT" + ("" if major == 18 else f", PostgreSQL {major}")
        await under_fault(name, on, request.node, freeze, times=3)


async def _frozen_in_its_turn(on: Stage, victim: ServingHub) -> object:
    """Stops the hub's process at one moment after another, until it is stopped while its session has the turn."""
    async with asyncio.timeout(30):
        while True:
            await asyncio.sleep(random.uniform(0.005, 0.05))
            os.kill(victim.pid, signal.SIGSTOP)
            first = await turn(on.postgres)
            await asyncio.sleep(0.3)
            if first is not None and first == await turn(on.postgres):
                return first[0]
            os.kill(victim.pid, signal.SIGCONT)


async def _others_go_on(postgres: DatabaseServer, stuck: object) -> None:
    """Returns when the stuck session has ended and messages are written again: after the time-outs, no later."""
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
        on = await open.enter_async_context(stage(postgres=postgres))
        hours = itertools.count(-1, -1)

        async def set_back(on: Stage) -> None:
            clock.put(next(hours))
            await asyncio.sleep(2)

        await under_fault("clock set back an hour", on, request.node, set_back, times=4)
        await _nothing_else_minds(on)


async def _nothing_else_minds(on: Stage) -> None:
    """With the clock hours behind: the database sees it, and who says when something happened, is believed."""
    [(behind,)] = await on.postgres.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
    assert time.time() - float(str(behind)) > 3500
    last = (await on.postgres.execute("SELECT max(time)::text FROM messages"))[0][0]
    now = datetime.now(UTC)
    made = (await on.ask(CREATE, input=event(on, createdAt=now.isoformat())))["createEvent"]["event"]
    assert datetime.fromisoformat(made["createdAt"]) == now
    assert datetime.fromisoformat(made["recordedAt"]) >= datetime.fromisoformat(f"{last}")
    ticket = await on.ask("mutation { createStreamTicket { ticket } }")
    assert ticket["createStreamTicket"]["ticket"]
    future = await answer(on.ports[0], on.secret, CREATE, input=event(on, createdAt="2099-01-01T00:00:00Z"))
    assert future.codes == ["INVALID_INPUT"]
