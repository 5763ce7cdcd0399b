"""Gates are compared with a stateless oracle, which evaluates the whole history for every event.

Histories run concurrently on one hub, so that batches mix them. Each has its own receivers, groups and units.
"""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any, TypeGuard

import orjson

from tests.support.hub import MANAGER, messages, new_event, new_group, new_receiver, running_hub
from xzepr.core.errors import Problem
from xzepr.features.events.model import Recorded
from xzepr.features.groups.model import GroupChange, Unit
from xzepr.features.receivers.model import ReceiverChange
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import Message
from xzepr.hub import Hub

HISTORIES = 300
STEPS = 14  # per history
CONCURRENT_HISTORIES = 24


@dataclass(frozen=True, slots=True)
class Reported:
    """A step of a history: a recorded event."""

    id: str
    receiver: str
    unit: str
    success: bool
    time: datetime


@dataclass(frozen=True, slots=True)
class Changed:
    """A step of a history: the new state of a group. A deleted group has no members."""

    group: str
    members: tuple[str, ...]
    enabled: bool


Step = Reported | Changed


@dataclass(slots=True)
class History:
    """The steps of a set of receivers, groups and units, in order."""

    number: int
    random: Random
    receivers: list[str] = field(default_factory=list[str])
    payload_types: dict[str, str] = field(default_factory=dict[str, str])
    """The payload type that each receiver's current schema accepts."""
    groups: dict[str, Changed] = field(default_factory=dict[str, Changed])
    steps: list[Step] = field(default_factory=list[Step])
    results: list[Recorded] = field(default_factory=list[Recorded])


# The oracle ----------------------------------------------------------------------------------------


def latest(steps: list[Step], receiver: str, unit: str) -> Reported | None:
    """Returns a receiver's last event for a unit; None if there is none."""
    events = [s for s in steps if isinstance(s, Reported) and (s.receiver, s.unit) == (receiver, unit)]
    return events[-1] if events else None


def is_complete(steps: list[Step], members: tuple[str, ...], unit: str) -> bool:
    last = [latest(steps, member, unit) for member in members]
    return all(event is not None and event.success for event in last)


def complete_since(steps: list[Step], members: tuple[str, ...], unit: str) -> datetime:
    """Returns the latest start of the members' current runs of successes."""
    starts: list[datetime] = []
    for member in members:
        events = [s for s in steps if isinstance(s, Reported) and (s.receiver, s.unit) == (member, unit)]
        failures = [index for index, event in enumerate(events) if not event.success]
        starts.append(events[failures[-1] + 1 if failures else 0].time)
    return max(starts)


def current_state(steps: list[Step], group: str) -> Changed:
    return [s for s in steps if isinstance(s, Changed) and s.group == group][-1]


def expected_messages(steps: list[Step]) -> list[tuple[Any, ...]]:
    """Returns the gate messages of a history: kind, group, event, transition, since."""
    expected: list[tuple[Any, ...]] = []
    for index, event in enumerate(steps):
        if not isinstance(event, Reported):
            continue
        before, after = steps[:index], steps[: index + 1]
        for group in dict.fromkeys(s.group for s in before if isinstance(s, Changed)):
            state = current_state(before, group)
            if not state.enabled or event.receiver not in state.members:
                continue
            complete_before = is_complete(before, state.members, event.unit)
            complete_after = is_complete(after, state.members, event.unit)
            changed = max(i for i, s in enumerate(before) if isinstance(s, Changed) and s.group == group)
            first = not any(
                isinstance(s, Reported) and s.unit == event.unit and s.receiver in state.members
                for s in before[changed:]
            )
            if event.success and complete_after:
                since = complete_since(after, state.members, event.unit)
                expected.append((Kind.GATE_COMPLETED, group, event.id, not complete_before or first, since))
            elif complete_before and not complete_after:
                expected.append((Kind.GATE_REGRESSED, group, event.id, True, None))
    return expected


# Histories on a hub --------------------------------------------------------------------------------


async def run_history(hub: Hub, number: int) -> History:
    """Runs one random history. Its number is the random seed."""
    random = Random(number)
    history = History(number, random)
    for index in range(random.randint(2, 4)):
        receiver = await new_receiver(hub, f"{number}-{index}", schema={"type": "integer"})
        history.receivers.append(receiver.id)
        history.payload_types[receiver.id] = "integer"
    for index in range(random.randint(1, 3)):
        await create_group(hub, history, str(index))
    for _ in range(STEPS):
        await random.choices((report, change_group, change_schema, create_group), (10, 3, 2, 1))[0](hub, history)
    return history


async def report(hub: Hub, history: History) -> None:
    """Records a batch of events on few units; receivers reject some of the payloads."""
    random = history.random
    new_events: list[Any] = []
    for _ in range(random.choice((1, 1, 2, 6))):
        receiver = random.choice(history.receivers)
        payload = random.choice((1, 1, 1, "text"))
        unit = f"{history.number}-{random.choice('aab')}"
        new_events.append(new_event(receiver, name=unit, payload=payload, success=random.random() < 0.7))
    for new, result in zip(new_events, await hub.recorder.record_all(MANAGER, new_events), strict=True):
        is_valid = history.payload_types[new.receiver_id] == ("integer" if new.payload == 1 else "string")
        assert isinstance(result, Recorded if is_valid else Problem), result
        if isinstance(result, Recorded):
            event = result.event
            step = Reported(event.id, event.receiver_id, event.name, event.success, event.recorded_at)
            history.steps.append(step)
            history.results.append(result)


