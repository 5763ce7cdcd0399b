"""The recorder's transactions: failures in each stage of a batch, and cancellation."""

import asyncio
from collections.abc import Collection
from typing import Any

import psycopg
import pytest

from tests.support.hub import (
    MANAGER,
    execute,
    hub_on,
    kinds,
    new_event,
    new_receiver,
    running_hub,
    terminate,
    until,
    waiting_for_locks,
    writer_lock_held,
)
from tests.support.silent_proxy import silent_proxy
from xzepr.core.errors import Problem, Unavailable
from xzepr.features.events import recorder
from xzepr.features.events.batch import Batch
from xzepr.features.events.catalog import KnownCatalog, Standing
from xzepr.features.events.model import Recorded
from xzepr.features.events.queue import Pending, Queue
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.service import Committed
from xzepr.hub import Hub
from xzepr.infra.pipeline import Pipeline
from xzepr.settings import Settings

SHORT_TIMEOUTS = {"lock_timeout_seconds": 0.5, "statement_timeout_seconds": 0.5}


async def stored(database_url: str) -> list[tuple[Any, ...]]:
    """Returns the names of all events in order."""
    return await execute(database_url, "SELECT name FROM events ORDER BY position")


def fail_once(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, error: BaseException) -> None:
    """Replaces a method by one that raises an error at its first call."""
    method = getattr(owner, name)
    errors = [error]

    def replacement(*arguments: Any) -> Any:
        if errors:
            raise errors.pop()
        return method(*arguments)

    monkeypatch.setattr(owner, name, replacement)


# Failures ------------------------------------------------------------------------------------------


async def test_idle_connection_that_ends_is_replaced(hub: Hub, database_url: str):
    build = await new_receiver(hub)
    for name in ("first", "second", "third"):
        await hub.recorder.record(MANAGER, new_event(build, name=name))
        pipeline = hub.recorder._committer._pipeline  # pyright: ignore[reportPrivateUsage]
        assert pipeline is not None
        assert await terminate(database_url, "xzepr hub recorder") == 1
        await until(lambda pipeline=pipeline: pipeline.is_lost)
    assert await stored(database_url) == [("first",), ("second",), ("third",)]


async def test_lost_idle_connection_is_reported(hub: Hub, database_url: str):
    build = await new_receiver(hub)
    await hub.recorder.record(MANAGER, new_event(build, name="first"))
    call = asyncio.create_task(hub.recorder.record(MANAGER, new_event(build, name="lost")))
    await asyncio.sleep(0)  # the recorder is woken, and runs before the loop can notice the loss
    terminate_unnoticed(database_url)
    with pytest.raises(Unavailable, match="not recorded"):
        await call
    await hub.recorder.record(MANAGER, new_event(build, name="second"))
    assert await stored(database_url) == [("first",), ("second",)]


