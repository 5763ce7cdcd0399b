"""Gates: when a group is complete for a unit, what the stream says of it, and since when."""

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
class Said:
    """A gate message, in short."""

    kind: Kind
    group: str
    transition: bool


async def report(hub: Hub, receiver: Receiver, success: bool = True, unit: Unit = UNIT) -> Recorded:
    new = replace(new_event(receiver, success=success), **asdict(unit))
    return await hub.recorder.record(MANAGER, new)


async def said_of(hub: Hub, recorded: Recorded) -> list[Said]:
    """What one event did to gates, in the stream's order."""
    found = [m for m in await messages(hub, recorded.event.position) if m.event == recorded.event]
    return [Said(m.kind, content(m)["eventReceiverGroup"]["name"], content(m)["transition"]) for m in found]


def content(message: Message) -> dict[str, Any]:
    assert message.data is not None
    return orjson.loads(message.data)


def completed(group: str, *, transition: bool) -> Said:
    return Said(Kind.GATE_COMPLETED, group, transition)


async def gate(hub: Hub, group: Group) -> Gate:
    return await hub.groups.gate(VIEWER, group.id, UNIT)


async def test_event_provenance_registry_scenarios(hub: Hub):
    r1, r2, r3, r4 = [await new_receiver(hub, name) for name in ("r1", "r2", "r3", "r4")]
    await new_group(hub, r1, name="A")
    await new_group(hub, r1, r2, name="B")
    await new_group(hub, r3, name="C")
    await new_group(hub, r3, r4, name="D", enabled=False)
    assert await said_of(hub, await report(hub, r1)) == [completed("A", transition=True)]
    assert await said_of(hub, await report(hub, r2)) == [completed("B", transition=True)]
    again = await report(hub, r1)
    assert await said_of(hub, again) == [completed("A", transition=False), completed("B", transition=False)]
    failed = await report(hub, r1, success=False)
    assert await said_of(hub, failed) == [Said(Kind.GATE_REGRESSED, "A", True), Said(Kind.GATE_REGRESSED, "B", True)]
    assert await said_of(hub, await report(hub, r2)) == [], "r1 failed last"
    assert await said_of(hub, await report(hub, r3)) == [completed("C", transition=True)]


async def test_failure_of_incomplete_gate_publishes_nothing(hub: Hub):
    build, scan = await new_receiver(hub), await new_receiver(hub, "scan")
    await new_group(hub, build, scan)
    assert await said_of(hub, await report(hub, build, success=False)) == []
    assert await said_of(hub, await report(hub, scan)) == []
    assert await said_of(hub, await report(hub, scan, success=False)) == []


@pytest.mark.parametrize("field", ["name", "version", "release", "platform_id", "package"])
async def test_units_differing_in_one_field_are_independent(hub: Hub, field: str):
    build, scan = await new_receiver(hub), await new_receiver(hub, "scan")
    await new_group(hub, build, scan)
    await report(hub, build)
    for other in ("APP ", "é", "é"):
        assert await said_of(hub, await report(hub, scan, unit=replace(UNIT, **{field: other}))) == []
    assert len(await said_of(hub, await report(hub, scan))) == 1


async def test_recorded_gates_match_gate_query(hub: Hub):
    build, scan, sign = [await new_receiver(hub, name) for name in ("build", "scan", "sign")]
    group = await new_group(hub, sign, build, scan)
    assert [member.state for member in (await gate(hub, group)).members] == [MemberState.MISSING] * 3
    first = await report(hub, build)
    failed = await report(hub, scan, success=False)
    assert failed.gates == (await gate(hub, group),)
    now = failed.gates[0]
    assert [(member.receiver_id, member.state, member.event_position) for member in now.members] == [
        (sign.id, MemberState.MISSING, None),
        (build.id, MemberState.PASSED, first.event.position),
        (scan.id, MemberState.FAILED, failed.event.position),
    ]
    assert (now.complete, now.since, now.unit, now.group) == (False, None, UNIT, group)
    await report(hub, sign)
    last = await report(hub, scan)
    assert (last.gates[0].complete, last.gates[0].since) == (True, last.event.recorded_at)
    again = await report(hub, build)
    assert again.gates[0].since == last.event.recorded_at, "its run of successes goes on"
    assert (await gate(hub, group)).since == last.event.recorded_at
    [message] = [m for m in await messages(hub, again.event.position) if m.kind is Kind.GATE_COMPLETED]
    assert content(message)["since"] == last.event.recorded_at.isoformat().replace("+00:00", "Z")
    assert message.receiver_id == build.id
    assert message.group_id == group.id
    await report(hub, build, success=False)
    assert (await gate(hub, group)).since is None
    back = await report(hub, build)
    assert (await gate(hub, group)).since == back.event.recorded_at


async def test_gate_message_keeps_group_at_event_time(hub: Hub):
    build = await new_receiver(hub)
    group = await new_group(hub, build, name="before")
    recorded = await report(hub, build)
    await hub.groups.update(MANAGER, group.id, GroupChange(name="after"))
    assert await said_of(hub, recorded) == [completed("before", transition=True)]


async def test_gate_of_disabled_group_is_computed_on_query(hub: Hub):
    build = await new_receiver(hub)
    group = await new_group(hub, build, enabled=False)
    recorded = await report(hub, build)
    assert recorded.gates == ()
    assert await said_of(hub, recorded) == []
    assert (await gate(hub, group)).complete
    assert [gate.complete for gate in (await hub.groups.gates_of_units(VIEWER, [UNIT]))[UNIT]] == [True]


