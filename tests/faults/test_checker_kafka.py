"""The checker of fault runs finds what is wrong in Kafka, also after a restore."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.faults.runner.checker import check
from tests.faults.runner.evidence import Evidence, Published
from tests.faults.runner.findings import LOST, ORDER, OTHER, REPEATED
from tests.faults.runner.kafka_checks import unit_id
from tests.faults.runner.ledger import Json
from tests.faults.runner.rewritten_history import Restored, of_the_present
from tests.faults.runner.sample_history import HEAD, MESSAGES, START, published, truth
from xzepr.core import ids

Doctored = Callable[[Evidence], Evidence]


def kafka_of(*positions: int) -> Doctored:
    return lambda found: replace(found, published=published(*positions))


def kafka_in_two_partitions(found: Evidence) -> Evidence:
    return replace(found, published=[replace(one, partition=one.position % 2) for one in found.published or ()])


def record(position: int, **wrong: object) -> Doctored:
    """With something else at that position."""
    given = [replace(one, **wrong) if one.position == position else one for one in published(*range(1, HEAD + 1))]
    return lambda found: replace(found, published=given)


def _with(told: Json, path: str, value: object) -> Json:
    name, _, rest = path.partition(".")
    return {**told, name: _with(told[name], rest, value) if rest else value}


def told(position: int, path: str, value: object) -> Doctored:
    """With another value in the CloudEvent at that position."""
    [one] = published(position)
    return record(position, told=_with(one.told, path, value))


def all_keys_are(key: bytes) -> Doctored:
    return lambda found: replace(found, published=[replace(one, key=key) for one in found.published or ()])


def without_data(position: int, dataref: str | None) -> Doctored:
    [one] = published(position)
    rest = {name: value for name, value in one.told.items() if name != "data"}
    return record(position, told=rest if dataref is None else {**rest, "dataref": dataref})


@pytest.mark.parametrize(
    ("doctored", "kind"),
    [
        (kafka_of(*range(1, 10)), LOST),
        (kafka_of(*range(1, 11), 10), REPEATED),
        (kafka_of(1, 2, 4, 3, 5, 6, 7, 8, 9, 10), ORDER),
        (kafka_in_two_partitions, ORDER),
        (record(10, id="id-99"), OTHER),
        (record(2, key=b"another"), OTHER),
        (record(1, key=unit_id(("app", "1", "2", "linux", "oci")).encode()), OTHER),
        (all_keys_are(b"g"), OTHER),
        (told(2, "id", "id-99"), OTHER),
        (told(2, "type", "io.xzepr.gate.completed"), OTHER),
        (told(4, "subject", "g"), OTHER),
        (told(4, "sequence", "4"), OTHER),
        (told(4, "time", MESSAGES[0].time.isoformat()), OTHER),
        (told(4, "data.kind", "gate.regressed"), OTHER),
        (told(4, "data.position", 5), OTHER),
        (told(4, "data.eventReceiverGroupId", "h"), OTHER),
        (told(4, "data.eventReceiverId", "a"), OTHER),
        (told(4, "data.gate", {"transition": False, "since": None}), OTHER),
        (told(1, "data.eventReceiverGroup", {"enabled": False}), OTHER),
        (told(4, "data.event.id", "id-2"), OTHER),
        (told(4, "data.event.payload", {"key": "key-3"}), OTHER),
        *(
            (told(2, f"data.event.{name}", "another"), OTHER)
            for name in ("unitId", "name", "version", "release", "platformId", "package", "description", "payload")
        ),
        (told(2, "data.event.payload", {"key": "key-3"}), OTHER),
        (told(2, "data.event.success", False), OTHER),
        (told(2, "data.event", None), OTHER),
        (without_data(2, None), OTHER),
        (without_data(2, "/events/id-2"), OTHER),
    ],
)
def test_altered_topic_is_rejected(doctored: Doctored, kind: str) -> None:
    assert check(doctored(truth())).count(kind) > 0


def _large(found: Evidence) -> Evidence:
    payload = {"key": "key-2", "log": "x" * 200_000}
    events = [replace(one, payload=payload) if one.position == 2 else one for one in found.events]
    first, *rest = found.entries
    return replace(found, events=events, entries=[replace(first, input={**first.input, "payload": payload}), *rest])


def test_large_event_may_be_published_without_data() -> None:
    assert check(without_data(2, "/hub/events/id-2")(_large(truth()))).findings == []


def test_wrong_dataref_is_found() -> None:
    assert check(without_data(2, "/hub/events/id-3")(_large(truth()))).count(OTHER) == 1


def test_unit_id_equals_the_id_of_the_hub() -> None:
    unit = ("größer", "", "1", "linux", "oci")
    assert unit_id(unit) == ids.unit_id(*unit).hex()


LOST_ONE = Published(0, b"g", 9, "lost-9", {})
RESTORED = Restored(8, 0.0, 6, frozenset({(9, "lost-9")}))


def after_a_restore(*again: int, restored: Restored = RESTORED) -> Evidence:
    """Positions that are in Kafka, and those that the relay sent again."""
    found = truth()
    both = [*published(*range(1, 9)), LOST_ONE, *published(*again, 9, 10)]
    return replace(found, published=of_the_present(both, found.messages, [restored]))


def test_lost_or_republished_records_are_ignored() -> None:
    assert check(after_a_restore(7, 8)).findings == []


def test_second_republication_is_found() -> None:
    assert check(after_a_restore(7, 8, 8)).count(REPEATED) == 1


def test_republication_below_published_position_is_found() -> None:
    assert check(after_a_restore(6, 7, 8)).count(REPEATED) == 1


def test_republication_from_the_beginning_is_found() -> None:
    assert check(after_a_restore(*range(1, 9), restored=replace(RESTORED, relayed_again_after=0))).count(REPEATED) == 5


def test_record_of_no_known_history_is_found() -> None:
    found = truth()
    strange = Published(0, b"g", 9, "nobody's", {})
    of_both = of_the_present([*published(*range(1, 11)), strange], found.messages, [RESTORED])
    assert check(replace(found, published=of_both)).count(REPEATED) == 1


def test_republication_is_allowed_for_two_seconds_of_messages() -> None:
    slow = [replace(one, time=START + timedelta(seconds=0.1 * one.position)) for one in MESSAGES]
    kept = of_the_present(published(*range(1, 9), *range(1, 9)), slow, [replace(RESTORED, relayed_again_after=0)])
    assert [one.position for one in kept] == [*range(1, 9)]
