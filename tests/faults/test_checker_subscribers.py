"""The checker of fault runs rejects altered records of subscribers, with and without a filter."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.runner.checker import check
from tests.faults.runner.evidence import Evidence
from tests.faults.runner.findings import LOST, ORDER, OTHER, REJECTED, REPEATED
from tests.faults.runner.ledger import EVERYTHING, ReceivedMessage, StreamFilter
from tests.faults.runner.sample_history import EVENTS, HEAD, MESSAGES, correct_evidence, message, subscriber_record
from tests.faults.runner.subscriber_checks import check_subscriber

Alteration = Callable[[Evidence], Evidence]

FAILURES = StreamFilter(success=False)
GATES = StreamFilter(kinds=("gate.completed", "gate.regressed"))


def received(*positions: int, filter: StreamFilter = EVERYTHING) -> Alteration:
    record = subscriber_record(*positions, filter=filter)
    return lambda evidence: replace(evidence, subscriber_records=[record])


def fourth_message_has(**changes: object) -> Alteration:
    record = subscriber_record(*range(2, HEAD + 1))
    record.received[3] = replace(record.received[3], **changes)
    return lambda evidence: replace(evidence, subscriber_records=[record])


def checkpoint(count: int, cursor: str, filter: StreamFilter = GATES) -> Alteration:
    """Adds a checkpoint to a subscriber to gates after it had received `count` messages."""
    record = subscriber_record(4, 6, 8, 10, filter=filter)
    record.checkpoints.append((count, cursor))
    return lambda evidence: replace(evidence, subscriber_records=[record])


def subscriber_rejected(evidence: Evidence) -> Evidence:
    record = subscriber_record(*range(2, HEAD + 1))
    record.fatal_error = "STREAM_DIVERGED"
    return replace(evidence, subscriber_records=[record])


def without_subscribers(evidence: Evidence) -> Evidence:
    return replace(evidence, subscriber_records=[])


@pytest.mark.parametrize(
    ("alter", "kind"),
    [
        (received(2, 3, 4, 5, 6, 7, 8, 10), LOST),
        (received(2, 3, 3, 4, 5, 6, 7, 8, 9, 10), REPEATED),
        (received(2, 3, 5, 4, 6, 7, 8, 9, 10), ORDER),
        (received(2, 3, 4, 5, 6, 7, 8, 9), LOST),
        (received(1, 2, 3, 4, 5, 6, 7, 8, 9, 10), OTHER),
        (fourth_message_has(id="id-99"), OTHER),
        (fourth_message_has(kind="GATE_COMPLETED"), OTHER),
        (fourth_message_has(event_id="id-3"), OTHER),
        (fourth_message_has(event_id=None), OTHER),
        (subscriber_rejected, REJECTED),
        (without_subscribers, OTHER),
        (received(5, filter=FAILURES), LOST),
        (received(5, 6, 7, filter=FAILURES), OTHER),
        (received(5, 6, 6, filter=FAILURES), REPEATED),
        (received(4, 6, 10, filter=GATES), LOST),
        (received(4, 8, 6, 10, filter=GATES), ORDER),
        (checkpoint(0, "4-id-4"), ORDER),
        (checkpoint(1, "6-id-6"), ORDER),
        (checkpoint(2, "5-id-5"), ORDER),
        (checkpoint(1, "5-id-6"), OTHER),
    ],
)
def test_altered_subscriber_record_is_rejected(alter: Alteration, kind: str) -> None:
    assert check(alter(correct_evidence())).count(kind) > 0


@pytest.mark.parametrize(
    ("filter", "positions"),
    [
        (FAILURES, (5, 6)),
        (StreamFilter(success=True), (2, 3, 4, 7, 8, 9, 10)),
        (GATES, (4, 6, 8, 10)),
        (StreamFilter(kinds=("gate.regressed", "event.recorded"), success=True), (2, 3, 7, 9)),
        (StreamFilter(kinds=("group.updated",)), ()),
    ],
)
def test_filtered_subscriber_with_matching_messages_passes(filter: StreamFilter, positions: tuple[int, ...]) -> None:
    assert check(received(*positions, filter=filter)(correct_evidence())).findings == []


@pytest.mark.parametrize(
    ("count", "cursor"), [(0, "1-id-1"), (0, "3-id-3"), (1, "4-id-4"), (1, "5-id-5"), (4, "10-id-10")]
)
def test_checkpoint_after_all_earlier_messages_passes(count: int, cursor: str) -> None:
    assert check(checkpoint(count, cursor)(correct_evidence())).findings == []


def test_group_message_matches_no_success_filter() -> None:
    changed = message(11, "group.updated", enabled=True, eventReceiverIds=["a", "b"])
    evidence = received(2, 3, 4, 7, 8, 9, 10, filter=StreamFilter(success=True))(correct_evidence())
    [record] = evidence.subscriber_records
    assert not list(check_subscriber(record, [*MESSAGES, changed], EVENTS, 11))


def test_message_of_another_history_is_found() -> None:
    record = subscriber_record(2, 3, 4, 5)
    assert not list(check_subscriber(record, MESSAGES, EVENTS, 5))
    record.received.append(ReceivedMessage(6, "id-of-the-new-history", "EVENT_RECORDED", "id-of-the-new-history"))
    assert [kind for kind, _ in check_subscriber(record, MESSAGES, EVENTS, 6)] == [OTHER]


def test_missing_message_before_a_checkpoint_is_found() -> None:
    record = subscriber_record(4, filter=GATES)
    assert not list(check_subscriber(record, MESSAGES, EVENTS, 5))
    assert [kind for kind, _ in check_subscriber(record, MESSAGES, EVENTS, 6)] == [LOST]