async def create_group(hub: Hub, history: History, name: str = "late") -> None:
    """Creates a group, enabled or disabled."""
    enabled = history.random.random() < 0.8
    group = await new_group(hub, *random_members(history), name=f"{history.number}-{name}", enabled=enabled)
    add_change(history, Changed(group.id, group.receiver_ids, enabled))


async def change_group(hub: Hub, history: History) -> None:
    """Enables, disables, renames or deletes a group, or changes its members."""
    if not history.groups:
        return
    state = history.random.choice(list(history.groups.values()))
    match history.random.randrange(8):
        case 0:
            await hub.groups.delete(MANAGER, state.group)
            add_change(history, Changed(state.group, (), False))
        case 1 | 2 | 3:
            await hub.groups.set_enabled(MANAGER, state.group, not state.enabled)
            add_change(history, Changed(state.group, state.members, not state.enabled))
        case 4:
            await hub.groups.update(MANAGER, state.group, GroupChange(name="renamed"))
            add_change(history, state)
        case _:
            members = random_members(history)
            await hub.groups.update(MANAGER, state.group, GroupChange(receiver_ids=members))
            add_change(history, Changed(state.group, members, state.enabled))


async def change_schema(hub: Hub, history: History) -> None:
    """Changes a receiver's schema to the other payload type."""
    receiver = history.random.choice(history.receivers)
    payload_type = "string" if history.payload_types[receiver] == "integer" else "integer"
    await hub.receivers.update(MANAGER, receiver, ReceiverChange(schema={"type": payload_type}))
    history.payload_types[receiver] = payload_type


def random_members(history: History) -> tuple[str, ...]:
    return tuple(history.random.sample(history.receivers, history.random.randint(1, len(history.receivers))))


def add_change(history: History, changed: Changed) -> None:
    history.steps.append(changed)
    if changed.members:
        history.groups[changed.group] = changed
    else:
        del history.groups[changed.group]


# Comparing -----------------------------------------------------------------------------------------


async def test_random_histories_match_oracle(database_url: str):
    slots = asyncio.Semaphore(CONCURRENT_HISTORIES)
    async with running_hub(database_url, database={"max_connections": 16}) as hub:

        async def run(number: int) -> History:
            async with slots:
                return await run_history(hub, number)

        histories = await asyncio.gather(*(run(number) for number in range(HISTORIES)))
        stream = await messages(hub)
        by_group = gate_messages_by_group(stream)
        for history in histories:
            groups = {step.group for step in history.steps if isinstance(step, Changed)}
            assert messages_in_order(by_group, groups) == expected_messages(history.steps), f"history {history.number}"
        await gates_are_as_expected(hub, histories)
    assert [message.position for message in stream] == list(range(1, len(stream) + 1))
    kinds = [message.kind for message in stream]
    assert kinds.count(Kind.GATE_COMPLETED) > HISTORIES, "the histories complete gates often enough"
    assert kinds.count(Kind.GATE_REGRESSED) > HISTORIES / 4


def gate_messages_by_group(stream: list[Message]) -> dict[str, list[tuple[int, tuple[Any, ...]]]]:
    """Returns the gate messages of each group with their positions."""
    by_group: dict[str, list[tuple[int, tuple[Any, ...]]]] = defaultdict(list)
    for message in stream:
        if message.kind in (Kind.GATE_COMPLETED, Kind.GATE_REGRESSED):
            assert message.group_id is not None
            assert message.event is not None
            assert message.data is not None
            data = orjson.loads(message.data)
            since = None if data["since"] is None else datetime.fromisoformat(data["since"])
            entry = (message.kind, message.group_id, message.event.id, data["transition"], since)
            by_group[message.group_id].append((message.position, entry))
    return by_group


def messages_in_order(
    by_group: dict[str, list[tuple[int, tuple[Any, ...]]]], groups: set[str]
) -> list[tuple[Any, ...]]:
    return [entry for _, entry in sorted(item for group in groups for item in by_group.get(group, ()))]


def is_report(step: Step) -> TypeGuard[Reported]:
    return isinstance(step, Reported)


def has_event(history: History, members: tuple[str, ...], unit: str) -> bool:
    return any(latest(history.steps, member, unit) for member in members)


async def gates_are_as_expected(hub: Hub, histories: list[History]) -> None:
    """Asserts the state of each gate, and the gates in the result of each recorded event."""
    for history in histories:
        units = {step.unit: Unit(step.unit, "1.0", "1", "linux", "rpm") for step in history.steps if is_report(step)}
        gates_of_units = await hub.groups.gates_of_units(MANAGER, list(units.values()))
        for name, unit in units.items():
            gates = {gate.group.id: gate for gate in gates_of_units[unit]}
            assert list(gates) == [g for g in history.groups if has_event(history, history.groups[g].members, name)]
            for group in (history.groups[id] for id in gates):
                gate = gates[group.group]
                complete = is_complete(history.steps, group.members, name)
                assert (gate.complete, gate.group.enabled) == (complete, group.enabled)
                assert gate.since == (complete_since(history.steps, group.members, name) if complete else None)
                assert [member.receiver_id for member in gate.members] == list(group.members)
        reported = [index for index, step in enumerate(history.steps) if isinstance(step, Reported)]
        for index, result in zip(reported, history.results, strict=True):
            step, until = result.event, history.steps[: index + 1]
            returned = {gate.group.id: gate.complete for gate in result.gates}
            before = {s.group: s for s in until if isinstance(s, Changed)}
            assert returned == {
                group: is_complete(until, state.members, step.name)
                for group, state in before.items()
                if state.enabled and step.receiver_id in state.members
            }
