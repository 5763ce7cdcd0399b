"""The recorder: many creates, one transaction at a time, and the truth to everyone who asked."""

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


def recorded(answers: Sequence[Recorded | Problem]) -> list[Recorded]:
    assert all(isinstance(answer, Recorded) for answer in answers), answers
    return [answer for answer in answers if isinstance(answer, Recorded)]


async def events_stored(database_url: str) -> int:
    return int((await execute(database_url, "SELECT count(*) FROM events"))[0][0])


async def queued(hub: Hub, news: Sequence[NewEvent]) -> list["asyncio.Task[Recorded]"]:
    """Each as a call of its own, once all of them wait in the queue. Hold the writer's lock."""
    tasks: list[asyncio.Task[Recorded]] = []
    for new in news:
        waiting = hub.recorder.waiting
        tasks.append(asyncio.create_task(hub.recorder.record(MANAGER, new)))
        await until(lambda waiting=waiting: hub.recorder.waiting > waiting)
    return tasks


async def test_concurrent_creates_share_transactions(database_url: str):
    async with running_hub(database_url) as hub:
        build = await new_receiver(hub)
        await hub.recorder.record(MANAGER, new_event(build, name="so that its receiver is known"))
        answers = await asyncio.gather(
            *(hub.recorder.record(MANAGER, new_event(build, name=f"app-{n}")) for n in range(300))
        )
        stored = await execute(
            database_url, "SELECT count(DISTINCT xmin::text), count(*), min(position), max(position) FROM events"
        )
    [(transactions, count, first, last)] = stored
    assert (count, first, last) == (301, 2, 302)
    assert transactions <= 30, "they shared transactions"
    assert sorted(answer.event.position for answer in answers) == list(range(3, 303))
    assert {answer.event.name for answer in answers} == {f"app-{n}" for n in range(300)}
    assert all(answer.cursor.position == answer.event.position for answer in answers)


async def test_message_times_never_decrease(hub: Hub, database_url: str):
    build = await new_receiver(hub)
    await execute(database_url, "UPDATE messages SET time = clock_timestamp() + interval '1 hour'")
    ahead = (await messages(hub))[-1].time
    answers = [await hub.recorder.record(MANAGER, new_event(build)) for _ in range(3)]
    assert [answer.event.recorded_at for answer in answers] == [ahead] * 3
    assert [message.time for message in await messages(hub)] == [ahead] * 4


async def test_result_is_returned_after_commit(hub: Hub, database_url: str):
    build = await new_receiver(hub)
    async with writer_lock_held(database_url):
        call = asyncio.create_task(hub.recorder.record(MANAGER, new_event(build)))
        await until(lambda: _waits("recorder", database_url))
        assert not call.done()
        assert await events_stored(database_url) == 0
    answer = await call
    assert await execute(database_url, "SELECT position FROM events WHERE id = %s", (answer.event.id,)) == [(2,)]


async def _waits(who: str, database_url: str) -> bool:
    """Whether the recorder, with its batch in hand, or a connection of the pool waits for the lock."""
    return await waiting_for_locks(database_url, f"xzepr hub {who}") > 0


async def test_event_is_stored_as_sent(hub: Hub):
    build = await new_receiver(hub)
    happened = datetime(2026, 1, 2, 3, 4, 5, 678901, timezone(timedelta(hours=5, minutes=30)))
    payload: dict[str, object] = {"z": 1, "a": [1.5, None, True, "é́🚀", 2**64 - 1, -(2**63)], "": {}}
    new = new_event(build, name=" Straße ", payload=payload, success=False, created_at=happened)
    answer = await hub.recorder.record(MANAGER, new)
    stored = await hub.events.get(VIEWER, answer.event.id)
    assert stored == answer.event
    assert stored.payload == orjson.dumps(payload)
    assert (stored.name, stored.success, stored.owner_id) == (" Straße ", False, "manager")
    assert stored.created_at == happened
    assert stored.receiver_revision == 1
    [message] = [m for m in await messages(hub) if m.kind is Kind.EVENT_RECORDED]
    assert (message.id, message.event, message.cursor) == (stored.id, stored, answer.cursor)
    assert (message.actor_id, message.receiver_id, message.data) == ("manager", build.id, None)


async def test_created_at_defaults_to_recorded_at(hub: Hub):
    answer = await hub.recorder.record(MANAGER, new_event(await new_receiver(hub)))
    assert answer.event.created_at == answer.event.recorded_at


# Full, late, stopping ------------------------------------------------------------------------------


