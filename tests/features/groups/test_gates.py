"""Gates: when a group is complete for a unit, since when, and its messages in the stream."""

from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import orjson
import psycopg
import pytest

from tests.support.hub import (
    MANAGER,
    VIEWER,
    execute,
    messages,
    new_event,
    new_group,
    new_receiver,
)
from xzepr.features.events.model import Recorded
from xzepr.features.groups import store
from xzepr.features.groups.model import Gate, Group, GroupChange, MemberState, Unit
from xzepr.features.receivers.model import Receiver, ReceiverChange
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import Message
from xzepr.hub import Hub
from xzepr.infra.db import Connection

UNIT = Unit("app", "1.0", "1", "linux", "rpm")


@dataclass(frozen=True, slots=True)
class GateMessage:
    """The essential fields of a gate message."""

    kind: Kind
    group: str
    transition: bool


async def report(hub: Hub, receiver: Receiver, success: bool = True, unit: Unit = UNIT) -> Recorded:
    new = replace(new_event(receiver, success=success), **asdict(unit))
    return await hub.recorder.record(MANAGER, new)


async def gate_messages_of(hub: Hub, recorded: Recorded) -> list[GateMessage]:
    """Returns the gate messages of one event, in the order of the stream."""
    event_messages = [m for m in await messages(hub, recorded.event.position) if m.event == recorded.event]
    return [
        GateMessage(m.kind, content(m)["eventReceiverGroup"]["name"], content(m)["transition"]) for m in event_messages
    ]


def content(message: Message) -> dict[str, Any]:
    assert message.data is not None
    return orjson.loads(message.data)


def completed(group: str, *, transition: bool) -> GateMessage:
    return GateMessage(Kind.GATE_COMPLETED, group, transition)


async def gate(hub: Hub, group: Group) -> Gate:
    return await hub.groups.gate(VIEWER, group.id, UNIT)


async def test_event_provenance_registry_scenarios(hub: Hub):
    r1, r2, r3, r4 = [await new_receiver(hub, name) for name in ("r1", "r2", "r3", "r4")]
    await new_group(hub, r1, name="A")
    await new_group(hub, r1, r2, name="B")
    await new_group(hub, r3, name="C")
    await new_group(hub, r3, r4, name="D", enabled=False)
    assert await gate_messages_of(hub, await report(hub, r1)) == [completed("A", transition=True)]
    assert await gate_messages_of(hub, await report(hub, r2)) == [completed("B", transition=True)]
    again = await report(hub, r1)
    assert await gate_messages_of(hub, again) == [completed("A", transition=False), completed("B", transition=False)]
    failed = await report(hub, r1, success=False)
    assert await gate_messages_of(hub, failed) == [
        GateMessage(Kind.GATE_REGRESSED, "A", True),
        GateMessage(Kind.GATE_REGRESSED, "B", True),
    ]
    assert await gate_messages_of(hub, await report(hub, r2)) == [], "r1 failed last"
    assert await gate_messages_of(hub, await report(hub, r3)) == [completed("C", transition=True)]


async def test_failure_of_incomplete_gate_publishes_nothing(hub: Hub):
    build, scan = await new_receiver(hub), await new_receiver(hub, "scan")
    await new_group(hub, build, scan)
    assert await gate_messages_of(hub, await report(hub, build, success=False)) == []
    assert await gate_messages_of(hub, await report(hub, scan)) == []
    assert await gate_messages_of(hub, await report(hub, scan, success=False)) == []


@pytest.mark.parametrize("field", ["name", "version", "release", "platform_id", "package"])
async def test_units_differing_in_one_field_are_independent(hub: Hub, field: str):
    build, scan = await new_receiver(hub), await new_receiver(hub, "scan")
    await new_group(hub, build, scan)
    await report(hub, build)
    for other in ("APP ", "é", "é"):
        assert await gate_messages_of(hub, await report(hub, scan, unit=replace(UNIT, **{field: other}))) == []
    assert len(await gate_messages_of(hub, await report(hub, scan))) == 1


