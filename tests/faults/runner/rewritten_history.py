"""A history that was lost with a restore, and what of it may still be in Kafka."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from tests.faults.runner.evidence import Published, StoredEvent, StoredMessage

UNNOTED = timedelta(seconds=2)
"""The relay notes at least once a second how far it is; what is older than this before a backup is not sent twice."""


@dataclass(frozen=True, slots=True)
class History:
    """The stream and its events as they once were."""

    messages: Sequence[StoredMessage]
    events: Sequence[StoredEvent]


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore took: everything after the position that clients were told of before the moment."""

    position: int
    at: float
    relayed_again_after: int
    """From here up to the position, what the database had not noted as published is in Kafka twice."""
    lost: frozenset[tuple[int, str]]
    """Position and id of each message that was lost."""


def of_the_present(
    published: Iterable[Published], messages: Iterable[StoredMessage], restores: Sequence[Restored]
) -> list[Published]:
    """What Kafka has, without what was lost, once, and without what may be there again after a restore."""
    gone = {pair for restored in restores for pair in restored.lost}
    again = _relayed_again({message.position: message for message in messages}, restores)
    met = Counter[tuple[int, str]]()
    kept: list[Published] = []
    for one in published:
        pair = (one.position, one.id)
        met[pair] += 1
        lost = pair in gone and met[pair] == 1
        if not lost and not 1 < met[pair] <= 1 + again[pair]:
            kept.append(one)
    return kept


def _relayed_again(truth: dict[int, StoredMessage], restores: Iterable[Restored]) -> Counter[tuple[int, str]]:
    """How often each message may be in Kafka beside the first time."""
    counted = Counter[tuple[int, str]]()
    for restored in restores:
        last = truth.get(restored.position)
        for position in range(restored.relayed_again_after + 1, restored.position + 1):
            message = truth.get(position)
            if message is not None and last is not None and last.time - message.time <= UNNOTED:
                counted[position, message.id] += 1
    return counted