async def test_full_queue_rejects_events_at_once(database_url: str):
    limits = {"recorder": {"queue_size": 2}, "events": {"max_batch_items": 2}}
    async with running_hub(database_url, **limits) as hub:
        build = await new_receiver(hub)
        async with writer_lock_held(database_url):
            first = asyncio.create_task(hub.recorder.record(MANAGER, new_event(build, name="first")))
            await until(lambda: _waits("recorder", database_url))
            waiting = await queued(hub, [new_event(build, name="second")])
            with pytest.raises(Overloaded) as refusal:
                await hub.recorder.record_all(MANAGER, [new_event(build, name="many")] * 2)
            assert refusal.value.retry_after is not None
            waiting += await queued(hub, [new_event(build, name="third")])
            with pytest.raises(Overloaded):
                await hub.recorder.record(MANAGER, new_event(build, name="too much"))
        answers = await asyncio.gather(first, *waiting)
        assert [answer.event.name for answer in answers] == ["first", "second", "third"]
        assert await events_stored(database_url) == 3


async def test_event_that_waited_too_long_is_rejected(database_url: str):
    async with running_hub(database_url, recorder={"max_wait_seconds": 0.1}) as hub:
        build = await new_receiver(hub)
        async with writer_lock_held(database_url):
            first = asyncio.create_task(hub.recorder.record(MANAGER, new_event(build, name="in hand")))
            await until(lambda: _waits("recorder", database_url))
            with pytest.raises(Overloaded, match="waited too long"):
                await hub.recorder.record(MANAGER, new_event(build, name="late"))
            assert hub.recorder.waiting == 0
        assert (await first).event.name == "in hand"
        assert await execute(database_url, "SELECT name FROM events") == [("in hand",)]


async def test_held_writer_lock_raises_overloaded(database_url: str):
    async with running_hub(database_url, database={"lock_timeout_seconds": 1}) as hub:
        build = await new_receiver(hub)
        async with writer_lock_held(database_url):
            with pytest.raises(Overloaded, match="another writer holds the stream") as refusal:
                await hub.recorder.record(MANAGER, new_event(build))
            assert refusal.value.retry_after == 1
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
    patience = {"lock_timeout_seconds": 0.2, "statement_timeout_seconds": 60}
    haste = {"lock_timeout_seconds": 0.2, "statement_timeout_seconds": 2}
    async with await psycopg.AsyncConnection.connect(database_url) as bystander, stuck(database_url) as writer:
        await bystander.execute("SELECT pg_advisory_xact_lock(42)")
        async with running_hub(database_url, database=patience) as hub:
            with pytest.raises(Overloaded):
                await hub.recorder.record(MANAGER, new_event(build))
            await writer.execute("SELECT 1")  # it is not stuck yet
        async with running_hub(database_url, database=haste) as hub:
            await until(lambda: _was_recorded(hub, new_event(build)))
            with pytest.raises(psycopg.OperationalError):
                await writer.execute("SELECT 1")
            await bystander.execute("SELECT 1")
            assert await kinds(hub) == [Kind.RECEIVER_CREATED, Kind.EVENT_RECORDED]


@asynccontextmanager
async def stuck(database_url: str) -> AsyncGenerator[psycopg.AsyncConnection[TupleRow]]:
    """A writer that no limit ends, in its turn."""
    async with await psycopg.AsyncConnection.connect(database_url) as writer:
        await store.lock(writer)
        yield writer


async def _freeze(hub: Hub, meanwhile: NewEvent) -> None:
    """Says nothing in its turn until somebody else has had one, without being refused for want of the lock before."""
    async with hub.stream.write(MANAGER) as tx:
        tx.append(Kind.RECEIVER_UPDATED)
        assert await _was_recorded(hub, meanwhile)


async def _was_recorded(hub: Hub, new: NewEvent) -> bool:
    try:
        return (await hub.recorder.record(MANAGER, new)).event.position == 2
    except Overloaded:
        return False


async def test_stopping_recorder_finishes_current_batch(database_url: str):
    async with running_hub(database_url) as hub:
        build = await new_receiver(hub)
        # A second recorder of the same hub, so that it can be stopped before the hub is.
        other = running_hub(database_url)
        second = await other.__aenter__()
        async with writer_lock_held(database_url):
            first = asyncio.create_task(second.recorder.record(MANAGER, new_event(build, name="in hand")))
            await until(lambda: _waits("recorder", database_url))
            [waits] = await queued(second, [new_event(build, name="waits")])
            closing = asyncio.create_task(other.__aexit__(None, None, None))
            await until(lambda: closing.done() or second.recorder.waiting == 1)
        assert (await first).event.name == "in hand"
        with pytest.raises(Overloaded, match="stopping"):
            await waits
        await closing
        assert await execute(database_url, "SELECT name FROM events") == [("in hand",)]