async def test_recorded_gates_match_gate_query(hub: Hub):
    build, scan, sign = [await new_receiver(hub, name) for name in ("build", "scan", "sign")]
    group = await new_group(hub, sign, build, scan)
    assert [member.state for member in (await gate(hub, group)).members] == [MemberState.MISSING] * 3
    first = await report(hub, build)
    failed = await report(hub, scan, success=False)
    assert failed.gates == (await gate(hub, group),)
    failed_gate = failed.gates[0]
    assert [(member.receiver_id, member.state, member.event_position) for member in failed_gate.members] == [
        (sign.id, MemberState.MISSING, None),
        (build.id, MemberState.PASSED, first.event.position),
        (scan.id, MemberState.FAILED, failed.event.position),
    ]
    assert (failed_gate.complete, failed_gate.since, failed_gate.unit, failed_gate.group) == (False, None, UNIT, group)
    await report(hub, sign)
    last = await report(hub, scan)
    assert (last.gates[0].complete, last.gates[0].since) == (True, last.event.recorded_at)
    again = await report(hub, build)
    assert again.gates[0].since == last.event.recorded_at, "the run of successes continues"
    assert (await gate(hub, group)).since == last.event.recorded_at
    [message] = [m for m in await messages(hub, again.event.position) if m.kind is Kind.GATE_COMPLETED]
    assert content(message)["since"] == last.event.recorded_at.isoformat().replace("+00:00", "Z")
    assert message.receiver_id == build.id
    assert message.group_id == group.id
    await report(hub, build, success=False)
    assert (await gate(hub, group)).since is None
    recovered = await report(hub, build)
    assert (await gate(hub, group)).since == recovered.event.recorded_at


async def test_gate_message_keeps_group_at_event_time(hub: Hub):
    build = await new_receiver(hub)
    group = await new_group(hub, build, name="before")
    recorded = await report(hub, build)
    await hub.groups.update(MANAGER, group.id, GroupChange(name="after"))
    assert await gate_messages_of(hub, recorded) == [completed("before", transition=True)]


async def test_gate_of_disabled_group_is_computed_on_query(hub: Hub):
    build = await new_receiver(hub)
    group = await new_group(hub, build, enabled=False)
    recorded = await report(hub, build)
    assert recorded.gates == ()
    assert await gate_messages_of(hub, recorded) == []
    assert (await gate(hub, group)).complete
    assert [gate.complete for gate in (await hub.groups.gates_of_units(VIEWER, [UNIT]))[UNIT]] == [True]


async def test_first_event_after_enabling_is_transition(hub: Hub):
    build, scan = await new_receiver(hub), await new_receiver(hub, "scan")
    group = await new_group(hub, build, scan, enabled=False)
    await report(hub, build)
    await report(hub, scan)
    await hub.groups.set_enabled(MANAGER, group.id, True)
    assert await gate_messages_of(hub, await report(hub, scan)) == [completed("gate", transition=True)]
    assert await gate_messages_of(hub, await report(hub, scan)) == [completed("gate", transition=False)]


async def test_first_event_after_member_change_is_transition(hub: Hub):
    build, scan, sign = [await new_receiver(hub, name) for name in ("build", "scan", "sign")]
    group = await new_group(hub, build, scan)
    for receiver in (build, scan, sign):
        await report(hub, receiver)
    await hub.groups.update(MANAGER, group.id, GroupChange(receiver_ids=(build.id, scan.id, sign.id)))
    await report(hub, sign, unit=replace(UNIT, name="another unit"))
    assert await gate_messages_of(hub, await report(hub, build)) == [completed("gate", transition=True)]
    assert await gate_messages_of(hub, await report(hub, sign)) == [completed("gate", transition=False)]


