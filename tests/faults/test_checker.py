"""The checker of fault runs accepts a correct history and rejects each altered one."""

import ast
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.runner.checker import Verdict, check
from tests.faults.runner.evidence import Evidence, GateState, StoredMessage
from tests.faults.runner.findings import GATE, LOST, ORDER, OTHER, REJECTED, REPEATED
from tests.faults.runner.gates import final_gates, replay
from tests.faults.runner.ledger import Repeat
from tests.faults.runner.sample_history import EVENTS, MESSAGES, UNIT, at, correct_evidence, event, message

Alteration = Callable[[Evidence], Evidence]

RUNNER = Path(__file__).parent / "runner"
INDEPENDENT = (  # modules that must not import the hub
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
    assert check(correct_evidence()).findings == []


def _messages_with(position: int, **changes: object) -> list[StoredMessage]:
    """Returns the messages with changes to the one at a position."""
    return [replace(stored, **changes) if stored.position == position else stored for stored in MESSAGES]


def without_event(evidence: Evidence) -> Evidence:
    return replace(evidence, events=evidence.events[:-1])


def event_stored_twice(evidence: Evidence) -> Evidence:
    duplicate = replace(EVENTS[-1], position=11, id="id-11")
    recorded = replace(MESSAGES[8], position=11, id="id-11", event_position=11)
    return replace(evidence, events=[*EVENTS, duplicate], messages=[*MESSAGES, recorded])


def without_message(position: int) -> Alteration:
    """Replaces a message by one of another kind, so that only its content is missing."""
    return lambda evidence: replace(evidence, messages=_messages_with(position, kind="receiver.updated"))


def position_skipped(evidence: Evidence) -> Evidence:
    return replace(evidence, messages=[*MESSAGES, replace(MESSAGES[0], position=12, id="id-12")])


def time_decreases(evidence: Evidence) -> Evidence:
    return replace(evidence, messages=_messages_with(9, time=at(0)))


def another_id_acknowledged(evidence: Evidence) -> Evidence:
    entries = [replace(entry, id="id-99") if entry.position == 5 else entry for entry in evidence.entries]
    return replace(evidence, entries=entries)


def another_position_acknowledged(evidence: Evidence) -> Evidence:
    entries = [replace(entry, position=3) if entry.position == 5 else entry for entry in evidence.entries]
    return replace(evidence, entries=entries)


def nothing_acknowledged(evidence: Evidence) -> Evidence:
    return replace(evidence, entries=[replace(entry, acknowledged_at=0.0) for entry in evidence.entries])


def entries_rejected(evidence: Evidence) -> Evidence:
    return replace(evidence, entries=[replace(entry, fatal_error="INTERNAL") for entry in evidence.entries])


def retry_recorded_again(evidence: Evidence) -> Evidence:
    return replace(evidence, repeats=[Repeat("key-9", "id-11", False)])


def retry_got_another_id(evidence: Evidence) -> Evidence:
    return replace(evidence, repeats=[Repeat("key-9", "id-7", True)])


def event_was_never_sent(evidence: Evidence) -> Evidence:
    return replace(evidence, entries=evidence.entries[:-1])


def input_was(**changes: object) -> Alteration:
    """Changes the input that the client sent."""

    def alter(evidence: Evidence) -> Evidence:
        first, *rest = evidence.entries
        return replace(evidence, entries=[replace(first, input={**first.input, **changes}), *rest])

    return alter


def nothing_sent_again(evidence: Evidence) -> Evidence:
    return replace(evidence, repeats=[])


def gate_message_has(**changes: object) -> Alteration:
    """Changes the data of the gate message at position 8."""

    def alter(evidence: Evidence) -> Evidence:
        return replace(evidence, messages=_messages_with(8, data={**(MESSAGES[7].data or {}), **changes}))

    return alter


def second_hub_returns(*gates: GateState) -> Alteration:
    """Changes the gates of one hub; the other returns the correct ones."""
    return lambda evidence: replace(evidence, gates={**(evidence.gates or {}), "hub-2": gates})


def no_hub_was_queried(evidence: Evidence) -> Evidence:
    return replace(evidence, gates={})


def group_was_disabled(evidence: Evidence) -> Evidence:
    return replace(evidence, groups=[("g", False, ("a", "b"))])


def group_is_missing(evidence: Evidence) -> Evidence:
    return replace(evidence, groups=[])


GATE_NOW = GateState("g", UNIT, True, at(7))


@pytest.mark.parametrize(
    ("alter", "kind"),
    [
        (without_event, LOST),
        (event_stored_twice, REPEATED),
        (without_message(9), LOST),
        (position_skipped, LOST),
        (time_decreases, ORDER),
        (another_id_acknowledged, LOST),
        (another_position_acknowledged, OTHER),
        (nothing_acknowledged, REJECTED),
        (entries_rejected, REJECTED),
        (event_was_never_sent, OTHER),
        (retry_recorded_again, REPEATED),
        (retry_got_another_id, REPEATED),
        (nothing_sent_again, OTHER),
        *(
            (input_was(**{name: "another"}), OTHER)
            for name in ("name", "version", "release", "platformId", "package", "description", "eventReceiverId")
        ),
        (input_was(payload={"key": "key-2", "more": 1}), OTHER),
        (input_was(success=False), OTHER),
        (without_message(6), GATE),
        (gate_message_has(transition=False), GATE),
        (gate_message_has(since=at(5).isoformat()), GATE),
        (second_hub_returns(replace(GATE_NOW, complete=False, since=None)), GATE),
        (second_hub_returns(), GATE),
        (second_hub_returns(GATE_NOW, GATE_NOW), GATE),
        (no_hub_was_queried, OTHER),
        (group_was_disabled, GATE),
        (group_is_missing, GATE),
    ],
)
def test_altered_history_is_rejected(alter: Alteration, kind: str) -> None:
    assert check(alter(correct_evidence())).count(kind) > 0


def test_summary_takes_turns_between_kinds_of_finding() -> None:
    verdict = Verdict([*((OTHER, f"number {number}") for number in range(100)), (LOST, "the only one")])
    assert verdict.summary(3) == ["lost: the only one", "other: number 0", "other: number 1"]


def test_evidence_that_was_not_collected_is_not_checked() -> None:
    assert check(replace(correct_evidence(), gates=None, kafka_records=None, repeats=None, groups=None)).findings == []


def test_replay_follows_changes_of_the_group() -> None:
    stream = (
        *MESSAGES,
        message(11, "group.updated", enabled=False, eventReceiverIds=["a", "b"]),
        message(12, "event.recorded", 12),
        message(13, "group.updated", enabled=True, eventReceiverIds=["b"]),
        message(14, "event.recorded", 14),
    )
    events = {stored.position: stored for stored in (*EVENTS, event(12, "a", False), event(14, "b", True))}
    state = replay(stream, events)
    last = state.gate_messages[-1]
    assert (len(state.gate_messages), last.event_position, last.kind) == (5, 14, "gate.completed")
    assert last.transition is True
    assert final_gates(state) == [GateState("g", UNIT, True, at(3))]


@pytest.mark.parametrize("name", INDEPENDENT)
def test_checker_imports_nothing_from_the_hub(name: str) -> None:
    tree = ast.parse((RUNNER / f"{name}.py").read_bytes())
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    local = {module for module in imported if module.startswith(("xzepr", "tests"))}
    assert local <= {f"tests.faults.runner.{module}" for module in INDEPENDENT}