async def test_cancelled_caller_does_not_cancel_event(hub: Hub, database_url: str):
    build = await new_receiver(hub)
    async with writer_lock_held(database_url):
        gone = asyncio.create_task(hub.recorder.record(MANAGER, new_event(build, name="gone")))
        await until(lambda: _waits("recorder", database_url))
        stays, also_gone, last = await queued(hub, [new_event(build, name=name) for name in ("stays", "also", "last")])
        gone.cancel()
        also_gone.cancel()
        await asyncio.gather(gone, also_gone, return_exceptions=True)
    assert [(await stays).event.position, (await last).event.position] == [3, 5]
    assert await events_stored(database_url) == 4


# What Postgres or the connection does to a batch ---------------------------------------------------


async def test_event_rejected_by_database_fails_alone(hub: Hub, database_url: str):
    build = await new_receiver(hub)
    gate = await new_group(hub, build)
    await execute(database_url, POISON)
    news = [new_event(build, name=f"app-{n}", description="poison" if n == 13 else "fine") for n in range(40)]
    answers = await hub.recorder.record_all(MANAGER, news)
    culprit = answers.pop(13)
    assert isinstance(culprit, Problem)
    assert culprit.code == "INTERNAL"
    assert "poison" not in culprit.message, "what the database says is for the log"
    assert [answer.event.name for answer in recorded(answers)] == [f"app-{n}" for n in range(40) if n != 13]
    assert [answer.event.position for answer in recorded(answers)] == list(range(3, 81, 2))
    assert await kinds(hub, gate.position) == [Kind.EVENT_RECORDED, Kind.GATE_COMPLETED] * 39
    alone = await asyncio.gather(hub.recorder.record(MANAGER, news[13]), return_exceptions=True)
    assert isinstance(alone[0], Problem)


