"""Gates by brute force, from docs/explanations/gates.md alone: no state, the history of a unit is gone through again
for every event. Shares no code with the hub."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tests.faults.runner.evidence import GateAnswer, StoredEvent, StoredMessage


@dataclass(frozen=True, slots=True)
class GateWord:
    """A gate message: what an event did to a gate."""

    kind: str
    group_id: str
    event_position: int
    transition: bool
    since: datetime | None


@dataclass(frozen=True, slots=True)
class GroupThen:
    """A group from a position of the stream on."""

    id: str
    created: int
    changed: int
    enabled: bool
    members: tuple[str, ...]


@dataclass(slots=True)
class Replay:
    """What must have been said, and what must be so at the end."""

    words: list[GateWord] = field(default_factory=list[GateWord])
    groups: dict[str, GroupThen] = field(default_factory=dict[str, GroupThen])
    histories: dict[tuple[str, ...], list[StoredEvent]] = field(
        default_factory=dict[tuple[str, ...], list[StoredEvent]]
    )


def replay(messages: Iterable[StoredMessage], events: dict[int, StoredEvent]) -> Replay:
    """Goes through events and changes of groups in the order of the stream."""
    done = Replay()
    for message in messages:
        if message.kind.startswith("group.") and message.group_id is not None:
            _change(done, message)
        elif message.kind == "event.recorded" and (event := events.get(message.position)) is not None:
            done.words.extend(_judge(done, event))
            done.histories.setdefault(event.unit, []).append(event)
    return done


def _change(done: Replay, message: StoredMessage) -> None:
    assert message.group_id is not None
    if message.kind == "group.deleted":
        del done.groups[message.group_id]
        return
    said = message.data or {}
    was = done.groups.get(message.group_id)
    done.groups[message.group_id] = GroupThen(
        message.group_id,
        message.position if was is None else was.created,
        message.position,
        said["enabled"],
        tuple(said["eventReceiverIds"]),
    )


def _judge(done: Replay, event: StoredEvent) -> Iterable[GateWord]:
    before = done.histories.get(event.unit, [])
    after = [*before, event]
    for group in sorted(done.groups.values(), key=lambda group: group.created):
        if not group.enabled or event.receiver_id not in group.members:
            continue
        was, now = is_complete(before, group.members), is_complete(after, group.members)
        if event.success and now:
            told = any(one.receiver_id in group.members and one.position > group.changed for one in before)
            since = complete_since(after, group.members)
            yield GateWord("gate.completed", group.id, event.position, not was or not told, since)
        elif was and not now:
            yield GateWord("gate.regressed", group.id, event.position, True, None)


def is_complete(history: Sequence[StoredEvent], members: Iterable[str]) -> bool:
    """Whether every member's latest event in the history of a unit is a success."""
    return all((last := _latest(history, member)) is not None and last.success for member in members)


def _latest(history: Sequence[StoredEvent], member: str) -> StoredEvent | None:
    return next((event for event in reversed(history) if event.receiver_id == member), None)


def complete_since(history: Sequence[StoredEvent], members: Iterable[str]) -> datetime:
    """When the last of the members' present runs of successes began."""
    return max(_run_began(history, member) for member in members)


def _run_began(history: Sequence[StoredEvent], member: str) -> datetime:
    own = [event for event in history if event.receiver_id == member]
    failures = [index for index, event in enumerate(own) if not event.success]
    return own[failures[-1] + 1 if failures else 0].recorded_at


def gates_at_the_end(done: Replay) -> list[GateAnswer]:
    """Every gate that any member has reported for, enabled or not."""
    found: list[GateAnswer] = []
    for unit, history in done.histories.items():
        reporters = {event.receiver_id for event in history}
        for group in sorted(done.groups.values(), key=lambda group: group.created):
            if reporters.isdisjoint(group.members):
                continue
            complete = is_complete(history, group.members)
            since = complete_since(history, group.members) if complete else None
            found.append(GateAnswer(group.id, unit, complete, since))
    return found
