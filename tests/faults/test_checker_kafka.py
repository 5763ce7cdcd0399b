"""The checker of fault runs rejects altered records in Kafka, also after a restore."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.faults.runner.checker import check
from tests.faults.runner.evidence import Evidence, KafkaRecord
from tests.faults.runner.findings import LOST, ORDER, OTHER, REPEATED
from tests.faults.runner.kafka_checks import unit_id
from tests.faults.runner.ledger import Json
from tests.faults.runner.rewritten_history import Restore, expected_records
from tests.faults.runner.sample_history import HEAD, MESSAGES, START, correct_evidence, kafka_records
from xzepr.core import ids

Alteration = Callable[[Evidence], Evidence]


def topic_with(*positions: int) -> Alteration:
    return lambda evidence: replace(evidence, kafka_records=kafka_records(*positions))


def in_two_partitions(evidence: Evidence) -> Evidence:
    records = [replace(record, partition=record.position % 2) for record in evidence.kafka_records or ()]
    return replace(evidence, kafka_records=records)


def record_has(position: int, **changes: object) -> Alteration:
    """Changes fields of the record at a position."""
    records = kafka_records(*range(1, HEAD + 1))
    altered = [replace(record, **changes) if record.position == position else record for record in records]
    return lambda evidence: replace(evidence, kafka_records=altered)


def _with(parent: Json, path: str, value: object) -> Json:
    name, _, rest = path.partition(".")
    return {**parent, name: _with(parent[name], rest, value) if rest else value}


def cloudevent_has(position: int, path: str, value: object) -> Alteration:
    """Changes a value in the CloudEvent at a position."""
    [record] = kafka_records(position)
    return record_has(position, cloudevent=_with(record.cloudevent, path, value))


def all_keys_are(key: bytes) -> Alteration:
    return lambda evidence: replace(
        evidence, kafka_records=[replace(record, key=key) for record in evidence.kafka_records or ()]
    )


def without_data(position: int, dataref: str | None) -> Alteration:
    [record] = kafka_records(position)
    rest = {name: value for name, value in record.cloudevent.items() if name != "data"}
    return record_has(position, cloudevent=rest if dataref is None else {**rest, "dataref": dataref})


@pytest.mark.parametrize(
    ("alter", "kind"),
    [
        (topic_with(*range(1, 10)), LOST),
        (topic_with(*range(1, 11), 10), REPEATED),
        (topic_with(1, 2, 4, 3, 5, 6, 7, 8, 9, 10), ORDER),
        (in_two_partitions, ORDER),
        (record_has(10, id="id-99"), OTHER),
        (record_has(2, key=b"another"), OTHER),
        (record_has(1, key=unit_id(("app", "1", "2", "linux", "oci")).encode()), OTHER),
        (all_keys_are(b"g"), OTHER),
        (cloudevent_has(2, "id", "id-99"), OTHER),
        (cloudevent_has(2, "type", "io.xzepr.gate.completed"), OTHER),
        (cloudevent_has(4, "subject", "g"), OTHER),
        (cloudevent_has(4, "sequence", "4"), OTHER),
        (cloudevent_has(4, "time", MESSAGES[0].time.isoformat()), OTHER),
        (cloudevent_has(4, "data.kind", "gate.regressed"), OTHER),
        (cloudevent_has(4, "data.position", 5), OTHER),
        (cloudevent_has(4, "data.eventReceiverGroupId", "h"), OTHER),
        (cloudevent_has(4, "data.eventReceiverId", "a"), OTHER),
        (cloudevent_has(4, "data.gate", {"transition": False, "since": None}), OTHER),
        (cloudevent_has(1, "data.eventReceiverGroup", {"enabled": False}), OTHER),
        (cloudevent_has(4, "data.event.id", "id-2"), OTHER),
        (cloudevent_has(4, "data.event.payload", {"key": "key-3"}), OTHER),
        *(
            (cloudevent_has(2, f"data.event.{name}", "another"), OTHER)
            for name in ("unitId", "name", "version", "release", "platformId", "package", "description", "payload")
        ),
        (cloudevent_has(2, "data.event.payload", {"key": "key-3"}), OTHER),
        (cloudevent_has(2, "data.event.success", False), OTHER),
        (cloudevent_has(2, "data.event", None), OTHER),
        (without_data(2, None), OTHER),
        (without_data(2, "/events/id-2"), OTHER),
    ],
)
def test_altered_topic_is_rejected(alter: Alteration, kind: str) -> None:
    assert check(alter(correct_evidence())).count(kind) > 0


def _large(evidence: Evidence) -> Evidence:
    payload = {"key": "key-2", "log": "x" * 200_000}
    events = [replace(event, payload=payload) if event.position == 2 else event for event in evidence.events]
    first, *rest = evidence.entries
    return replace(evidence, events=events, entries=[replace(first, input={**first.input, "payload": payload}), *rest])


def test_large_event_may_be_published_without_data() -> None:
    assert check(without_data(2, "/hub/events/id-2")(_large(correct_evidence()))).findings == []


def test_wrong_dataref_is_found() -> None:
    assert check(without_data(2, "/hub/events/id-3")(_large(correct_evidence()))).count(OTHER) == 1


def test_unit_id_equals_the_id_of_the_hub() -> None:
    unit = ("größer", "", "1", "linux", "oci")
    assert unit_id(unit) == ids.unit_id(*unit).hex()


LOST_RECORD = KafkaRecord(0, b"g", 9, "lost-9", {})
RESTORE = Restore(8, 0.0, 6, frozenset({(9, "lost-9")}))


def after_a_restore(*republished: int, restore: Restore = RESTORE) -> Evidence:
    """Returns the evidence after a restore. `republished` are the positions that the relay published again."""
    evidence = correct_evidence()
    records = [*kafka_records(*range(1, 9)), LOST_RECORD, *kafka_records(*republished, 9, 10)]
    return replace(evidence, kafka_records=expected_records(records, evidence.messages, [restore]))


def test_lost_or_republished_records_are_ignored() -> None:
    assert check(after_a_restore(7, 8)).findings == []


def test_second_republication_is_found() -> None:
    assert check(after_a_restore(7, 8, 8)).count(REPEATED) == 1


def test_republication_below_published_position_is_found() -> None:
    assert check(after_a_restore(6, 7, 8)).count(REPEATED) == 1


def test_republication_from_the_beginning_is_found() -> None:
    evidence = after_a_restore(*range(1, 9), restore=replace(RESTORE, republished_after=0))
    assert check(evidence).count(REPEATED) == 5


def test_record_of_no_known_history_is_found() -> None:
    evidence = correct_evidence()
    unknown = KafkaRecord(0, b"g", 9, "unknown", {})
    records = expected_records([*kafka_records(*range(1, 11)), unknown], evidence.messages, [RESTORE])
    assert check(replace(evidence, kafka_records=records)).count(REPEATED) == 1


def test_republication_is_allowed_for_two_seconds_of_messages() -> None:
    messages = [replace(message, time=START + timedelta(seconds=0.1 * message.position)) for message in MESSAGES]
    records = kafka_records(*range(1, 9), *range(1, 9))
    kept = expected_records(records, messages, [replace(RESTORE, republished_after=0)])
    assert [record.position for record in kept] == [*range(1, 9)]
