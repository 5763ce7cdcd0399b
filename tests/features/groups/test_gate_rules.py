"""The rules of complete gates, without a database."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xzepr.core.errors import InvalidInput
from xzepr.features.groups import rules
from xzepr.features.groups.model import Group, MemberState, Unit, UnitStatus
from xzepr.features.stream.model import Event
from xzepr.settings import EventSettings

START = datetime(2026, 1, 1, tzinfo=UTC)
UNIT = Unit("app", "1.0", "1", "linux", "rpm")
GROUP = Group("G", 1, "n", "t", "1", "d", True, "u", 1, 1, START, START, ("a", "b"))


def event(position: int, receiver_id: str, success: bool = True, unit: Unit = UNIT) -> Event:
    """An event recorded `position` seconds after START."""
    time = START + timedelta(seconds=position)
    return Event(
        position, f"E{position}", unit.id, *_fields(unit), "d", b"{}", success, receiver_id, 1, "u", time, time
    )


def _fields(unit: Unit) -> tuple[str, str, str, str, str]:
    return unit.name, unit.version, unit.release, unit.platform_id, unit.package


def test_gate_is_complete_if_all_members_passed_last():
    passed = UnitStatus(UNIT.id, "a", 5, True, 3, START)
    for second, complete, state in (
        (None, False, MemberState.MISSING),
        (UnitStatus(UNIT.id, "b", 6, False, None, None), False, MemberState.FAILED),
        (UnitStatus(UNIT.id, "b", 6, True, 6, START + timedelta(1)), True, MemberState.PASSED),
    ):
        statuses = {"a": passed, "other": replace(passed, success=False)} | ({"b": second} if second else {})
        gate = rules.evaluate_gate(GROUP, UNIT, statuses)
        assert (gate.complete, gate.members[1].state) == (complete, state)
        assert gate.since == (START + timedelta(1) if complete else None)


def test_fold_continues_from_stored_states():
    statuses = [UnitStatus(UNIT.id, "a", 5, True, 3, START), UnitStatus(UNIT.id, "b", 6, True, 6, START)]
    fold = rules.GateFold(statuses)
    verdicts = [
        fold.record(event(p, r, ok), [GROUP])[0] for p, r, ok in ((10, "a", True), (11, "b", False), (12, "b", True))
    ]
    assert [(v.completed, v.regressed, v.transition) for v in verdicts] == [
        (True, False, False),
        (False, True, True),
        (True, False, True),
    ]
    assert rules.gate_of(verdicts[0]).since == START
    assert rules.gate_of(verdicts[2]).since == START + timedelta(seconds=12)
    changed = {status.receiver_id: status for status in fold.changed()}
    assert changed["a"] == UnitStatus(UNIT.id, "a", 10, True, 3, START), "its run of successes started at position 3"
    assert changed["b"] == UnitStatus(UNIT.id, "b", 12, True, 12, START + timedelta(seconds=12))


def test_first_event_after_group_change_is_transition():
    statuses = [UnitStatus(UNIT.id, id, 5, True, 5, START) for id in ("a", "b")]
    for changed_position, transition in ((4, False), (5, True), (9, True)):
        fold, group = rules.GateFold(statuses), replace(GROUP, changed_position=changed_position)
        assert [fold.record(event(p, "a"), [group])[0].transition for p in (10, 11)] == [transition, False]


def test_event_outside_groups_only_updates_status():
    other = replace(UNIT, package="deb")
    fold, groups = rules.GateFold([]), rules.groups_by_receiver([GROUP])
    assert "other" not in groups
    assert fold.record(event(1, "other"), []) == []
    assert not fold.record(event(2, "a"), groups["a"])[0].completed
    assert not fold.record(event(3, "b", unit=other), groups["b"])[0].completed
    assert len(fold.changed()) == 3


def test_groups_of_receiver_are_sorted_by_creation():
    first, second = replace(GROUP, id="first", position=1, receiver_ids=("b",)), replace(GROUP, position=2)
    groups = rules.groups_by_receiver([second, first])
    assert groups == {"a": [second], "b": [first, second]}


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
TIMES = st.datetimes(timezones=st.just(UTC))


@given(
    st.builds(
        Group,
        *[TEXT, st.integers(1, 2**63 - 1), TEXT, TEXT, TEXT, TEXT, st.booleans(), TEXT],
        *[st.integers(1, 2**31), st.integers(1, 2**63 - 1), TIMES, TIMES, st.lists(TEXT).map(tuple)],
    )
)
def test_group_snapshot_round_trips(group: Group):
    assert rules.from_snapshot(orjson.loads(rules.snapshot(group))) == group


def test_omitted_fields_are_not_checked():
    rules.check({"name": None}, None, limits=EventSettings(), max_members=1)
    with pytest.raises(InvalidInput):
        rules.check({"name": ""}, None, limits=EventSettings(), max_members=1)
