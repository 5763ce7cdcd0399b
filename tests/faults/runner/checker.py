"""The judge of a fault run: compares what clients were told with what is there. Shares no code with the hub."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from tests.faults.runner.evidence import Evidence, GateAnswer, StoredEvent, StoredMessage
from tests.faults.runner.findings import GATE, LOST, ORDER, OTHER, REFUSED, REPEATED, Finding, each_once
from tests.faults.runner.gates import GateWord, gates_at_the_end, replay
from tests.faults.runner.kafka_checks import kafka_holds_all
from tests.faults.runner.ledger import Entry, unit_of
from tests.faults.runner.subscriber_checks import subscribers_got_all


@dataclass(slots=True)
class Verdict:
    """Everything that is wrong; nothing, when all promises were kept."""

    findings: list[Finding] = field(default_factory=list[Finding])

    def count(self, kind: str) -> int:
        """How many findings of a kind there are."""
        return sum(1 for found, _ in self.findings if found == kind)

    def told(self, most: int) -> list[str]:
        """So many findings in words, in turn of each kind: a thousand of one do not hide one of another."""
        turns = Counter[str]()
        placed: list[tuple[int, str]] = []
        for kind, text in self.findings:
            placed.append((turns[kind], f"{kind}: {text}"))
            turns[kind] += 1
        return [text for _, text in sorted(placed)[:most]]


def check(evidence: Evidence) -> Verdict:
    """Looks at everything there is."""
    parts: list[Callable[[Evidence], Iterator[Finding]]] = [
        clients_were_told_the_truth,
        keys_are_remembered,
        no_event_is_there_twice,
        stream_is_whole,
        stream_tells_every_event,
        subscribers_got_all,
        kafka_holds_all,
        gates_are_as_replayed,
    ]
    return Verdict([finding for part in parts for finding in part(evidence)])


def clients_were_told_the_truth(evidence: Evidence) -> Iterator[Finding]:
    """Every event that a client was told of is there, with the id and at the position that it was told, and as sent."""
    by_id = {event.id: event for event in evidence.events}
    for entry in evidence.entries:
        if entry.refusal:
            yield REFUSED, f"{entry.key} was refused: {entry.refusal}"
        elif not entry.acknowledged_at:
            yield REFUSED, f"{entry.key} was never acknowledged in {entry.tries} tries"
        elif (event := by_id.get(entry.id)) is None:
            yield LOST, f"{entry.key} was acknowledged as {entry.id} and is not in events"
        else:
            sent, found = _as_sent(entry), _as_stored(event)
            if sent != found:
                yield OTHER, f"{entry.id} was sent as {sent} and is stored as {found}"


def _as_sent(entry: Entry) -> tuple[object, ...]:
    input = entry.input
    facts = (input["description"], input["payload"], input["eventReceiverId"], input["success"])
    return (entry.position, entry.key, unit_of(input), *facts)


def _as_stored(event: StoredEvent) -> tuple[object, ...]:
    facts = (event.description, event.payload, event.receiver_id, event.success)
    return (event.position, event.key, event.unit, *facts)


def keys_are_remembered(evidence: Evidence) -> Iterator[Finding]:
    """An event that is sent again is known, by the id that was told at first."""
    if evidence.repeats is None:
        return
    told = {entry.key: entry.id for entry in evidence.entries if entry.acknowledged_at}
    if told and not evidence.repeats:
        yield OTHER, "no event was sent again"
    for repeat in evidence.repeats:
        if (repeat.id, repeat.repeated) != (told.get(repeat.key), True):
            yield REPEATED, f"{repeat.key} is {told.get(repeat.key)}, and sent again it became {repeat}"


def no_event_is_there_twice(evidence: Evidence) -> Iterator[Finding]:
    """One idempotency key, one event; and none that nobody sent."""
    wanted = {entry.key for entry in evidence.entries}
    for key, count in Counter(event.key for event in evidence.events).items():
        if count > 1:
            yield REPEATED, f"{key} is in events {count} times"
        if key not in wanted:
            yield OTHER, f"{key} is in events and nobody sent it"


def stream_is_whole(evidence: Evidence) -> Iterator[Finding]:
    """Positions have no gaps, ids are unique, and time never runs back."""
    messages = evidence.messages
    wanted = range(evidence.first, evidence.head + 1)
    yield from each_once("the stream", [message.position for message in messages], wanted)
    for id, count in Counter(message.id for message in messages).items():
        if count > 1:
            yield REPEATED, f"the stream has the id {id} {count} times"
    for before, after in pairwise(messages):
        if after.time < before.time:
            yield ORDER, f"the time of position {after.position} is before that of {before.position}"


def stream_tells_every_event(evidence: Evidence) -> Iterator[Finding]:
    """Each event has one event.recorded, with its id and at its position."""
    recorded = Counter((m.position, m.id) for m in evidence.messages if m.kind == "event.recorded")
    stored = Counter((event.position, event.id) for event in evidence.events)
    for (position, id), count in (stored - recorded).items():
        yield LOST, f"event {id} at {position} is missing {count} times in the stream"
    for (position, id), count in (recorded - stored).items():
        yield REPEATED, f"the stream tells of event {id} at {position} {count} times too often"


def gates_are_as_replayed(evidence: Evidence) -> Iterator[Finding]:
    """What was announced of gates, what groups are, and what the hub answers, are what history makes of them."""
    done = replay(evidence.messages, {event.position: event for event in evidence.events})
    said = [_word(message) for message in evidence.messages if message.kind.startswith("gate.")]
    missing, needless = Counter(done.words) - Counter(said), Counter(said) - Counter(done.words)
    yield from ((GATE, f"not announced: {word}") for word in missing)
    yield from ((GATE, f"announced without reason: {word}") for word in needless)
    if not missing and not needless and said != done.words:
        yield GATE, "gates were announced in another order than their events came"
    yield from _follow_their_events(evidence.messages)
    then = [(group.id, group.enabled, group.members) for group in done.groups.values()]
    if evidence.groups is not None and list(evidence.groups) != then:
        yield GATE, f"groups are {evidence.groups} and were announced as {then}"
    if evidence.gates is not None:
        yield from _answers(evidence.gates, gates_at_the_end(done))


def _word(message: StoredMessage) -> GateWord:
    said = message.data or {}
    since = None if said["since"] is None else datetime.fromisoformat(said["since"])
    return GateWord(message.kind, message.group_id or "", message.event_position or 0, said["transition"], since)


def _follow_their_events(messages: Iterable[StoredMessage]) -> Iterator[Finding]:
    for message in messages:
        if message.kind.startswith("gate.") and not message.position > (message.event_position or 0):
            yield ORDER, f"the gate message at {message.position} comes before its event"


def _answers(answers: Mapping[str, Sequence[GateAnswer]], replayed: Sequence[GateAnswer]) -> Iterator[Finding]:
    if not answers:
        yield OTHER, "no hub was asked about gates"
    for hub, told in answers.items():
        counted, wanted = Counter(told), Counter(replayed)
        yield from ((GATE, f"{hub} answers {one}, and history says otherwise") for one in counted - wanted)
        yield from ((GATE, f"history says {one}, and {hub} does not answer so") for one in wanted - counted)
