"""The checker of a fault run: compares what clients recorded with what is stored. Shares no code with the hub."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from tests.faults.runner.evidence import Evidence, GateState, StoredEvent, StoredMessage
from tests.faults.runner.findings import GATE, LOST, ORDER, OTHER, REJECTED, REPEATED, Finding, exactly_once
from tests.faults.runner.gates import GateMessage, final_gates, replay
from tests.faults.runner.kafka_checks import kafka_has_every_message
from tests.faults.runner.ledger import Entry, unit_of
from tests.faults.runner.subscriber_checks import subscribers_received_all


@dataclass(slots=True)
class Verdict:
    """The findings of all checks; empty if the hub kept every promise."""

    findings: list[Finding] = field(default_factory=list[Finding])

    def count(self, kind: str) -> int:
        """Returns the number of findings of one kind."""
        return sum(1 for finding_kind, _ in self.findings if finding_kind == kind)

    def summary(self, limit: int) -> list[str]:
        """Returns up to `limit` findings as text. Kinds alternate, so that many of one kind do not hide another."""
        counts = Counter[str]()
        ranked: list[tuple[int, str]] = []
        for kind, text in self.findings:
            ranked.append((counts[kind], f"{kind}: {text}"))
            counts[kind] += 1
        return [text for _, text in sorted(ranked)[:limit]]


def check(evidence: Evidence) -> Verdict:
    """Runs every check on the evidence."""
    checks: list[Callable[[Evidence], Iterator[Finding]]] = [
        acknowledged_events_are_stored,
        retries_are_recognised,
        events_are_unique,
        stream_is_complete,
        stream_has_every_event,
        subscribers_received_all,
        kafka_has_every_message,
        gates_match_the_replay,
    ]
    return Verdict([finding for run in checks for finding in run(evidence)])


def acknowledged_events_are_stored(evidence: Evidence) -> Iterator[Finding]:
    """Checks that each acknowledged event is stored as it was sent, with the acknowledged id and position."""
    by_id = {event.id: event for event in evidence.events}
    for entry in evidence.entries:
        if entry.fatal_error:
            yield REJECTED, f"{entry.key} was rejected: {entry.fatal_error}"
        elif not entry.acknowledged_at:
            yield REJECTED, f"{entry.key} was not acknowledged in {entry.attempts} attempts"
        elif (event := by_id.get(entry.id)) is None:
            yield LOST, f"{entry.key} was acknowledged as {entry.id} and is missing in events"
        else:
            sent, stored = _as_sent(entry), _as_stored(event)
            if sent != stored:
                yield OTHER, f"{entry.id} was sent as {sent} and is stored as {stored}"


def _as_sent(entry: Entry) -> tuple[object, ...]:
    input = entry.input
    facts = (input["description"], input["payload"], input["eventReceiverId"], input["success"])
    return (entry.position, entry.key, unit_of(input), *facts)


def _as_stored(event: StoredEvent) -> tuple[object, ...]:
    facts = (event.description, event.payload, event.receiver_id, event.success)
    return (event.position, event.key, event.unit, *facts)


def retries_are_recognised(evidence: Evidence) -> Iterator[Finding]:
    """Checks that an acknowledged event that is sent again gets its first id and `repeated: true`."""
    if evidence.repeats is None:
        return
    acknowledged = {entry.key: entry.id for entry in evidence.entries if entry.acknowledged_at}
    if acknowledged and not evidence.repeats:
        yield OTHER, "no event was sent again"
    for repeat in evidence.repeats:
        if (repeat.id, repeat.repeated) != (acknowledged.get(repeat.key), True):
            yield REPEATED, f"{repeat.key} was recorded as {acknowledged.get(repeat.key)}, its retry as {repeat}"


def events_are_unique(evidence: Evidence) -> Iterator[Finding]:
    """Checks that each idempotency key has one event, and that a client sent it."""
    sent = {entry.key for entry in evidence.entries}
    for key, count in Counter(event.key for event in evidence.events).items():
        if count > 1:
            yield REPEATED, f"{key} is in events {count} times"
        if key not in sent:
            yield OTHER, f"{key} is in events and no client sent it"


def stream_is_complete(evidence: Evidence) -> Iterator[Finding]:
    """Checks that positions have no gaps, ids are unique and times never decrease."""
    messages = evidence.messages
    expected = range(evidence.first, evidence.head + 1)
    yield from exactly_once("the stream", [message.position for message in messages], expected)
    for id, count in Counter(message.id for message in messages).items():
        if count > 1:
            yield REPEATED, f"the stream has the id {id} {count} times"
    for before, after in pairwise(messages):
        if after.time < before.time:
            yield ORDER, f"the time of position {after.position} is before that of {before.position}"


def stream_has_every_event(evidence: Evidence) -> Iterator[Finding]:
    """Checks that each event has one event.recorded, with its id and at its position."""
    recorded = Counter((m.position, m.id) for m in evidence.messages if m.kind == "event.recorded")
    stored = Counter((event.position, event.id) for event in evidence.events)
    for (position, id), count in (stored - recorded).items():
        yield LOST, f"event {id} at {position} is missing {count} times in the stream"
    for (position, id), count in (recorded - stored).items():
        yield REPEATED, f"the stream has event {id} at {position} {count} times too often"


def gates_match_the_replay(evidence: Evidence) -> Iterator[Finding]:
    """Checks gate messages, stored groups and the gates that hubs return against a replay of the stream."""
    replayed = replay(evidence.messages, {event.position: event for event in evidence.events})
    published = [_gate_message(message) for message in evidence.messages if message.kind.startswith("gate.")]
    missing = Counter(replayed.gate_messages) - Counter(published)
    unexpected = Counter(published) - Counter(replayed.gate_messages)
    yield from ((GATE, f"not published: {message}") for message in missing)
    yield from ((GATE, f"published without a cause: {message}") for message in unexpected)
    if not missing and not unexpected and published != replayed.gate_messages:
        yield GATE, "gate messages have another order than their events"
    yield from _gate_messages_follow_their_events(evidence.messages)
    groups = [(group.id, group.enabled, group.members) for group in replayed.groups.values()]
    if evidence.groups is not None and list(evidence.groups) != groups:
        yield GATE, f"groups are {evidence.groups} and were published as {groups}"
    if evidence.gates is not None:
        yield from _gates_of_hubs(evidence.gates, final_gates(replayed))


def _gate_message(message: StoredMessage) -> GateMessage:
    data = message.data or {}
    since = None if data["since"] is None else datetime.fromisoformat(data["since"])
    return GateMessage(message.kind, message.group_id or "", message.event_position or 0, data["transition"], since)


def _gate_messages_follow_their_events(messages: Iterable[StoredMessage]) -> Iterator[Finding]:
    for message in messages:
        if message.kind.startswith("gate.") and not message.position > (message.event_position or 0):
            yield ORDER, f"the gate message at {message.position} comes before its event"


def _gates_of_hubs(gates: Mapping[str, Sequence[GateState]], replayed: Sequence[GateState]) -> Iterator[Finding]:
    if not gates:
        yield OTHER, "no hub was queried for gates"
    for hub, states in gates.items():
        returned, expected = Counter(states), Counter(replayed)
        yield from ((GATE, f"{hub} returns {state}, which the replay does not have") for state in returned - expected)
        yield from ((GATE, f"{hub} does not return {state}, which the replay has") for state in expected - returned)