async def test_first_event_after_enabling_is_transition(hub: Hub):
    build, scan = await new_receiver(hub), await new_receiver(hub, "scan")
    group = await new_group(hub, build, scan, enabled=False)
    await report(hub, build)
    await report(hub, scan)
    await hub.groups.set_enabled(MANAGER, group.id, True)
    assert await said_of(hub, await report(hub, scan)) == [completed("gate", transition=True)]
    assert await said_of(hub, await report(hub, scan)) == [completed("gate", transition=False)]


async def test_first_event_after_member_change_is_transition(hub: Hub):
    build, scan, sign = [await new_receiver(hub, name) for name in ("build", "scan", "sign")]
    group = await new_group(hub, build, scan)
    for receiver in (build, scan, sign):
        await report(hub, receiver)
    await hub.groups.update(MANAGER, group.id, GroupChange(receiver_ids=(build.id, scan.id, sign.id)))
    await report(hub, sign, unit=replace(UNIT, name="another unit"))
    assert await said_of(hub, await report(hub, build)) == [completed("gate", transition=True)]
    assert await said_of(hub, await report(hub, sign)) == [completed("gate", transition=False)]


async def test_gate_completes_after_failing_member_is_removed(hub: Hub):
    build, scan = await new_receiver(hub), await new_receiver(hub, "scan")
    group = await new_group(hub, build, scan)
    await report(hub, build)
    await report(hub, scan, success=False)
    await hub.groups.update(MANAGER, group.id, GroupChange(receiver_ids=(build.id,)))
    assert (await gate(hub, group)).complete
    assert await said_of(hub, await report(hub, scan)) == [], "it is no member any more"
    assert await said_of(hub, await report(hub, build)) == [completed("gate", transition=True)]
    assert await said_of(hub, await report(hub, build, success=False)) == [Said(Kind.GATE_REGRESSED, "gate", True)]


async def test_receiver_change_does_not_reset_gate(hub: Hub):
    build = await new_receiver(hub)
    await new_group(hub, build)
    await report(hub, build)
    await hub.receivers.update(MANAGER, build.id, ReceiverChange(schema={"type": "object"}))
    assert await said_of(hub, await report(hub, build)) == [completed("gate", transition=False)]


async def test_events_of_one_batch_are_evaluated_in_order(hub: Hub, database_url: str):
    build, scan = await new_receiver(hub), await new_receiver(hub, "scan")
    await new_group(hub, build, scan)
    steps = [(build, True), (scan, True), (scan, True), (build, False), (scan, True), (build, True)]
    answers = await hub.recorder.record_all(MANAGER, [new_event(r, success=ok) for r, ok in steps])
    assert await execute(database_url, "SELECT count(DISTINCT xmin::text) FROM events") == [(1,)]
    said = [await said_of(hub, answer) for answer in answers if isinstance(answer, Recorded)]
    assert said == [
        [],
        [completed("gate", transition=True)],
        [completed("gate", transition=False)],
        [Said(Kind.GATE_REGRESSED, "gate", True)],
        [],
        [completed("gate", transition=True)],
    ]
    complete = [answer.gates[0].complete for answer in answers if isinstance(answer, Recorded)]
    assert complete == [False, True, True, False, False, True], "each is told the gate as its event left it"


async def test_gate_messages_follow_group_creation_order(hub: Hub):
    build = await new_receiver(hub)
    for name in "zmaqb":
        await new_group(hub, build, name=name)
    recorded = await report(hub, build)
    assert [said.group for said in await said_of(hub, recorded)] == list("zmaqb")
    assert [gate.group.name for gate in recorded.gates] == list("zmaqb")


async def test_rows_read_do_not_grow_with_history(hub: Hub, database_url: str):
    build, scan = await new_receiver(hub), await new_receiver(hub, "scan")
    await new_group(hub, build, scan)
    await report(hub, build)
    await report(hub, scan)
    few = await _rows_read(database_url, build)
    news = [new_event(r, success=n % 3 > 0) for n in range(500) for r in (build, scan)]
    news += [new_event(build, name=f"other-{n}") for n in range(1000)]
    for start in (0, 1000):
        await hub.recorder.record_all(MANAGER, news[start : start + 1000])
    assert await _rows_read(database_url, build) == few == {"groups": 1, "group_members": 3, "unit_status": 2}


class _Explaining:
    """A connection that tells how PostgreSQL went about each statement instead of what it found."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self.plans: list[dict[str, Any]] = []

    def cursor(self, **_: object) -> "_Explaining":
        return self

    async def execute(self, statement: Any, values: Any) -> None:
        cursor = await self._connection.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + statement, values)
        row = await cursor.fetchone()
        assert row is not None, "EXPLAIN answers"
        self.plans.append(row[0][0]["Plan"])


async def _rows_read(database_url: str, receiver: Receiver) -> dict[str, int]:
    """Rows that the two statements of gating took from each table for one event."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("ANALYZE")
        explaining = _Explaining(connection)
        await store.enabled_having(cast(Connection, explaining), [receiver.id])
        await store.statuses(cast(Connection, explaining), [UNIT.id])
    found: Counter[str] = Counter()
    for node in (node for plan in explaining.plans for node in _nodes(plan)):
        if "Relation Name" in node:
            read = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            found[node["Relation Name"]] += round(read)
    return dict(found)


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", ()) for node in _nodes(child))]
