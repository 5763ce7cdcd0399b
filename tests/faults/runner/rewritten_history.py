"""The messages that a restore discarded, and the records of them that Kafka may still have."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from tests.faults.runner.evidence import KafkaRecord, StoredEvent, StoredMessage

# The relay writes its published position at least once a second. Messages that are older than this at the time of a
# backup are not published again.
UNRECORDED_PROGRESS = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class History:
    """A stream and its events before a restore."""

    messages: Sequence[StoredMessage]
    events: Sequence[StoredEvent]


@dataclass(frozen=True, slots=True)
class Restore:
    """One restore: it discarded all messages after `position` that clients received before the time `at`."""

    position: int
    at: float
    """Monotonic seconds."""
    republished_after: int
    """Messages between this position and `position` that the backup did not know as published are in Kafka twice."""
    lost: frozenset[tuple[int, str]]
    """Position and id of each message that was discarded."""


def expected_records(
    records: Iterable[KafkaRecord], messages: Iterable[StoredMessage], restores: Sequence[Restore]
) -> list[KafkaRecord]:
    """Returns the records without those that a restore explains: discarded messages and allowed repetitions."""
    discarded = {pair for restore in restores for pair in restore.lost}
    allowed = _allowed_repetitions({message.position: message for message in messages}, restores)
    counts = Counter[tuple[int, str]]()
    kept: list[KafkaRecord] = []
    for record in records:
        pair = (record.position, record.id)
        counts[pair] += 1
        is_discarded = pair in discarded and counts[pair] == 1
        if not is_discarded and not 1 < counts[pair] <= 1 + allowed[pair]:
            kept.append(record)
    return kept


def _allowed_repetitions(messages: dict[int, StoredMessage], restores: Iterable[Restore]) -> Counter[tuple[int, str]]:
    """Returns how often Kafka may have each message in addition to the first time."""
    allowed = Counter[tuple[int, str]]()
    for restore in restores:
        last = messages.get(restore.position)
        for position in range(restore.republished_after + 1, restore.position + 1):
            message = messages.get(position)
            if message is not None and last is not None and last.time - message.time <= UNRECORDED_PROGRESS:
                allowed[position, message.id] += 1
    return allowed
