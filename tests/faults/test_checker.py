"""The checker of fault runs finds what is wrong: a true history passes, and each doctored one is found out."""

import ast
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.runner.checker import Verdict, check
from tests.faults.runner.evidence import Evidence, GateAnswer
from tests.faults.runner.findings import GATE, LOST, ORDER, OTHER, REFUSED, REPEATED
from tests.faults.runner.gates import gates_at_the_end, replay
from tests.faults.runner.ledger import Repeat
from tests.faults.runner.sample_history import EVENTS, MESSAGES, UNIT, at, event, message, truth

ROOM = Path(__file__).parent / "runner"
NEUTRAL = (
    "checker",
    "evidence",
    "findings",
    "subscriber_checks",
    "group_changes",
    "gates",
    "kafka_checks",
    "ledger",
    "plain_http",
    "rewritten_history",
    "sample_history",
    "subscribers",
    "writers",
)


def test_correct_history_passes() -> None:
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


def sent_otherwise(**wrong: object) -> Callable[[Evidence], Evidence]:
    def doctored(found: Evidence) -> Evidence:
        first, *rest = found.entries
        return replace(found, entries=[replace(first, input={**first.input, **wrong}), *rest])

    return doctored


def nothing_sent_again(found: Evidence) -> Evidence:
    return replace(found, repeats=[])


def gate_says(**wrong: object) -> Callable[[Evidence], Evidence]:
    def doctored(found: Evidence) -> Evidence:
        told = [replace(one, data={**(one.data or {}), **wrong}) if one.position == 8 else one for one in MESSAGES]
        return replace(found, messages=told)

    return doctored


def gates_answered(*answers: GateAnswer) -> Callable[[Evidence], Evidence]:
    """By one hub; the other tells the truth."""
    return lambda found: replace(found, gates={**(found.gates or {}), "hub-2": answers})


def no_hub_was_asked(found: Evidence) -> Evidence:
    return replace(found, gates={})


def group_is_another(found: Evidence) -> Evidence:
    return replace(found, groups=[("g", False, ("a", "b"))])


def groups_are_gone(found: Evidence) -> Evidence:
    return replace(found, groups=[])


GATE_NOW = GateAnswer("g", UNIT, True, at(7))


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
        (nothing_sent_again, OTHER),
        *(
            (sent_otherwise(**{name: "another"}), OTHER)
            for name in ("name", "version", "release", "platformId", "package", "description", "eventReceiverId")
        ),
        (sent_otherwise(payload={"key": "key-2", "more": 1}), OTHER),
        (sent_otherwise(success=False), OTHER),
        (nothing_said_at(6), GATE),
        (gate_says(transition=False), GATE),
        (gate_says(since=at(5).isoformat()), GATE),
        (gates_answered(replace(GATE_NOW, complete=False, since=None)), GATE),
        (gates_answered(), GATE),
        (gates_answered(GATE_NOW, GATE_NOW), GATE),
        (no_hub_was_asked, OTHER),
        (group_is_another, GATE),
        (groups_are_gone, GATE),
    ],
)
def test_altered_history_is_rejected(doctored: Callable[[Evidence], Evidence], kind: str) -> None:
    assert check(doctored(truth())).count(kind) > 0


def test_summary_takes_turns_between_kinds_of_finding() -> None:
    verdict = Verdict([*((OTHER, f"number {number}") for number in range(100)), (LOST, "the only one")])
    assert verdict.told(3) == ["lost: the only one", "other: number 0", "other: number 1"]


def test_evidence_that_was_not_collected_is_not_checked() -> None:
    assert check(replace(truth(), gates=None, published=None, repeats=None, groups=None)).findings == []


def test_replay_follows_changes_of_the_group() -> None:
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
def test_checker_imports_nothing_from_the_hub(name: str) -> None:
    tree = ast.parse((ROOM / f"{name}.py").read_bytes())
    taken = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    taken |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    ours = {module for module in taken if module.startswith(("xzepr", "tests"))}
    assert ours <= {f"tests.faults.runner.{neutral}" for neutral in NEUTRAL}
