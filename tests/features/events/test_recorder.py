"""The recorder combines concurrent creates into transactions and returns each caller the true outcome."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import orjson
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import TupleRow

from tests.support.hub import (
    MANAGER,
    VIEWER,
    execute,
    kinds,
    messages,
    new_event,
    new_group,
    new_receiver,
    running_hub,
    terminate,
    until,
    waiting_for_locks,
    writer_lock_held,
)
from xzepr.core.actor import ANONYMOUS
from xzepr.core.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    Overloaded,
    Problem,
    StorageFull,
    Unauthenticated,
    Unavailable,
)
from xzepr.features.events import rules
from xzepr.features.events.model import NewEvent, Recorded
from xzepr.features.receivers.model import Receiver, ReceiverChange
from xzepr.features.stream import store
from xzepr.features.stream.kinds import Kind
from xzepr.hub import Hub
from xzepr.settings import EventSettings

POISON = "ALTER TABLE events ADD CONSTRAINT no_poison CHECK (description <> 'poison')"


def recorded(results: Sequence[Recorded | Problem]) -> list[Recorded]:
    assert all(isinstance(result, Recorded) for result in results), results
    return [result for result in results if isinstance(result, Recorded)]


async def events_stored(database_url: str) -> int:
    return int((await execute(database_url, "SELECT count(*) FROM events"))[0][0])


async def queued(hub: Hub, new_events: Sequence[NewEvent]) -> list["asyncio.Task[Recorded]"]:
    """Records each event in a separate call and returns once all of them wait in the queue.

    The caller must hold the writer lock.
    """
    tasks: list[asyncio.Task[Recorded]] = []
    for new in new_events:
        waiting = hub.recorder.queue_length
        tasks.append(asyncio.create_task(hub.recorder.record(MANAGER, new)))
        await until(lambda waiting=waiting: hub.recorder.queue_length > waiting)
    return tasks


async def test_concurrent_creates_share_transactions(database_url: str):
    async with running_hub(database_url) as hub:
        build = await new_receiver(hub)
        await hub.recorder.record(MANAGER, new_event(build, name="caches its receiver"))
        results = await asyncio.gather(
            *(hub.recorder.record(MANAGER, new_event(build, name=f"app-{n}")) for n in range(300))
        )
        stored = await execute(
            database_url, "SELECT count(DISTINCT xmin::text), count(*), min(position), max(position) FROM events"
        )
    [(transactions, count, first, last)] = stored
    assert (count, first, last) == (301, 2, 302)
    assert transactions <= 30, "calls share transactions"
    assert sorted(result.event.position for result in results) == list(range(3, 303))
    assert {result.event.name for result in results} == {f"app-{n}" for n in range(300)}
    assert all(result.cursor.position == result.event.position for result in results)


async def test_message_times_never_decrease(hub: Hub, database_url: str):
    build = await new_receiver(hub)
    await execute(database_url, "UPDATE messages SET time = clock_timestamp() + interval '1 hour'")
    ahead = (await messages(hub))[-1].time
    results = [await hub.recorder.record(MANAGER, new_event(build)) for _ in range(3)]
    assert [result.event.recorded_at for result in results] == [ahead] * 3
    assert [message.time for message in await messages(hub)] == [ahead] * 4


async def test_result_is_returned_after_commit(hub: Hub, database_url: str):
    build = await new_receiver(hub)
    async with writer_lock_held(database_url):
        call = asyncio.create_task(hub.recorder.record(MANAGER, new_event(build)))
        await until(lambda: _waits("recorder", database_url))
        assert not call.done()
        assert await events_stored(database_url) == 0
    result = await call
    assert await execute(database_url, "SELECT position FROM events WHERE id = %s", (result.event.id,)) == [(2,)]


async def _waits(purpose: str, database_url: str) -> bool:
    """Returns whether a connection of this purpose waits for the writer lock: "recorder" (with its batch) or "pool"."""
    return await waiting_for_locks(database_url, f"xzepr hub {purpose}") > 0


async def test_event_is_stored_as_sent(hub: Hub):
    build = await new_receiver(hub)
    happened = datetime(2026, 1, 2, 3, 4, 5, 678901, timezone(timedelta(hours=5, minutes=30)))
    payload: dict[str, object] = {"z": 1, "a": [1.5, None, True, "é́🚀", 2**64 - 1, -(2**63)], "": {}}
    new = new_event(build, name=" Straße ", payload=payload, success=False, created_at=happened)
    result = await hub.recorder.record(MANAGER, new)
    stored = await hub.events.get(VIEWER, result.event.id)
    assert stored == result.event
    assert stored.payload == orjson.dumps(payload)
    assert (stored.name, stored.success, stored.owner_id) == (" Straße ", False, "manager")
    assert stored.created_at == happened
    assert stored.receiver_revision == 1
    [message] = [m for m in await messages(hub) if m.kind is Kind.EVENT_RECORDED]
    assert (message.id, message.event, message.cursor) == (stored.id, stored, result.cursor)
    assert (message.actor_id, message.receiver_id, message.data) == ("manager", build.id, None)


async def test_created_at_defaults_to_recorded_at(hub: Hub):
    result = await hub.recorder.record(MANAGER, new_event(await new_receiver(hub)))
    assert result.event.created_at == result.event.recorded_at


# Full, late, stopping ------------------------------------------------------------------------------


async def test_full_queue_rejects_events_at_once(database_url: str):
    limits = {"recorder": {"queue_size": 2}, "events": {"max_batch_items": 2}}
    async with running_hub(database_url, **limits) as hub:
        build = await new_receiver(hub)
        async with writer_lock_held(database_url):
            first = asyncio.create_task(hub.recorder.record(MANAGER, new_event(build, name="first")))
            await until(lambda: _waits("recorder", database_url))
            waiting = await queued(hub, [new_event(build, name="second")])
            with pytest.raises(Overloaded) as error:
                await hub.recorder.record_all(MANAGER, [new_event(build, name="many")] * 2)
            assert error.value.retry_after is not None
            waiting += await queued(hub, [new_event(build, name="third")])
            with pytest.raises(Overloaded):
                await hub.recorder.record(MANAGER, new_event(build, name="too much"))
        results = await asyncio.gather(first, *waiting)
        assert [result.event.name for result in results] == ["first", "second", "third"]
        assert await events_stored(database_url) == 3


async def test_event_that_waited_too_long_is_rejected(database_url: str):
    async with running_hub(database_url, recorder={"max_wait_seconds": 0.1}) as hub:
        build = await new_receiver(hub)
        async with writer_lock_held(database_url):
            first = asyncio.create_task(hub.recorder.record(MANAGER, new_event(build, name="current")))
            await until(lambda: _waits("recorder", database_url))
            with pytest.raises(Overloaded, match="waited too long"):
                await hub.recorder.record(MANAGER, new_event(build, name="late"))
            assert hub.recorder.queue_length == 0
        assert (await first).event.name == "current"
        assert await execute(database_url, "SELECT name FROM events") == [("current",)]


async def test_held_writer_lock_raises_overloaded(database_url: str):
    async with running_hub(database_url, database={"lock_timeout_seconds": 1}) as hub:
        build = await new_receiver(hub)
        async with writer_lock_held(database_url):
            with pytest.raises(Overloaded, match="another writer has locked the stream") as error:
                await hub.recorder.record(MANAGER, new_event(build))
            assert error.value.retry_after == 1
        assert await events_stored(database_url) == 0
        assert (await hub.recorder.record(MANAGER, new_event(build))).event.position == 2


async def test_frozen_writer_is_terminated_by_database(database_url: str):
    limits = {"lock_timeout_seconds": 20, "statement_timeout_seconds": 20, "idle_in_transaction_timeout_seconds": 2}
    async with running_hub(database_url, database=limits) as hub:
        build = await new_receiver(hub)
        with pytest.raises(Unavailable):
            await _freeze(hub, new_event(build))
        assert await kinds(hub) == [Kind.RECEIVER_CREATED, Kind.EVENT_RECORDED]


async def test_waiting_writer_terminates_only_stuck_writer(database_url: str):
    async with running_hub(database_url) as hub:
        build = await new_receiver(hub)
    patient = {"lock_timeout_seconds": 0.2, "statement_timeout_seconds": 60}
    impatient = {"lock_timeout_seconds": 0.2, "statement_timeout_seconds": 2}
    async with await psycopg.AsyncConnection.connect(database_url) as bystander, stuck(database_url) as writer:
        await bystander.execute("SELECT pg_advisory_xact_lock(42)")
        async with running_hub(database_url, database=patient) as hub:
            with pytest.raises(Overloaded):
                await hub.recorder.record(MANAGER, new_event(build))
            await writer.execute("SELECT 1")  # not terminated yet
        async with running_hub(database_url, database=impatient) as hub:
            await until(lambda: _was_recorded(hub, new_event(build)))
            with pytest.raises(psycopg.OperationalError):
                await writer.execute("SELECT 1")
            await bystander.execute("SELECT 1")
            assert await kinds(hub) == [Kind.RECEIVER_CREATED, Kind.EVENT_RECORDED]


@asynccontextmanager
async def stuck(database_url: str) -> AsyncGenerator[psycopg.AsyncConnection[TupleRow]]:
    """A writer that holds the writer lock and that no timeout ends."""
    async with await psycopg.AsyncConnection.connect(database_url) as writer:
        await store.lock(writer)
        yield writer


async def _freeze(hub: Hub, other: NewEvent) -> None:
    """Holds the writer lock, idle, until the event `other` is recorded at its first attempt."""
    async with hub.stream.write(MANAGER) as tx:
        tx.append(Kind.RECEIVER_UPDATED)
        assert await _was_recorded(hub, other)


async def _was_recorded(hub: Hub, new: NewEvent) -> bool:
    try:
        return (await hub.recorder.record(MANAGER, new)).event.position == 2
    except Overloaded:
        return False


async def test_stopping_recorder_finishes_current_batch(database_url: str):
    async with running_hub(database_url) as hub:
        build = await new_receiver(hub)
        # A second hub on the same database, so that its recorder stops before the first hub.
        second_context = running_hub(database_url)
        second = await second_context.__aenter__()
        async with writer_lock_held(database_url):
            first = asyncio.create_task(second.recorder.record(MANAGER, new_event(build, name="current")))
            await until(lambda: _waits("recorder", database_url))
            [waiting] = await queued(second, [new_event(build, name="waiting")])
            stop = asyncio.create_task(second_context.__aexit__(None, None, None))
            await until(lambda: stop.done() or second.recorder.queue_length == 1)
        assert (await first).event.name == "current"
        with pytest.raises(Overloaded, match="shutting down"):
            await waiting
        await stop
        assert await execute(database_url, "SELECT name FROM events") == [("current",)]


async def test_cancelled_caller_does_not_cancel_event(hub: Hub, database_url: str):
    build = await new_receiver(hub)
    async with writer_lock_held(database_url):
        cancelled = asyncio.create_task(hub.recorder.record(MANAGER, new_event(build, name="cancelled")))
        await until(lambda: _waits("recorder", database_url))
        waiting, cancelled_in_queue, last = await queued(hub, [new_event(build, name=name) for name in ("a", "b", "c")])
        cancelled.cancel()
        cancelled_in_queue.cancel()
        await asyncio.gather(cancelled, cancelled_in_queue, return_exceptions=True)
    assert [(await waiting).event.position, (await last).event.position] == [3, 5]
    assert await events_stored(database_url) == 4


# Failures of PostgreSQL or of the connection -------------------------------------------------------


async def test_event_rejected_by_database_fails_alone(hub: Hub, database_url: str):
    build = await new_receiver(hub)
    gate = await new_group(hub, build)
    await execute(database_url, POISON)
    new_events = [new_event(build, name=f"app-{n}", description="poison" if n == 13 else "fine") for n in range(40)]
    results = await hub.recorder.record_all(MANAGER, new_events)
    rejected = results.pop(13)
    assert isinstance(rejected, Problem)
    assert rejected.code == "INTERNAL"
    assert "poison" not in rejected.message, "the text of the database error is only logged"
    assert [result.event.name for result in recorded(results)] == [f"app-{n}" for n in range(40) if n != 13]
    assert [result.event.position for result in recorded(results)] == list(range(3, 81, 2))
    assert await kinds(hub, gate.position) == [Kind.EVENT_RECORDED, Kind.GATE_COMPLETED] * 39
    [outcome] = await asyncio.gather(hub.recorder.record(MANAGER, new_events[13]), return_exceptions=True)
    assert isinstance(outcome, Problem)


async def test_full_disk_raises_storage_full(hub: Hub, database_url: str):
    build = await new_receiver(hub)
    await execute(
        database_url,
        """
        CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE 'No space left on device' USING ERRCODE = '53100'; END $$;
        CREATE TRIGGER disk_full BEFORE INSERT ON events EXECUTE FUNCTION disk_full()
        """,
    )
    with pytest.raises(StorageFull) as error:
        await hub.recorder.record(MANAGER, new_event(build))
    assert error.value.retry_after is not None
    assert not hub.recorder.has_disk_space
    assert await kinds(hub) == [Kind.RECEIVER_CREATED]
    await execute(database_url, "DROP TRIGGER disk_full ON events")
    await hub.recorder.record(MANAGER, new_event(build))
    assert hub.recorder.has_disk_space


async def test_failed_transaction_publishes_nothing(hub: Hub, database_url: str):
    build = await new_receiver(hub)
    await new_group(hub, build)
    await execute(database_url, POISON)
    await hub.recorder.record_all(MANAGER, [new_event(build, description="poison", key="k")])
    assert await kinds(hub) == [Kind.RECEIVER_CREATED, Kind.GROUP_CREATED]
    for table in ("events", "unit_status", "idempotency"):
        assert await execute(database_url, f"SELECT * FROM {table}") == []  # pyright: ignore[reportArgumentType]


async def test_event_rejected_at_commit_fails_alone(hub: Hub, database_url: str):
    build = await new_receiver(hub)
    await execute(
        database_url,
        """
        CREATE FUNCTION reject() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF NEW.description = 'poison' THEN RAISE 'no'; END IF; RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION reject()
        """,
    )
    results = await hub.recorder.record_all(
        MANAGER, [new_event(build, description=text) for text in ("a", "poison", "b")]
    )
    assert isinstance(results[1], Problem)
    assert [result.event.description for result in recorded([results[0], results[2]])] == ["a", "b"]
    assert await events_stored(database_url) == 2


async def test_connection_lost_before_commit_records_nothing(hub: Hub, database_url: str):
    build = await new_receiver(hub)
    first = await hub.recorder.record(MANAGER, new_event(build, name="first"))
    async with writer_lock_held(database_url):
        call = asyncio.create_task(hub.recorder.record(MANAGER, new_event(build)))
        await until(lambda: _waits("recorder", database_url))
        assert await terminate(database_url, "xzepr hub recorder") == 1
        outcome = (await asyncio.gather(call, return_exceptions=True))[0]
    assert isinstance(outcome, Unavailable), outcome
    assert "not recorded" in outcome.message
    assert await events_stored(database_url) == 1
    next_event = await hub.recorder.record(MANAGER, new_event(build))
    assert next_event.event.position == first.event.position + 1


async def test_backend_killed_in_commit_records_nothing(hub: Hub, database_url: str):
    build = await new_receiver(hub)
    await execute(
        database_url,
        """
        CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF NEW.name = 'dies' THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION die()
        """,
    )
    with pytest.raises(Unavailable, match="not recorded"):
        await hub.recorder.record(MANAGER, new_event(build, name="dies"))
    assert (await hub.recorder.record(MANAGER, new_event(build, name="lives"))).event.position == 2
    assert await execute(database_url, "SELECT name FROM events") == [("lives",)]


# Receivers that change during validation -----------------------------------------------------------

CHANGES: dict[str, tuple[ReceiverChange | None, type[Problem] | None]] = {
    "another schema that rejects it": (ReceiverChange(schema={"required": ["size"]}), InvalidInput),
    "another schema that accepts it": (ReceiverChange(schema={"type": "object"}), None),
    "another name": (ReceiverChange(name="renamed"), None),
    "disabled": (ReceiverChange(enabled=False), Conflict),
    "deleted": (None, NotFound),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_changed_receiver_is_revalidated_under_lock(hub: Hub, database_url: str, change: str):
    build = await new_receiver(hub)
    update, expected_error = CHANGES[change]
    async with writer_lock_held(database_url):
        changing = asyncio.create_task(
            hub.receivers.delete(MANAGER, build.id)
            if update is None
            else hub.receivers.update(MANAGER, build.id, update)
        )
        await until(lambda: _waits("pool", database_url))
        call = asyncio.create_task(hub.recorder.record(MANAGER, new_event(build, payload={"a": 1})))
        await until(lambda: _waits("recorder", database_url))
    changed = await changing
    if expected_error is None:
        event = (await call).event
        assert event.receiver_revision == changed.revision
    else:
        with pytest.raises(expected_error) as error:
            await call
        assert error.value.field in ("receiver_id", "payload")
        assert await events_stored(database_url) == 0


async def test_receiver_changed_elsewhere_is_not_read_from_cache(database_url: str):
    async with running_hub(database_url) as first_hub, running_hub(database_url) as second_hub:
        build = await new_receiver(first_hub, schema={"type": "object"})
        await second_hub.recorder.record(MANAGER, new_event(build))
        await first_hub.receivers.update(MANAGER, build.id, ReceiverChange(schema={"type": "string"}))
        with pytest.raises(InvalidInput):
            await second_hub.recorder.record(MANAGER, new_event(build, payload={}))
        assert (
            await second_hub.recorder.record(MANAGER, new_event(build, payload="text"))
        ).event.receiver_revision == 2
        assert await events_stored(database_url) == 2


# Validation before the queue -----------------------------------------------------------------------


def nested(levels: int) -> object:
    """Returns `levels` nested arrays."""
    return [nested(levels - 1)] if levels else 0


REJECTED: dict[str, tuple[dict[str, object], list[str]]] = {
    "blank and too long names": (
        {"name": "", "version": " ", "release": "x" * 256, "platform_id": "\t", "package": "\n"},
        ["name", "version", "release", "platform_id", "package"],
    ),
    "a blank description": ({"description": " "}, ["description"]),
    "a long description": ({"description": "x" * 4001}, ["description"]),
    "NUL": ({"name": "a\0", "payload": {"a": ["\0"]}}, ["name", "payload/a/0"]),
    "lone surrogates": ({"package": "\ud800", "payload": {"k\udfff": 1}}, ["package", "payload/k\\udfff"]),
    "integers beyond 64 bits": ({"payload": {"n": [2**64]}}, ["payload/n/0"]),
    "NaN or infinity": ({"payload": [float("nan"), float("inf")]}, ["payload/0", "payload/1"]),
    "a large payload": ({"payload": "x" * (512 * 1024)}, ["payload"]),
    "a deep payload": ({"payload": nested(65)}, ["payload"]),
    "NUL in a key": ({"key": "\0"}, ["idempotency_key"]),
    "a blank key": ({"key": ""}, ["idempotency_key"]),
    "a time without a zone": ({"created_at": datetime(2026, 1, 1)}, ["created_at"]),  # noqa: DTZ001 the missing zone is under test
    "a time before the calendar": (
        {"created_at": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))},
        ["created_at"],
    ),
}


@pytest.mark.parametrize("case", REJECTED)
async def test_invalid_field_is_rejected_with_its_location(hub: Hub, case: str):
    build = await new_receiver(hub)
    fields, locations = REJECTED[case]
    with pytest.raises(InvalidInput) as error:
        await hub.recorder.record(MANAGER, new_event(build, **fields))  # pyright: ignore[reportArgumentType]
    assert [violation.field for violation in error.value.violations] == locations
    assert await kinds(hub) == [Kind.RECEIVER_CREATED]


async def test_values_at_the_limits_are_stored(hub: Hub):
    build = await new_receiver(hub)
    payloads: list[object] = ["x" * (512 * 1024 - 2), nested(64)]
    for payload in payloads:
        result = await hub.recorder.record(MANAGER, new_event(build, payload=payload))
        assert (await hub.events.get(VIEWER, result.event.id)).payload == orjson.dumps(payload)
    longest = new_event(build, name="名" * 255, package="包" * 255, description="述" * 4000, key="键" * 255)
    assert (await hub.recorder.record(MANAGER, longest)).event.name == "名" * 255


async def test_future_event_is_rejected(hub: Hub, database_url: str):
    build = await new_receiver(hub)
    with pytest.raises(InvalidInput) as error:
        await hub.recorder.record(MANAGER, new_event(build, created_at=datetime.now(UTC) + timedelta(minutes=2)))
    assert error.value.field == "created_at"
    assert await events_stored(database_url) == 0


async def test_time_slightly_ahead_is_kept_as_reported(hub: Hub):
    build = await new_receiver(hub)
    ahead = datetime.now(UTC) + timedelta(seconds=45)
    event = (await hub.recorder.record(MANAGER, new_event(build, created_at=ahead))).event
    assert event.created_at == ahead > event.recorded_at


@pytest.mark.parametrize("clock_behind", ["database", "process"])
def test_one_clock_set_back_rejects_no_event(clock_behind: str):
    right, wrong = datetime(2026, 1, 1, 12, tzinfo=UTC), datetime(2026, 1, 1, 11, tzinfo=UTC)
    recorded_at, present = (wrong, right) if clock_behind == "database" else (right, wrong)
    accepted = rules.accept(new_event("receiver", created_at=right), EventSettings())
    latest = rules.latest_time(recorded_at, present, EventSettings(max_clock_skew_seconds=0))
    assert rules.position_event(accepted, 1, 1, recorded_at, "owner", latest).created_at == right
    later = rules.accept(new_event("receiver", created_at=right + timedelta(seconds=1)), EventSettings())
    with pytest.raises(InvalidInput):
        rules.position_event(later, 1, 1, recorded_at, "owner", latest)


async def test_all_schema_violations_are_reported(hub: Hub, database_url: str):
    build = await new_receiver(hub, schema={"properties": {"n": {"type": "integer"}, "s": {"type": "string"}}})
    with pytest.raises(InvalidInput) as error:
        await hub.recorder.record(MANAGER, new_event(build, payload={"n": "1", "s": 1}))
    assert {violation.field for violation in error.value.violations} == {"payload/n", "payload/s"}
    assert await events_stored(database_url) == 0


@pytest.mark.parametrize("id", ["01M7XD0WJCG1Y78QPF4180KVTM", "unknown", "\x7f"])
async def test_event_of_unknown_receiver_is_rejected(hub: Hub, id: str):
    with pytest.raises(NotFound) as error:
        await hub.recorder.record(MANAGER, new_event(id))
    assert error.value.field == "receiver_id"
    assert await messages(hub) == []


async def test_creating_events_requires_permission(hub: Hub, database_url: str):
    build = await new_receiver(hub)
    with pytest.raises(Forbidden):
        await hub.recorder.record(VIEWER, new_event(build))
    with pytest.raises(Unauthenticated):
        await hub.recorder.record_all(ANONYMOUS, [new_event(build)])
    assert await events_stored(database_url) == 0


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), inner, max_size=4)
    ),
    max_leaves=10,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payloads=st.lists(JSON, min_size=5, max_size=40), name=st.text(st.characters(), min_size=1, max_size=255))
async def test_valid_events_are_stored_unchanged(hub: Hub, payloads: list[object], name: str):
    build = await new_receiver(hub)
    new_events = [new_event(build, name=name, payload=payload) for payload in payloads]
    results = await hub.recorder.record_all(MANAGER, new_events)
    if any(isinstance(result, InvalidInput) for result in results):
        assert "\0" in name or not name.strip() or any("\ud800" <= c <= "\udfff" for c in name)
        return
    stored = await hub.events.by_positions(VIEWER, [result.event.position for result in recorded(results)])
    for result, payload in zip(recorded(results), payloads, strict=True):
        assert stored[result.event.position] == result.event
        assert result.event.payload == orjson.dumps(payload)


# Batches -------------------------------------------------------------------------------------------


async def test_mixed_batch_returns_results_in_order(hub: Hub, database_url: str):
    build = await new_receiver(hub, schema={"type": "integer"})
    disabled = await hub.receivers.update(MANAGER, (await new_receiver(hub, "off")).id, ReceiverChange(enabled=False))
    before = (await messages(hub))[-1].position
    new_events = [_mixed(n, build, disabled) for n in range(1000)]
    results = await hub.recorder.record_all(MANAGER, new_events)
    expected = [Recorded, InvalidInput, NotFound, Conflict, Recorded]
    assert [type(result) for result in results] == expected * 200
    recorded_results = [result for result in results if isinstance(result, Recorded)]
    assert [result.event.payload for result in recorded_results] == [b"%d" % n for n in range(1000) if n % 5 in (0, 4)]
    assert [result.event.position for result in recorded_results] == list(range(before + 1, before + 401))
    assert await events_stored(database_url) == 400


def _mixed(n: int, build: Receiver, disabled: Receiver) -> NewEvent:
    new = new_event(build, name=f"app-{n % 7}", payload=n)
    match n % 5:
        case 1:
            return replace(new, payload=str(n))
        case 2:
            return replace(new, receiver_id="unknown")
        case 3:
            return replace(new, receiver_id=disabled.id)
        case _:
            return new


async def test_batch_above_thousand_events_is_rejected(hub: Hub):
    build = await new_receiver(hub)
    with pytest.raises(InvalidInput, match="at most 1,000"):
        await hub.recorder.record_all(MANAGER, [new_event(build)] * 1001)
    assert await hub.recorder.record_all(MANAGER, []) == []
    assert await kinds(hub) == [Kind.RECEIVER_CREATED]