def terminate_unnoticed(database_url: str) -> None:
    """Terminates the recorder's session without an iteration of the event loop."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'xzepr hub recorder'"
        )


@pytest.mark.parametrize("noticed", [False, True])
async def test_connection_lost_between_round_trips(
    hub: Hub, database_url: str, monkeypatch: pytest.MonkeyPatch, noticed: bool
):
    build = await new_receiver(hub)
    await hub.recorder.record(MANAGER, new_event(build, name="first"))
    standings = KnownCatalog.standings

    async def lost(self: KnownCatalog, pipeline: Pipeline, token: str, ids: Collection[str]) -> dict[str, Standing]:
        terminate_unnoticed(database_url)
        if noticed:
            await until(lambda: pipeline.is_lost)
        return await standings(self, pipeline, token, ids)

    monkeypatch.setattr(KnownCatalog, "standings", lost)
    with pytest.raises(Unavailable, match="not recorded"):
        await hub.recorder.record(MANAGER, new_event(build, name="lost"))
    monkeypatch.setattr(KnownCatalog, "standings", standings)
    await hub.recorder.record(MANAGER, new_event(build, name="second"))
    assert await stored(database_url) == [("first",), ("second",)]


async def test_silent_read_is_reported_as_not_recorded(database_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recorder, "_GRACE_SECONDS", 0.2)
    async with silent_proxy(database_url) as (url, proxy), running_hub(url, database=SHORT_TIMEOUTS) as hub:
        build = await new_receiver(hub)
        await hub.recorder.record(MANAGER, new_event(build, name="first"))
        assert proxy.silence("xzepr hub recorder") == 1
        with pytest.raises(Unavailable, match="not recorded"):
            await hub.recorder.record(MANAGER, new_event(build, name="lost"))
        await hub.recorder.record(MANAGER, new_event(build, name="second"))
    assert await stored(database_url) == [("first",), ("second",)]


async def test_silent_preparation_is_reported_as_not_recorded(database_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("xzepr.infra.pipeline._SETUP_TIMEOUT_SECONDS", 0.3)
    async with silent_proxy(database_url) as (url, proxy), running_hub(url) as hub:
        build = await new_receiver(hub)
        proxy.silence_next("xzepr hub recorder", b"insert events")
        with pytest.raises(Unavailable, match="not recorded"):
            await hub.recorder.record(MANAGER, new_event(build, name="lost"))
        await hub.recorder.record(MANAGER, new_event(build, name="first"))
    assert await stored(database_url) == [("first",)]


async def test_unreachable_database_is_reported(database_url: str):
    async with running_hub(database_url) as hub:
        build = await new_receiver(hub)
        await hub.recorder.record(MANAGER, new_event(build, name="first"))
        name = (await execute(database_url, "SELECT current_database()"))[0][0]
        await execute(database_url, f'ALTER DATABASE "{name}" CONNECTION LIMIT 0')  # pyright: ignore[reportArgumentType]
        hub.recorder._committer.disconnect()  # pyright: ignore[reportPrivateUsage]
        outcome = (await asyncio.gather(hub.recorder.record(MANAGER, new_event(build)), return_exceptions=True))[0]
        assert isinstance(outcome, Problem), outcome
        assert outcome.retry_after is not None


@pytest.mark.parametrize("error", [RuntimeError("a bug"), MemoryError()])
async def test_error_before_commit_fails_one_event(
    hub: Hub, database_url: str, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    build = await new_receiver(hub)
    place = Batch._place  # pyright: ignore[reportPrivateUsage]

    def fail(self: Batch, pending: Pending, *arguments: Any) -> Any:
        if pending.accepted.new.name == "bug":
            raise error
        return place(self, pending, *arguments)

    monkeypatch.setattr(Batch, "_place", fail)
    results = await hub.recorder.record_all(MANAGER, [new_event(build, name=name) for name in ("a", "bug", "b")])
    assert [type(result) for result in results] == [Recorded, Problem, Recorded]
    assert await stored(database_url) == [("a",), ("b",)]
    assert await kinds(hub) == [Kind.RECEIVER_CREATED, Kind.EVENT_RECORDED, Kind.EVENT_RECORDED]


async def test_error_after_commit_was_sent_is_resolved(hub: Hub, database_url: str, monkeypatch: pytest.MonkeyPatch):
    build = await new_receiver(hub)
    fail_once(monkeypatch, Batch, "finish", MemoryError())
    recorded = await hub.recorder.record(MANAGER, new_event(build, name="once"))
    assert recorded.event.name == "once"
    assert await stored(database_url) == [("once",)]


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError()])
async def test_interruption_is_no_failure_of_a_batch(hub: Hub, monkeypatch: pytest.MonkeyPatch, error: BaseException):
    fail_once(monkeypatch, Batch, "record", error)
    with pytest.raises(type(error)):
        await hub.recorder._committer.commit([])  # pyright: ignore[reportPrivateUsage]


async def test_recorder_that_ends_with_error_is_restarted(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    build = await new_receiver(hub)
    fail_once(monkeypatch, Queue, "take", MemoryError())
    await hub.recorder.record(MANAGER, new_event(build))  # the recorder waits in the original method

    async def was_recorded() -> bool:
        outcome = await asyncio.gather(hub.recorder.record(MANAGER, new_event(build)), return_exceptions=True)
        return isinstance(outcome[0], Recorded)

    await until(was_recorded)


# Stopping and cancelling ---------------------------------------------------------------------------


async def test_second_cancellation_gives_the_batch_up(database_url: str):
    async with hub_on(Settings(), database_url) as hub:
        build = await new_receiver(hub)
        running = asyncio.create_task(hub.recorder.run())
        await asyncio.sleep(0)
        async with writer_lock_held(database_url):
            call = asyncio.create_task(hub.recorder.record(MANAGER, new_event(build)))
            await until(lambda: _waits(database_url))
            running.cancel()
            await asyncio.sleep(0)
            assert not running.done(), "it waits for the batch"
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        await until(lambda: _is_gone(database_url))
        assert await stored(database_url) == []
        call.cancel()


async def test_recorder_runs_again_after_it_was_stopped(database_url: str):
    async with hub_on(Settings(), database_url) as hub:
        build = await new_receiver(hub)
        for name in ("first", "second"):
            running = asyncio.create_task(hub.recorder.run())
            await asyncio.sleep(0)
            await hub.recorder.record(MANAGER, new_event(build, name=name))
            running.cancel()
            await asyncio.wait([running])
            await until(lambda: _is_gone(database_url))
    assert await stored(database_url) == [("first",), ("second",)]


@pytest.mark.parametrize("stage", ["waiting", "committed"])
async def test_cancelled_call_of_many_records_them(hub: Hub, database_url: str, stage: str):
    build = await new_receiver(hub)
    await hub.recorder.record(MANAGER, new_event(build, name="caches its receiver"))
    async with writer_lock_held(database_url):
        call = asyncio.create_task(hub.recorder.record_all(MANAGER, [new_event(build)] * 3))
        await until(lambda: _waits(database_url))
        if stage == "waiting":
            call.cancel()
        else:

            def cancel(_: Committed) -> None:
                call.cancel()

            hub.stream.on_commit.append(cancel)
    await asyncio.gather(call, return_exceptions=True)

    async def are_stored() -> bool:
        return len(await stored(database_url)) == 4

    await until(are_stored)


async def _waits(database_url: str) -> bool:
    return await waiting_for_locks(database_url, "xzepr hub recorder") > 0


async def _is_gone(database_url: str) -> bool:
    rows = await execute(database_url, "SELECT pid FROM pg_stat_activity WHERE application_name = 'xzepr hub recorder'")
    return rows == []
