"""Idempotency keys: an event that repeats an actor's key and content is not recorded again."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from tests.support.hub import (
    MANAGER,
    actor,
    execute,
    kinds,
    new_event,
    new_group,
    new_receiver,
    running_hub,
)
from xzepr.core.actor import Permission
from xzepr.core.errors import Conflict, InvalidInput
from xzepr.core.ids import digest_of_parts
from xzepr.features.events.model import Recorded
from xzepr.features.receivers.model import ReceiverChange
from xzepr.features.stream.kinds import Kind
from xzepr.hub import Hub

OTHER = actor("other", Permission.EVENT_CREATE)


async def test_repeat_returns_first_event(hub: Hub):
    build = await new_receiver(hub)
    gate = await new_group(hub, build)
    new = new_event(build, payload={"b": 1, "a": [2]}, key="k")
    first = await hub.recorder.record(MANAGER, new)
    second = await hub.recorder.record(MANAGER, new)
    assert (first.repeated, second.repeated) == (False, True)
    assert (second.event, second.cursor, second.gates) == (first.event, first.cursor, first.gates)
    assert await kinds(hub, gate.position) == [Kind.EVENT_RECORDED, Kind.GATE_COMPLETED]


async def test_repeat_returns_current_gates(hub: Hub):
    build, scan = await new_receiver(hub), await new_receiver(hub, "scan")
    await new_group(hub, build, scan)
    new = new_event(build, key="k")
    assert [gate.complete for gate in (await hub.recorder.record(MANAGER, new)).gates] == [False]
    await hub.recorder.record(MANAGER, new_event(scan))
    assert [gate.complete for gate in (await hub.recorder.record(MANAGER, new)).gates] == [True]


OTHER_CONTENT: dict[str, Any] = {
    "name": "b",
    "version": "2",
    "release": "2",
    "platform_id": "mac",
    "package": "deb",
    "description": "other",
    "payload": {"a": 1, "b": 3},
    "success": False,
    "created_at": datetime(2026, 1, 1, 1, tzinfo=UTC),
}


SAME_PAYLOADS = [
    {"a": {"x": 1, "y": [1, 2.5]}, "b": 2, "c": 10**17},
    {"c": 1e17, "b": 2.0, "a": {"y": [1.0, 2.5], "x": 1}},
]
OTHER_PAYLOADS = [
    {"a": {"x": 1, "y": [2.5, 1]}, "b": 2},
    {"a": {"x": "1", "y": [1, 2.5]}, "b": 2},
    {"a": {"x": True, "y": [1, 2.5]}, "b": 2},
    {"a": {"x": 1, "y": [1, 2.5]}, "b": 2, "c": None},
]


async def test_payloads_with_equal_values_are_the_same_content(hub: Hub):
    build = await new_receiver(hub)
    first, second = (new_event(build, payload=payload, key="k") for payload in SAME_PAYLOADS)
    recorded = await hub.recorder.record(MANAGER, first)
    repeat = await hub.recorder.record(MANAGER, second)
    assert repeat.repeated
    assert repeat.event.id == recorded.event.id
    for payload in OTHER_PAYLOADS:
        with pytest.raises(Conflict):
            await hub.recorder.record(MANAGER, replace(first, payload=payload))


async def test_integers_beyond_doubles_are_different_content(hub: Hub):
    build = await new_receiver(hub)
    await hub.recorder.record(MANAGER, new_event(build, payload=2**53, key="k"))
    with pytest.raises(Conflict):
        await hub.recorder.record(MANAGER, new_event(build, payload=2**53 + 1, key="k"))


async def test_key_of_an_older_version_is_honoured(hub: Hub, database_url: str):
    build = await new_receiver(hub)
    new = new_event(build, payload={"b": 1, "a": 2.0}, key="k")
    first = await hub.recorder.record(MANAGER, new)
    texts = (b"" if new.created_at is None else new.created_at.isoformat().encode(), build.id.encode())
    parts = (first.event.unit_id, new.description.encode(), b'{"b":1,"a":2.0}', b"passed", texts[1], texts[0])
    await execute(database_url, "UPDATE idempotency SET digest = %s", (digest_of_parts(parts),))
    assert (await hub.recorder.record(MANAGER, new)).event.id == first.event.id
    with pytest.raises(Conflict):
        await hub.recorder.record(MANAGER, replace(new, payload={"b": 1, "a": 3}))


@pytest.mark.parametrize("field", [*OTHER_CONTENT, "receiver"])
async def test_repeat_with_other_content_is_conflict(hub: Hub, database_url: str, field: str):
    build, scan = await new_receiver(hub), await new_receiver(hub, "scan")
    new = new_event(build, payload={"a": 1, "b": 2}, created_at=datetime(2026, 1, 1, tzinfo=UTC), key="k")
    await hub.recorder.record(MANAGER, new)
    other = replace(new, receiver_id=scan.id) if field == "receiver" else replace(new, **{field: OTHER_CONTENT[field]})
    with pytest.raises(Conflict) as error:
        await hub.recorder.record(MANAGER, other)
    assert error.value.field == "idempotency_key"
    assert await execute(database_url, "SELECT count(*) FROM events") == [(1,)]
    assert (await hub.recorder.record(MANAGER, new)).repeated


async def test_same_time_in_another_zone_is_a_repeat(hub: Hub):
    build = await new_receiver(hub)
    moment = datetime(2026, 1, 1, 12, tzinfo=UTC)
    await hub.recorder.record(MANAGER, new_event(build, created_at=moment, key="k"))
    same_moment = moment.astimezone(timezone(timedelta(hours=-5)))
    assert (await hub.recorder.record(MANAGER, new_event(build, created_at=same_moment, key="k"))).repeated


async def test_first_event_with_key_wins_within_one_call(hub: Hub, database_url: str):
    build = await new_receiver(hub)
    a, b = new_event(build, key="k"), new_event(build, name="other", key="k")
    results = await hub.recorder.record_all(MANAGER, [a, a, b, replace(b, idempotency_key="l"), a])
    first, second, conflict, other, last = results
    assert isinstance(conflict, Conflict)
    assert isinstance(first, Recorded)
    assert isinstance(other, Recorded)
    assert second == last == replace(first, repeated=True)
    assert (first.repeated, other.repeated) == (False, False)
    assert await execute(database_url, "SELECT name FROM events ORDER BY position") == [("app",), ("other",)]


async def test_concurrent_repeats_record_one_event(database_url: str):
    async with running_hub(database_url) as first_hub, running_hub(database_url) as second_hub:
        new = new_event(await new_receiver(first_hub), key="k")
        calls = [hub.recorder.record(MANAGER, new) for hub in (first_hub, second_hub) for _ in range(20)]
        results = await asyncio.gather(*calls)
    assert sorted(result.repeated for result in results) == [False] + [True] * 39
    assert len({result.event.id for result in results}) == 1
    assert await execute(database_url, "SELECT count(*) FROM events") == [(1,)]


async def test_key_survives_restart(database_url: str):
    async with running_hub(database_url) as hub:
        new = new_event(await new_receiver(hub), key="k")
        first = await hub.recorder.record(MANAGER, new)
    async with running_hub(database_url) as hub:
        second = await hub.recorder.record(MANAGER, new)
    assert (second.event, second.cursor, second.gates) == (first.event, first.cursor, first.gates)


async def test_keys_are_scoped_to_actor(hub: Hub):
    build = await new_receiver(hub)
    own = await hub.recorder.record(MANAGER, new_event(build, key="k"))
    other = await hub.recorder.record(OTHER, new_event(build, name="other", key="k"))
    assert (other.repeated, other.event.owner_id) == (False, "other")
    assert (await hub.recorder.record(MANAGER, new_event(build, key="k"))).event == own.event


async def test_rejected_event_does_not_use_its_key(hub: Hub):
    build = await new_receiver(hub, schema={"type": "integer"})
    with pytest.raises(InvalidInput):
        await hub.recorder.record(MANAGER, new_event(build, payload="x", key="k"))
    future = datetime.now(UTC) + timedelta(hours=1)
    with pytest.raises(InvalidInput):
        await hub.recorder.record(MANAGER, new_event(build, payload=1, created_at=future, key="k"))
    assert not (await hub.recorder.record(MANAGER, new_event(build, payload=1, key="k"))).repeated


@pytest.mark.parametrize("change", [ReceiverChange(enabled=False), ReceiverChange(schema={"type": "null"})])
async def test_repeat_succeeds_after_receiver_change(hub: Hub, change: ReceiverChange):
    build = await new_receiver(hub)
    new = new_event(build, key="k")
    first = await hub.recorder.record(MANAGER, new)
    await hub.receivers.update(MANAGER, build.id, change)
    assert await hub.recorder.record(MANAGER, new) == replace(first, repeated=True)
    with pytest.raises((Conflict, InvalidInput)):
        await hub.recorder.record(MANAGER, replace(new, idempotency_key="another"))


async def test_keys_expire_after_24_hours(hub: Hub, database_url: str):
    build = await new_receiver(hub)
    for key in ("old", "young"):
        await hub.recorder.record(MANAGER, new_event(build, key=key))
    await execute(
        database_url,
        """
        UPDATE idempotency SET recorded_at = recorded_at
            - CASE key WHEN 'old' THEN interval '24 hours 1 minute' ELSE interval '23 hours 59 minutes' END
        """,
    )
    await hub.events.delete_old_keys()
    assert (await hub.recorder.record(MANAGER, new_event(build, key="young"))).repeated
    assert not (await hub.recorder.record(MANAGER, new_event(build, key="old"))).repeated
