"""The recorder resolves the outcome of a COMMIT whose response was lost."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from tests.support.commit_proxy import CommitProxy, Cut, commit_proxy
from tests.support.hub import MANAGER, execute, kinds, new_event, new_group, new_receiver, running_hub, until
from tests.support.silent_proxy import silent_proxy
from xzepr.core.errors import Conflict, Unavailable
from xzepr.features.events import recorder
from xzepr.features.events.model import Recorded
from xzepr.features.stream.kinds import Kind
from xzepr.hub import Hub

SHORT_TIMEOUTS = {"lock_timeout_seconds": 1, "statement_timeout_seconds": 2}


def skip_without_socket(database_url: str) -> None:
    if "host=%2F" not in database_url:
        pytest.skip("the proxy connects to a Unix socket, but XZEPR_TEST_DATABASE_URL names another kind of address")


@pytest.fixture
async def cut_off(database_url: str) -> AsyncIterator[tuple[Hub, CommitProxy]]:
    """A hub with a proxy before the database that can cut its connections."""
    skip_without_socket(database_url)
    async with commit_proxy(database_url) as (url, proxy), running_hub(url) as hub:
        yield hub, proxy


async def test_unanswered_commit_is_found_recorded(cut_off: tuple[Hub, CommitProxy], database_url: str):
    hub, proxy = cut_off
    build = await new_receiver(hub)
    gate = await new_group(hub, build)
    proxy.cut = Cut.AFTER_COMMIT
    new_events = [new_event(build, name=f"u{n}", key=f"k{n % 2}") for n in range(3)]
    recorded, other, conflict = await hub.recorder.record_all(MANAGER, new_events)
    assert proxy.was_cut.is_set()
    assert isinstance(recorded, Recorded)
    assert isinstance(other, Recorded)
    assert isinstance(conflict, Conflict), "a rejected event gets its reason"
    assert await execute(database_url, "SELECT id FROM events ORDER BY position") == [
        (recorded.event.id,),
        (other.event.id,),
    ]
    assert await kinds(hub, gate.position) == [Kind.EVENT_RECORDED, Kind.GATE_COMPLETED] * 2
    assert (await hub.recorder.record(MANAGER, new_events[0])).repeated


async def test_silent_commit_is_resolved_on_new_connection(database_url: str, monkeypatch: pytest.MonkeyPatch):
    skip_without_socket(database_url)
    monkeypatch.setattr(recorder, "_GRACE_SECONDS", 0.5)
    async with running_hub(database_url) as first_hub:
        build = await new_receiver(first_hub)
    async with commit_proxy(database_url) as (url, proxy), running_hub(url, database=SHORT_TIMEOUTS) as hub:
        proxy.cut = Cut.SILENT
        recorded = await hub.recorder.record(MANAGER, new_event(build))
        assert proxy.was_cut.is_set()
        assert await execute(database_url, "SELECT id FROM events") == [(recorded.event.id,)]
        assert (await hub.recorder.record(MANAGER, new_event(build))).event.position == recorded.event.position + 1


async def test_silent_resolution_query_is_retried(database_url: str, monkeypatch: pytest.MonkeyPatch):
    skip_without_socket(database_url)
    monkeypatch.setattr(recorder, "_GRACE_SECONDS", 0.5)
    async with running_hub(database_url) as first_hub:
        build = await new_receiver(first_hub)
    async with silent_proxy(database_url) as (url, net), running_hub(url, database=SHORT_TIMEOUTS) as hub:
        net.silence_next("xzepr hub recorder", b"COMMIT\x00")
        net.silence_next("xzepr hub recorder settling", b"pg_advisory_xact_lock")
        recorded = await hub.recorder.record(MANAGER, new_event(build))
        assert net.has_silenced_next
        assert await execute(database_url, "SELECT id FROM events") == [(recorded.event.id,)]
        assert (await hub.recorder.record(MANAGER, new_event(build))).event.position == recorded.event.position + 1


async def test_lost_commit_is_reported_as_not_recorded(cut_off: tuple[Hub, CommitProxy], database_url: str):
    hub, proxy = cut_off
    build = await new_receiver(hub)
    proxy.cut = Cut.BEFORE_COMMIT
    with pytest.raises(Unavailable, match="not recorded") as error:
        await hub.recorder.record(MANAGER, new_event(build))
    assert error.value.retry_after is not None
    assert proxy.was_cut.is_set()
    assert await execute(database_url, "SELECT count(*) FROM events") == [(0,)]
    assert (await hub.recorder.record(MANAGER, new_event(build))).event.position == 2


async def test_running_commit_is_awaited(cut_off: tuple[Hub, CommitProxy], database_url: str):
    hub, proxy = cut_off
    build = await new_receiver(hub)
    await execute(
        database_url,
        """
        CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION wait()
        """,
    )
    async with commits_blocked(database_url):
        proxy.cut = Cut.UNANSWERED
        call = asyncio.create_task(hub.recorder.record(MANAGER, new_event(build)))
        await proxy.was_cut.wait()
        await until(lambda: _recorder_waits(database_url))
        assert not call.done(), "the outcome is not decided yet"
    recorded = await call
    assert await execute(database_url, "SELECT id FROM events") == [(recorded.event.id,)]


async def _recorder_waits(database_url: str) -> bool:
    """Returns whether the recorder waits for the old backend to end, to learn the outcome of its COMMIT."""
    rows = await execute(
        database_url,
        """
        SELECT count(*) FROM pg_stat_activity JOIN pg_locks USING (pid)
        WHERE datname = current_database() AND application_name = 'xzepr hub recorder settling' AND NOT granted
        """,
    )
    return rows == [(1,)]


@asynccontextmanager
async def commits_blocked(database_url: str) -> AsyncGenerator[None]:
    """No COMMIT ends inside this context."""
    connection = await psycopg.AsyncConnection.connect(database_url, autocommit=True)
    async with connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(42)")
        yield
