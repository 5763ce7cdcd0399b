"""The checker of fault runs finds what a subscriber, with a filter or without, should not have got."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.runner.checker import check
from tests.faults.runner.evidence import Evidence
from tests.faults.runner.findings import LOST, ORDER, OTHER, REFUSED, REPEATED
from tests.faults.runner.ledger import Seen, Wish
from tests.faults.runner.sample_history import EVENTS, HEAD, MESSAGES, attendance, message, truth
from tests.faults.runner.subscriber_checks import followed

FAILURES = Wish(success=False)
GATES = Wish(kinds=("gate.completed", "gate.regressed"))


def subscriber_of(*positions: int, wish: Wish | None = None) -> Callable[[Evidence], Evidence]:
    one = attendance(*positions) if wish is None else attendance(*positions, wish=wish)
    return lambda found: replace(found, attendances=[one])


def subscriber_got(**wrong: object) -> Callable[[Evidence], Evidence]:
    one = attendance(*range(2, HEAD + 1))
    one.seen[3] = replace(one.seen[3], **wrong)
    return lambda found: replace(found, attendances=[one])


def checkpoint(count: int, cursor: str, wish: Wish = GATES) -> Callable[[Evidence], Evidence]:
    """One that came when a subscriber to gates had so many messages."""
    one = attendance(4, 6, 8, 10, wish=wish)
    one.checkpoints.append((count, cursor))
    return lambda found: replace(found, attendances=[one])


def subscriber_refused(found: Evidence) -> Evidence:
    one = attendance(*range(2, HEAD + 1))
    one.refusal = "STREAM_DIVERGED"
    return replace(found, attendances=[one])


def nobody_followed(found: Evidence) -> Evidence:
    return replace(found, attendances=[])


@pytest.mark.parametrize(
    ("doctored", "kind"),
    [
        (subscriber_of(2, 3, 4, 5, 6, 7, 8, 10), LOST),
        (subscriber_of(2, 3, 3, 4, 5, 6, 7, 8, 9, 10), REPEATED),
        (subscriber_of(2, 3, 5, 4, 6, 7, 8, 9, 10), ORDER),
        (subscriber_of(2, 3, 4, 5, 6, 7, 8, 9), LOST),
        (subscriber_of(1, 2, 3, 4, 5, 6, 7, 8, 9, 10), OTHER),
        (subscriber_got(id="id-99"), OTHER),
        (subscriber_got(kind="GATE_COMPLETED"), OTHER),
        (subscriber_got(event_id="id-3"), OTHER),
        (subscriber_got(event_id=None), OTHER),
        (subscriber_refused, REFUSED),
        (nobody_followed, OTHER),
        (subscriber_of(5, wish=FAILURES), LOST),
        (subscriber_of(5, 6, 7, wish=FAILURES), OTHER),
        (subscriber_of(5, 6, 6, wish=FAILURES), REPEATED),
        (subscriber_of(4, 6, 10, wish=GATES), LOST),
        (subscriber_of(4, 8, 6, 10, wish=GATES), ORDER),
        (checkpoint(0, "4-id-4"), ORDER),
        (checkpoint(1, "6-id-6"), ORDER),
        (checkpoint(2, "5-id-5"), ORDER),
        (checkpoint(1, "5-id-6"), OTHER),
    ],
)
def test_altered_subscriber_record_is_rejected(doctored: Callable[[Evidence], Evidence], kind: str) -> None:
    assert check(doctored(truth())).count(kind) > 0


@pytest.mark.parametrize(
    ("wish", "positions"),
    [
        (FAILURES, (5, 6)),
        (Wish(success=True), (2, 3, 4, 7, 8, 9, 10)),
        (GATES, (4, 6, 8, 10)),
        (Wish(kinds=("gate.regressed", "event.recorded"), success=True), (2, 3, 7, 9)),
        (Wish(kinds=("group.updated",)), ()),
    ],
)
def test_filtered_subscriber_with_matching_messages_passes(wish: Wish, positions: tuple[int, ...]) -> None:
    assert check(subscriber_of(*positions, wish=wish)(truth())).findings == []


@pytest.mark.parametrize(
    ("count", "cursor"), [(0, "1-id-1"), (0, "3-id-3"), (1, "4-id-4"), (1, "5-id-5"), (4, "10-id-10")]
)
def test_checkpoint_after_all_earlier_messages_passes(count: int, cursor: str) -> None:
    assert check(checkpoint(count, cursor)(truth())).findings == []


def test_group_message_matches_no_success_filter() -> None:
    changed = message(11, "group.updated", enabled=True, eventReceiverIds=["a", "b"])
    found = subscriber_of(2, 3, 4, 7, 8, 9, 10, wish=Wish(success=True))(truth())
    [one] = found.attendances
    assert not list(followed(one, [*MESSAGES, changed], EVENTS, 11))


def test_message_of_another_history_is_found() -> None:
    one = attendance(2, 3, 4, 5)
    assert not list(followed(one, MESSAGES, EVENTS, 5))
    one.seen.append(Seen(6, "id-of-the-new-history", "EVENT_RECORDED", "id-of-the-new-history"))
    assert [kind for kind, _ in followed(one, MESSAGES, EVENTS, 6)] == [OTHER]


def test_missing_message_before_a_checkpoint_is_found() -> None:
    one = attendance(4, wish=GATES)
    assert not list(followed(one, MESSAGES, EVENTS, 5))
    assert [kind for kind, _ in followed(one, MESSAGES, EVENTS, 6)] == [LOST]
