"""The stream's filter and the kinds that an actor may read, without a database."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from xzepr.core.actor import ANONYMOUS, SYSTEM, Actor, ActorKind, Permission
from xzepr.core.ids import unit_id
from xzepr.features.stream.kinds import KINDS, Kind
from xzepr.features.stream.model import Event, Message, StreamFilter
from xzepr.features.stream.rules import matches, readable

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = ("app", "1.0", "1", "linux", "rpm")
EVENT = Event(7, "E", unit_id(*KEY), *KEY, "d", b"{}", True, "r", 1, "u", NOW, NOW)
RECORDED = Message(7, "E", Kind.EVENT_RECORDED, NOW, ActorKind.USER, "u", "u", "r", None, EVENT, None)
GATE = replace(RECORDED, position=8, kind=Kind.GATE_COMPLETED, group_id="g")
GROUP = replace(RECORDED, position=9, kind=Kind.GROUP_UPDATED, receiver_id=None, group_id="g", event=None)

FIELDS: dict[str, tuple[Any, Any]] = {
    "unit_id": (EVENT.unit_id, b"x" * 32),
    "name": ("app", "App"),
    "version": ("1.0", "1"),
    "release": ("1", "01"),
    "platform_id": ("linux", ""),
    "package": ("rpm", "rpm "),
    "success": (True, False),
}


def test_empty_filter_matches_everything():
    assert all(matches(StreamFilter(), message) for message in (RECORDED, GATE, GROUP))


def test_empty_sets_match_nothing():
    assert not matches(StreamFilter(kinds=frozenset()), RECORDED)
    assert not matches(StreamFilter(receiver_ids=frozenset()), RECORDED)


@pytest.mark.parametrize("field", FIELDS)
def test_event_fields_are_compared_exactly(field: str):
    value, other = FIELDS[field]
    filter = replace(StreamFilter(), **{field: value})
    assert [matches(filter, message) for message in (RECORDED, GATE, GROUP)] == [True, True, False]
    assert not matches(replace(StreamFilter(), **{field: other}), RECORDED)


def test_filter_matches_ids_of_the_message():
    assert [matches(StreamFilter(receiver_ids=frozenset("rx")), message) for message in (RECORDED, GATE, GROUP)] == [
        True,
        True,
        False,
    ]
    assert [matches(StreamFilter(group_ids=frozenset("gx")), message) for message in (RECORDED, GATE, GROUP)] == [
        False,
        True,
        True,
    ]
    both = StreamFilter(receiver_ids=frozenset("r"), group_ids=frozenset("g"), name="app")
    assert [matches(both, message) for message in (RECORDED, GATE, GROUP)] == [False, True, False]


def test_readable_kinds_follow_the_table_of_kinds():
    for permission in Permission:
        actor = Actor(ActorKind.USER, "u", "u", frozenset({permission}))
        expected = {kind for kind, facts in KINDS.items() if facts.permission is permission}
        assert readable(actor, None) == expected
        assert readable(actor, frozenset({Kind.GATE_COMPLETED})) == expected & {Kind.GATE_COMPLETED}
    assert readable(ANONYMOUS, None) == frozenset()
    assert readable(SYSTEM, None) == frozenset(Kind)