async def test_gate_completes_after_failing_member_is_removed(hub: Hub):
    build, scan = await new_receiver(hub), await new_receiver(hub, "scan")
    group = await new_group(hub, build, scan)
    await report(hub, build)
    await report(hub, scan, success=False)
    await hub.groups.update(MANAGER, group.id, GroupChange(receiver_ids=(build.id,)))
    assert (await gate(hub, group)).complete
    assert await gate_messages_of(hub, await report(hub, scan)) == [], "scan is no longer a member"
    assert await gate_messages_of(hub, await report(hub, build)) == [completed("gate", transition=True)]
    assert await gate_messages_of(hub, await report(hub, build, success=False)) == [
        GateMessage(Kind.GATE_REGRESSED, "gate", True)
    ]


async def test_receiver_change_does_not_reset_gate(hub: Hub):
    build = await new_receiver(hub)
    await new_group(hub, build)
    await report(hub, build)
    await hub.receivers.update(MANAGER, build.id, ReceiverChange(schema={"type": "object"}))
    assert await gate_messages_of(hub, await report(hub, build)) == [completed("gate", transition=False)]


async def test_events_of_one_batch_are_evaluated_in_order(hub: Hub, database_url: str):
    build, scan = await new_receiver(hub), await new_receiver(hub, "scan")
    await new_group(hub, build, scan)
    steps = [(build, True), (scan, True), (scan, True), (build, False), (scan, True), (build, True)]
    results = await hub.recorder.record_all(MANAGER, [new_event(r, success=ok) for r, ok in steps])
    assert await execute(database_url, "SELECT count(DISTINCT xmin::text) FROM events") == [(1,)]
    gate_messages = [await gate_messages_of(hub, result) for result in results if isinstance(result, Recorded)]
    assert gate_messages == [
        [],
        [completed("gate", transition=True)],
        [completed("gate", transition=False)],
        [GateMessage(Kind.GATE_REGRESSED, "gate", True)],
        [],
        [completed("gate", transition=True)],
    ]
    complete = [result.gates[0].complete for result in results if isinstance(result, Recorded)]
    assert complete == [False, True, True, False, False, True], "each result holds the gate after its own event"


async def test_gate_messages_follow_group_creation_order(hub: Hub):
    build = await new_receiver(hub)
    for name in "zmaqb":
        await new_group(hub, build, name=name)
    recorded = await report(hub, build)
    assert [message.group for message in await gate_messages_of(hub, recorded)] == list("zmaqb")
    assert [gate.group.name for gate in recorded.gates] == list("zmaqb")


async def test_rows_read_do_not_grow_with_history(hub: Hub, database_url: str):
    build, scan = await new_receiver(hub), await new_receiver(hub, "scan")
    await new_group(hub, build, scan)
    await report(hub, build)
    await report(hub, scan)
    rows_before = await _rows_read(database_url, build)
    new_events = [new_event(r, success=n % 3 > 0) for n in range(500) for r in (build, scan)]
    new_events += [new_event(build, name=f"other-{n}") for n in range(1000)]
    for start in (0, 1000):
        await hub.recorder.record_all(MANAGER, new_events[start : start + 1000])
    assert await _rows_read(database_url, build) == rows_before == {"groups": 1, "group_members": 3, "unit_status": 2}


class _Explaining:
    """A connection that returns the execution plan of each statement instead of its rows."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self.plans: list[dict[str, Any]] = []

    def cursor(self, **_: object) -> "_Explaining":
        return self

    async def execute(self, statement: Any, values: Any) -> None:
        cursor = await self._connection.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + statement, values)
        row = await cursor.fetchone()
        assert row is not None, "EXPLAIN returns a row"
        self.plans.append(row[0][0]["Plan"])


async def _rows_read(database_url: str, receiver: Receiver) -> dict[str, int]:
    """Returns the number of rows that gating reads from each table for one event, in two statements."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("ANALYZE")
        explaining = _Explaining(connection)
        await store.enabled_groups_with_members(cast(Connection, explaining), [receiver.id])
        await store.statuses(cast(Connection, explaining), [UNIT.id])
    rows_read: Counter[str] = Counter()
    for node in (node for plan in explaining.plans for node in _nodes(plan)):
        if "Relation Name" in node:
            read = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            rows_read[node["Relation Name"]] += round(read)
    return dict(rows_read)


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", ()) for node in _nodes(child))]
