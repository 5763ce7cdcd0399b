"""What subscribers must have got: every message that they asked for once, in order, and as it is."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tests.faults.runner.evidence import Evidence, StoredEvent, StoredMessage
from tests.faults.runner.findings import ORDER, OTHER, REFUSED, Finding, each_once
from tests.faults.runner.ledger import EVERYTHING, Attendance, Seen, position_of


def subscribers_got_all(evidence: Evidence) -> Iterator[Finding]:
    """Each subscriber got every message after its beginning that it asked for, and nothing else."""
    if not evidence.attendances:
        yield OTHER, "nobody followed the stream"
    for one in evidence.attendances:
        if one.refusal:
            yield REFUSED, f"{one.name} was refused: {one.refusal}"
        yield from followed(one, evidence.messages, evidence.events, evidence.head, evidence.first)


def followed(
    one: Attendance,
    messages: Iterable[StoredMessage],
    events: Iterable[StoredEvent],
    up_to: int,
    first: int = 1,
) -> Iterator[Finding]:
    """What is wrong with what a subscriber got that has come so far, where this is the history, which is known from
    `first` on."""
    by_position = {event.position: event for event in events}
    truth = {message.position: message for message in messages}
    places = range(max(first, one.after + 1), up_to + 1)
    wanted = [place for place in places if _asked_for(one, truth.get(place), by_position)]
    yield from each_once(one.name, [seen.position for seen in one.seen], wanted)
    for seen in one.seen:
        if (message := truth.get(seen.position)) is not None:
            said = _plain(seen)
            told = Seen(message.position, message.id, message.kind, _event_id(message, by_position))
            if said != told:
                yield OTHER, f"{one.name} got {said}, and it is {told}"
    yield from _checkpoints(one, wanted, truth)


def _checkpoints(one: Attendance, wanted: Sequence[int], truth: Mapping[int, StoredMessage]) -> Iterator[Finding]:
    """Each says that everything up to it was there, and names a message of the stream."""
    for count, cursor in one.checkpoints:
        position = position_of(cursor)
        if count != bisect_right(wanted, position):
            yield ORDER, f"{one.name} had {count} of {bisect_right(wanted, position)} at the checkpoint {cursor}"
        if position in truth and not cursor.endswith(f"-{truth[position].id[-8:]}"):
            yield OTHER, f"{one.name} got the checkpoint {cursor}, and there is {truth[position].id}"


def _asked_for(one: Attendance, message: StoredMessage | None, events: Mapping[int, StoredEvent]) -> bool:
    """Of what is missing in the stream nobody knows but who asked for everything."""
    if message is None:
        return one.wish == EVERYTHING
    event = events.get(message.event_position or 0)
    return one.wish.takes(message.kind, None if event is None else event.success)


def _event_id(message: StoredMessage, events: Mapping[int, StoredEvent]) -> str | None:
    event = events.get(message.event_position or 0)
    return None if event is None else event.id


def _plain(seen: Seen) -> Seen:
    """`EVENT_RECORDED` and `event.recorded` are the same."""
    return Seen(seen.position, seen.id, seen.kind.lower().replace("_", "."), seen.event_id)
