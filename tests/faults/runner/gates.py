"""Gates by brute force, from docs/explanations/gates.md alone. Keeps no state: each event rereads its unit's events.

Shares no code with the hub.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tests.faults.runner.evidence import GateState, StoredEvent, StoredMessage


@dataclass(frozen=True, slots=True)
class GateMessage:
    """A gate message: the effect of one event on one gate."""

    kind: str
    group_id: str
    event_position: int
    transition: bool
    since: datetime | None


@dataclass(frozen=True, slots=True)
class GroupState:
    """A group as it is from a position of the stream on."""

    id: str
    created: int
    changed: int
    enabled: bool
    members: tuple[str, ...]


@dataclass(slots=True)
class Replay:
    """The gate messages that the hub must have published, and the final groups and events."""

    gate_messages: list[GateMessage] = field(default_factory=list[GateMessage])
    groups: dict[str, GroupState] = field(default_factory=dict[str, GroupState])
    events_by_unit: dict[tuple[str, ...], list[StoredEvent]] = field(
        default_factory=dict[tuple[str, ...], list[StoredEvent]]
    )


def replay(messages: Iterable[StoredMessage], events: dict[int, StoredEvent]) -> Replay:
    """Applies events and group changes in the order of the stream. `events` is keyed by position."""
    state = Replay()
    for message in messages:
        if message.kind.startswith("group.") and message.group_id is not None:
            _change(state, message)
        elif message.kind == "event.recorded" and (event := events.get(message.position)) is not None:
            state.gate_messages.extend(_evaluate(state, event))
            state.events_by_unit.setdefault(event.unit, []).append(event)
    return state


def _change(state: Replay, message: StoredMessage) -> None:
    assert message.group_id is not None
    if message.kind == "group.deleted":
        del state.groups[message.group_id]
        return
    data = message.data or {}
    previous = state.groups.get(message.group_id)
    state.groups[message.group_id] = GroupState(
        message.group_id,
        message.position if previous is None else previous.created,
        message.position,
        data["enabled"],
        tuple(data["eventReceiverIds"]),
    )


def _evaluate(state: Replay, event: StoredEvent) -> Iterable[GateMessage]:
    before = state.events_by_unit.get(event.unit, [])
    after = [*before, event]
    for group in sorted(state.groups.values(), key=lambda group: group.created):
        if not group.enabled or event.receiver_id not in group.members:
            continue
        was, now = is_complete(before, group.members), is_complete(after, group.members)
        if event.success and now:
            reported = any(
                earlier.receiver_id in group.members and earlier.position > group.changed for earlier in before
            )
            since = complete_since(after, group.members)
            yield GateMessage("gate.completed", group.id, event.position, not was or not reported, since)
        elif was and not now:
            yield GateMessage("gate.regressed", group.id, event.position, True, None)


def is_complete(history: Sequence[StoredEvent], members: Iterable[str]) -> bool:
    """Returns whether every member's latest event in the history of a unit is a success."""
    return all((last := _latest(history, member)) is not None and last.success for member in members)


def _latest(history: Sequence[StoredEvent], member: str) -> StoredEvent | None:
    return next((event for event in reversed(history) if event.receiver_id == member), None)


def complete_since(history: Sequence[StoredEvent], members: Iterable[str]) -> datetime:
    """Returns the latest start of the members' current runs of successes."""
    return max(_run_began(history, member) for member in members)


def _run_began(history: Sequence[StoredEvent], member: str) -> datetime:
    own = [event for event in history if event.receiver_id == member]
    failures = [index for index, event in enumerate(own) if not event.success]
    return own[failures[-1] + 1 if failures else 0].recorded_at


def final_gates(state: Replay) -> list[GateState]:
    """Returns every gate that has a report of at least one member, of enabled and disabled groups."""
    gates: list[GateState] = []
    for unit, history in state.events_by_unit.items():
        reporters = {event.receiver_id for event in history}
        for group in sorted(state.groups.values(), key=lambda group: group.created):
            if reporters.isdisjoint(group.members):
                continue
            complete = is_complete(history, group.members)
            since = complete_since(history, group.members) if complete else None
            gates.append(GateState(group.id, unit, complete, since))
    return gates
