"""Checks that subscribers received every message that they requested, once, in order and unchanged."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tests.faults.runner.evidence import Evidence, StoredEvent, StoredMessage
from tests.faults.runner.findings import ORDER, OTHER, REJECTED, Finding, exactly_once
from tests.faults.runner.ledger import EVERYTHING, ReceivedMessage, SubscriberRecord, position_of


def subscribers_received_all(evidence: Evidence) -> Iterator[Finding]:
    """Checks that each subscriber received every matching message after its start, and nothing else."""
    if not evidence.subscriber_records:
        yield OTHER, "the run had no subscriber"
    for record in evidence.subscriber_records:
        if record.fatal_error:
            yield REJECTED, f"{record.name} was rejected: {record.fatal_error}"
        yield from check_subscriber(record, evidence.messages, evidence.events, evidence.head, evidence.first)


def check_subscriber(
    record: SubscriberRecord,
    messages: Iterable[StoredMessage],
    events: Iterable[StoredEvent],
    up_to: int,
    first: int = 1,
) -> Iterator[Finding]:
    """Compares a subscriber that has reached position `up_to` with the stream, which is known from `first` on."""
    by_event_position = {event.position: event for event in events}
    stream = {message.position: message for message in messages}
    positions = range(max(first, record.after + 1), up_to + 1)
    expected = [position for position in positions if _is_requested(record, stream.get(position), by_event_position)]
    yield from exactly_once(record.name, [received.position for received in record.received], expected)
    for received in record.received:
        if (message := stream.get(received.position)) is not None:
            actual = _with_stream_kind(received)
            stored = ReceivedMessage(message.position, message.id, message.kind, _event_id(message, by_event_position))
            if actual != stored:
                yield OTHER, f"{record.name} received {actual}, stored is {stored}"
    yield from _checkpoints(record, expected, stream)


def _checkpoints(
    record: SubscriberRecord, expected: Sequence[int], stream: Mapping[int, StoredMessage]
) -> Iterator[Finding]:
    """Checks that each checkpoint follows all messages up to its position and names a message of the stream."""
    for count, cursor in record.checkpoints:
        position = position_of(cursor)
        if count != bisect_right(expected, position):
            yield ORDER, f"{record.name} had {count} of {bisect_right(expected, position)} at the checkpoint {cursor}"
        if position in stream and not cursor.endswith(f"-{stream[position].id[-8:]}"):
            yield OTHER, f"{record.name} received the checkpoint {cursor}, stored is {stream[position].id}"


def _is_requested(record: SubscriberRecord, message: StoredMessage | None, events: Mapping[int, StoredEvent]) -> bool:
    """Returns whether a message matches. A missing message is expected only by a subscriber without a filter."""
    if message is None:
        return record.filter == EVERYTHING
    event = events.get(message.event_position or 0)
    return record.filter.matches(message.kind, None if event is None else event.success)


def _event_id(message: StoredMessage, events: Mapping[int, StoredEvent]) -> str | None:
    event = events.get(message.event_position or 0)
    return None if event is None else event.id


def _with_stream_kind(message: ReceivedMessage) -> ReceivedMessage:
    """Replaces the GraphQL name of the kind (`EVENT_RECORDED`) by that of the stream (`event.recorded`)."""
    return ReceivedMessage(message.position, message.id, message.kind.lower().replace("_", "."), message.event_id)
