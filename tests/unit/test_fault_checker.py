"""The checker of fault runs finds what is wrong: a true history passes, and each doctored one is found out."""

import ast
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.faults.checker import GATE, LOST, ORDER, OTHER, REFUSED, REPEATED, check
from tests.support.faults.evidence import Evidence, GateAnswer, Published, StoredEvent, StoredMessage
from tests.support.faults.gates import gates_at_the_end, replay
from tests.support.faults.ledger import Attendance, Entry, Repeat, Seen

ROOM = Path(__file__).parents[1] / "support" / "faults"
NEUTRAL = ("checker", "evidence", "gates", "ledger", "plain_http", "subscribers", "writers")
UNIT = ("app", "1", "1", "linux", "oci")
START = datetime(2026, 11, 20, tzinfo=UTC)


def at(position: int) -> datetime:
    return START + timedelta(seconds=position)


def event(position: int, receiver: str, success: bool) -> StoredEvent:
    return StoredEvent(position, f"id-{position}", f"key-{position}", UNIT, receiver, success, at(position))


def message(position: int, kind: str, event_position: int | None = None, **data: object) -> StoredMessage:
    group_id = None if kind == "event.recorded" else "g"
    return StoredMessage(position, f"id-{position}", kind, at(position), group_id, event_position, data or None)


def gate(position: int, kind: str, since: int | None, transition: bool = True) -> StoredMessage:
    began = None if since is None else at(since).isoformat()
    return message(position, f"gate.{kind}", position - 1, transition=transition, since=began)


EVENTS = (event(2, "a", True), event(3, "b", True), event(5, "a", False), event(7, "a", True), event(9, "b", True))
MESSAGES = (
    message(1, "group.created", enabled=True, eventReceiverIds=["a", "b"]),
    message(2, "event.recorded", 2),
    message(3, "event.recorded", 3),
    gate(4, "completed", 3),
    message(5, "event.recorded", 5),
    gate(6, "regressed", None),
    message(7, "event.recorded", 7),
    gate(8, "completed", 7),
    message(9, "event.recorded", 9),
    gate(10, "completed", 7, transition=False),
)


def entry(stored: StoredEvent) -> Entry:
    input = {"name": "app", "eventReceiverId": stored.receiver_id, "success": stored.success}
    return Entry(stored.key, input, 1.0, 2.0, stored.id, stored.position, 1)


def attendance(*positions: int) -> Attendance:
    kinds = {one.position: one.kind.upper().replace(".", "_") for one in MESSAGES}
    seen = [Seen(position, f"id-{position}", kinds.get(position, "EVENT_RECORDED")) for position in positions]
    return Attendance("subscriber", 1, seen)


def published(*positions: int) -> list[Published]:
    return [Published(0, b"app", position, f"id-{position}", "any") for position in positions]


def truth() -> Evidence:
    """What a hub leaves that keeps every promise."""
    return Evidence(
        entries=[entry(one) for one in EVENTS],
        events=EVENTS,
        messages=MESSAGES,
        attendances=[attendance(*range(2, 11))],
        gates=[GateAnswer("g", UNIT, True, at(7))],
        published=published(*range(1, 11)),
        repeats=[Repeat("key-9", "id-9", True)],
        groups=[("g", True, ("a", "b"))],
    )


def test_a_true_history_passes() -> None:
    assert check(truth()).findings == []


def without_event(found: Evidence) -> Evidence:
    return replace(found, events=found.events[:-1])


def event_twice(found: Evidence) -> Evidence:
    twin = replace(EVENTS[-1], position=11, id="id-11")
    told = replace(MESSAGES[8], position=11, id="id-11", event_position=11)
    return replace(found, events=[*EVENTS, twin], messages=[*MESSAGES, told])


def nothing_said_at(position: int) -> Callable[[Evidence], Evidence]:
    said = [replace(one, kind="receiver.updated") if one.position == position else one for one in MESSAGES]
    return lambda found: replace(found, messages=said)


def position_skipped(found: Evidence) -> Evidence:
    return replace(found, messages=[*MESSAGES, replace(MESSAGES[0], position=12, id="id-12")])


def time_runs_back(found: Evidence) -> Evidence:
    return replace(found, messages=[replace(one, time=at(0)) if one.position == 9 else one for one in MESSAGES])


def told_another_id(found: Evidence) -> Evidence:
    return replace(found, entries=[replace(one, id="id-99") if one.position == 5 else one for one in found.entries])


def told_another_position(found: Evidence) -> Evidence:
    return replace(found, entries=[replace(one, position=3) if one.position == 5 else one for one in found.entries])


def never_answered(found: Evidence) -> Evidence:
    return replace(found, entries=[replace(one, acknowledged_at=0.0) for one in found.entries])


def refused(found: Evidence) -> Evidence:
    return replace(found, entries=[replace(one, refusal="INTERNAL") for one in found.entries])


def recorded_anew_when_sent_again(found: Evidence) -> Evidence:
    return replace(found, repeats=[Repeat("key-9", "id-11", False)])