async def test_full_disk_raises_storage_full(hub: Hub, database_url: str):
    build = await new_receiver(hub)
    await execute(
        database_url,
        """
        CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE 'No space left on device' USING ERRCODE = '53100'; END $$;
        CREATE TRIGGER no_room BEFORE INSERT ON events EXECUTE FUNCTION no_room()
        """,
    )
    with pytest.raises(StorageFull) as refusal:
        await hub.recorder.record(MANAGER, new_event(build))
    assert refusal.value.retry_after is not None
    assert not hub.recorder.has_room
    assert await kinds(hub) == [Kind.RECEIVER_CREATED]
    await execute(database_url, "DROP TRIGGER no_room ON events")
    await hub.recorder.record(MANAGER, new_event(build))
    assert hub.recorder.has_room


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
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF NEW.description = 'poison' THEN RAISE 'no'; END IF; RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION refuse()
        """,
    )
    answers = await hub.recorder.record_all(
        MANAGER, [new_event(build, description=text) for text in ("a", "poison", "b")]
    )
    assert isinstance(answers[1], Problem)
    assert [answer.event.description for answer in recorded([answers[0], answers[2]])] == ["a", "b"]
    assert await events_stored(database_url) == 2


@pytest.mark.parametrize("state", ["idle", "waiting for the lock"])
async def test_connection_lost_before_commit_records_nothing(hub: Hub, database_url: str, state: str):
    build = await new_receiver(hub)
    first = await hub.recorder.record(MANAGER, new_event(build, name="first"))
    if state == "idle":
        assert await terminate(database_url, "xzepr hub recorder") == 1
        outcome = (await asyncio.gather(hub.recorder.record(MANAGER, new_event(build)), return_exceptions=True))[0]
    else:
        async with writer_lock_held(database_url):
            call = asyncio.create_task(hub.recorder.record(MANAGER, new_event(build)))
            await until(lambda: _waits("recorder", database_url))
            assert await terminate(database_url, "xzepr hub recorder") == 1
            outcome = (await asyncio.gather(call, return_exceptions=True))[0]
    assert isinstance(outcome, Unavailable), outcome
    assert "not recorded" in outcome.message
    assert await events_stored(database_url) == 1
    again = await hub.recorder.record(MANAGER, new_event(build))
    assert again.event.position == first.event.position + 1


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


# Receivers that change meanwhile -------------------------------------------------------------------

CHANGES: dict[str, tuple[ReceiverChange | None, type[Problem] | None]] = {
    "another schema that refuses it": (ReceiverChange(schema={"required": ["size"]}), InvalidInput),
    "another schema that accepts it": (ReceiverChange(schema={"type": "object"}), None),
    "another name": (ReceiverChange(name="renamed"), None),
    "disabled": (ReceiverChange(enabled=False), Conflict),
    "deleted": (None, NotFound),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_changed_receiver_is_revalidated_under_lock(hub: Hub, database_url: str, change: str):
    build = await new_receiver(hub)
    what, refusal = CHANGES[change]
    async with writer_lock_held(database_url):
        changing = asyncio.create_task(
            hub.receivers.delete(MANAGER, build.id) if what is None else hub.receivers.update(MANAGER, build.id, what)
        )
        await until(lambda: _waits("pool", database_url))
        call = asyncio.create_task(hub.recorder.record(MANAGER, new_event(build, payload={"a": 1})))
        await until(lambda: _waits("recorder", database_url))
    changed = await changing
    if refusal is None:
        event = (await call).event
        assert event.receiver_revision == changed.revision
    else:
        with pytest.raises(refusal) as refused:
            await call
        assert refused.value.field in ("receiver_id", "payload")
        assert await events_stored(database_url) == 0


async def test_receiver_changed_elsewhere_is_not_read_from_cache(database_url: str):
    async with running_hub(database_url) as here, running_hub(database_url) as there:
        build = await new_receiver(here, schema={"type": "object"})
        await there.recorder.record(MANAGER, new_event(build))
        await here.receivers.update(MANAGER, build.id, ReceiverChange(schema={"type": "string"}))
        with pytest.raises(InvalidInput):
            await there.recorder.record(MANAGER, new_event(build, payload={}))
        assert (await there.recorder.record(MANAGER, new_event(build, payload="text"))).event.receiver_revision == 2
        assert await events_stored(database_url) == 2


# What is refused before it waits -------------------------------------------------------------------


def nested(levels: int) -> object:
    """Arrays within each other."""
    return [nested(levels - 1)] if levels else 0


REFUSED: dict[str, tuple[dict[str, object], list[str]]] = {
    "blank and too long names": (
        {"name": "", "version": " ", "release": "x" * 256, "platform_id": "\t", "package": "\n"},
        ["name", "version", "release", "platform_id", "package"],
    ),
    "a blank description": ({"description": " "}, ["description"]),
    "a long description": ({"description": "x" * 4001}, ["description"]),
    "NUL": ({"name": "a\0", "payload": {"a": ["\0"]}}, ["name", "payload/a/0"]),
    "lone surrogates": ({"package": "\ud800", "payload": {"k\udfff": 1}}, ["package", "payload/k\\udfff"]),
    "integers beyond 64 bits": ({"payload": {"n": [2**64]}}, ["payload/n/0"]),
    "no number": ({"payload": [float("nan"), float("inf")]}, ["payload/0", "payload/1"]),
    "a large payload": ({"payload": "x" * (512 * 1024)}, ["payload"]),
    "a deep payload": ({"payload": nested(65)}, ["payload"]),
    "NUL in a key": ({"key": "\0"}, ["idempotency_key"]),
    "a blank key": ({"key": ""}, ["idempotency_key"]),
    "a time without a zone": ({"created_at": datetime(2026, 1, 1)}, ["created_at"]),  # noqa: DTZ001 that is the point
    "a time before the calendar": (
        {"created_at": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))},
        ["created_at"],
    ),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_invalid_field_is_rejected_with_its_location(hub: Hub, what: str):
    build = await new_receiver(hub)
    given, places = REFUSED[what]
    with pytest.raises(InvalidInput) as refusal:
        await hub.recorder.record(MANAGER, new_event(build, **given))  # pyright: ignore[reportArgumentType]
    assert [violation.field for violation in refusal.value.violations] == places
    assert await kinds(hub) == [Kind.RECEIVER_CREATED]


async def test_values_at_the_limits_are_stored(hub: Hub):
    build = await new_receiver(hub)
    payloads: list[object] = ["x" * (512 * 1024 - 2), nested(64)]
    for payload in payloads:
        answer = await hub.recorder.record(MANAGER, new_event(build, payload=payload))
        assert (await hub.events.get(VIEWER, answer.event.id)).payload == orjson.dumps(payload)
    longest = new_event(build, name="名" * 255, package="包" * 255, description="述" * 4000, key="键" * 255)
    assert (await hub.recorder.record(MANAGER, longest)).event.name == "名" * 255


async def test_future_event_is_rejected(hub: Hub, database_url: str):
    build = await new_receiver(hub)
    with pytest.raises(InvalidInput) as refusal:
        await hub.recorder.record(MANAGER, new_event(build, created_at=datetime.now(UTC) + timedelta(minutes=1)))
    assert refusal.value.field == "created_at"
    assert await events_stored(database_url) == 0


@pytest.mark.parametrize("behind", ["the database's clock", "the process's clock"])
def test_one_clock_set_back_rejects_no_event(behind: str):
    right, wrong = datetime(2026, 1, 1, 12, tzinfo=UTC), datetime(2026, 1, 1, 11, tzinfo=UTC)
    recorded_at, present = (wrong, right) if behind == "the database's clock" else (right, wrong)
    accepted = rules.accept(new_event("receiver", created_at=right), EventSettings())
    assert rules.place(accepted, 1, recorded_at, "owner", present).created_at == right
    later = rules.accept(new_event("receiver", created_at=right + timedelta(seconds=1)), EventSettings())
    with pytest.raises(InvalidInput):
        rules.place(later, 1, recorded_at, "owner", present)


async def test_all_schema_violations_are_reported(hub: Hub, database_url: str):
    build = await new_receiver(hub, schema={"properties": {"n": {"type": "integer"}, "s": {"type": "string"}}})
    with pytest.raises(InvalidInput) as refusal:
        await hub.recorder.record(MANAGER, new_event(build, payload={"n": "1", "s": 1}))
    assert {violation.field for violation in refusal.value.violations} == {"payload/n", "payload/s"}
    assert await events_stored(database_url) == 0


@pytest.mark.parametrize("id", ["01M7XD0WJCG1Y78QPF4180KVTM", "nobody", "\x7f"])
async def test_event_of_unknown_receiver_is_rejected(hub: Hub, id: str):
    with pytest.raises(NotFound) as refusal:
        await hub.recorder.record(MANAGER, new_event(id))
    assert refusal.value.field == "receiver_id"
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
    news = [new_event(build, name=name, payload=payload) for payload in payloads]
    answers = await hub.recorder.record_all(MANAGER, news)
    if any(isinstance(answer, InvalidInput) for answer in answers):
        assert "\0" in name or not name.strip() or any("\ud800" <= c <= "\udfff" for c in name)
        return
    stored = await hub.events.by_positions(VIEWER, [answer.event.position for answer in recorded(answers)])
    for answer, payload in zip(recorded(answers), payloads, strict=True):
        assert stored[answer.event.position] == answer.event
        assert answer.event.payload == orjson.dumps(payload)


# Many at once --------------------------------------------------------------------------------------


async def test_mixed_batch_returns_results_in_order(hub: Hub, database_url: str):
    build = await new_receiver(hub, schema={"type": "integer"})
    off = await hub.receivers.update(MANAGER, (await new_receiver(hub, "off")).id, ReceiverChange(enabled=False))
    before = (await messages(hub))[-1].position
    news = [_mixed(n, build, off) for n in range(1000)]
    answers = await hub.recorder.record_all(MANAGER, news)
    expected = [Recorded, InvalidInput, NotFound, Conflict, Recorded]
    assert [type(answer) for answer in answers] == expected * 200
    good = [answer for answer in answers if isinstance(answer, Recorded)]
    assert [answer.event.payload for answer in good] == [b"%d" % n for n in range(1000) if n % 5 in (0, 4)]
    assert [answer.event.position for answer in good] == list(range(before + 1, before + 401))
    assert await events_stored(database_url) == 400


def _mixed(n: int, build: Receiver, off: Receiver) -> NewEvent:
    new = new_event(build, name=f"app-{n % 7}", payload=n)
    match n % 5:
        case 1:
            return replace(new, payload=str(n))
        case 2:
            return replace(new, receiver_id="nobody")
        case 3:
            return replace(new, receiver_id=off.id)
        case _:
            return new


async def test_batch_above_thousand_events_is_rejected(hub: Hub):
    build = await new_receiver(hub)
    with pytest.raises(InvalidInput, match="at most 1,000"):
        await hub.recorder.record_all(MANAGER, [new_event(build)] * 1001)
    assert await hub.recorder.record_all(MANAGER, []) == []
    assert await kinds(hub) == [Kind.RECEIVER_CREATED]