def known_by_another_id(found: Evidence) -> Evidence:
    return replace(found, repeats=[Repeat("key-9", "id-7", True)])


def stored_and_never_sent(found: Evidence) -> Evidence:
    return replace(found, entries=found.entries[:-1])


def subscriber_of(*positions: int) -> Callable[[Evidence], Evidence]:
    return lambda found: replace(found, attendances=[attendance(*positions)])


def subscriber_got_another_id(found: Evidence) -> Evidence:
    seen = attendance(*range(2, 11))
    seen.seen[3] = replace(seen.seen[3], id="id-99")
    return replace(found, attendances=[seen])


def subscriber_refused(found: Evidence) -> Evidence:
    one = attendance(*range(2, 11))
    one.refusal = "STREAM_DIVERGED"
    return replace(found, attendances=[one])


def kafka_of(*positions: int) -> Callable[[Evidence], Evidence]:
    return lambda found: replace(found, published=published(*positions))


def kafka_in_two_partitions(found: Evidence) -> Evidence:
    return replace(found, published=[replace(one, partition=one.position % 2) for one in published(*range(1, 11))])


def kafka_has_another_id(found: Evidence) -> Evidence:
    return replace(found, published=[*published(*range(1, 10)), Published(0, b"app", 10, "id-99", "any")])


def gate_says(**wrong: object) -> Callable[[Evidence], Evidence]:
    def doctored(found: Evidence) -> Evidence:
        told = [replace(one, data={**(one.data or {}), **wrong}) if one.position == 8 else one for one in MESSAGES]
        return replace(found, messages=told)

    return doctored


def gate_answered(found: Evidence) -> Evidence:
    return replace(found, gates=[GateAnswer("g", UNIT, False, None)])


def group_is_another(found: Evidence) -> Evidence:
    return replace(found, groups=[("g", False, ("a", "b"))])


@pytest.mark.parametrize(
    ("doctored", "kind"),
    [
        (without_event, LOST),
        (event_twice, REPEATED),
        (nothing_said_at(9), LOST),
        (position_skipped, LOST),
        (time_runs_back, ORDER),
        (told_another_id, LOST),
        (told_another_position, OTHER),
        (never_answered, REFUSED),
        (refused, REFUSED),
        (stored_and_never_sent, OTHER),
        (recorded_anew_when_sent_again, REPEATED),
        (known_by_another_id, REPEATED),
        (subscriber_of(2, 3, 4, 5, 6, 7, 8, 10), LOST),
        (subscriber_of(2, 3, 3, 4, 5, 6, 7, 8, 9, 10), REPEATED),
        (subscriber_of(2, 3, 5, 4, 6, 7, 8, 9, 10), ORDER),
        (subscriber_of(2, 3, 4, 5, 6, 7, 8, 9), LOST),
        (subscriber_of(1, 2, 3, 4, 5, 6, 7, 8, 9, 10), OTHER),
        (subscriber_got_another_id, OTHER),
        (subscriber_refused, REFUSED),
        (kafka_of(*range(1, 10)), LOST),
        (kafka_of(*range(1, 11), 10), REPEATED),
        (kafka_of(1, 2, 4, 3, 5, 6, 7, 8, 9, 10), ORDER),
        (kafka_in_two_partitions, ORDER),
        (kafka_has_another_id, OTHER),
        (nothing_said_at(6), GATE),
        (gate_says(transition=False), GATE),
        (gate_says(since=at(5).isoformat()), GATE),
        (gate_answered, GATE),
        (group_is_another, GATE),
    ],
)
def test_what_is_wrong_is_found(doctored: Callable[[Evidence], Evidence], kind: str) -> None:
    assert check(doctored(truth())).count(kind) > 0


def test_a_gate_is_told_anew_after_its_group_changed_and_not_while_it_is_disabled() -> None:
    stream = (
        *MESSAGES,
        message(11, "group.updated", enabled=False, eventReceiverIds=["a", "b"]),
        message(12, "event.recorded", 12),
        message(13, "group.updated", enabled=True, eventReceiverIds=["b"]),
        message(14, "event.recorded", 14),
    )
    events = {one.position: one for one in (*EVENTS, event(12, "a", False), event(14, "b", True))}
    done = replay(stream, events)
    last = done.words[-1]
    assert (len(done.words), last.event_position, last.kind, last.transition) == (5, 14, "gate.completed", True)
    assert gates_at_the_end(done) == [GateAnswer("g", UNIT, True, at(3))]


@pytest.mark.parametrize("name", NEUTRAL)
def test_clients_and_checker_share_no_code_with_the_hub(name: str) -> None:
    tree = ast.parse((ROOM / f"{name}.py").read_bytes())
    taken = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    taken |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    ours = {module for module in taken if module.startswith(("xzepr", "tests"))}
    assert ours <= {f"tests.support.faults.{neutral}" for neutral in NEUTRAL}
