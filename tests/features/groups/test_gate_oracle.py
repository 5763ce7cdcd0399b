"""Gates against an oracle that knows no state: it goes through the whole history again for every event.

Histories run beside each other on one hub, so that batches mix them; each has receivers, groups and units of its own.
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
STEPS = 14
BESIDE_EACH_OTHER = 24


@dataclass(frozen=True, slots=True)
class Reported:
    """A step of a history: an event that was recorded."""

    id: str
    receiver: str
    unit: str
    success: bool
    time: datetime


@dataclass(frozen=True, slots=True)
class Changed:
    """A step of a history: what a group is from then on; no members when it is gone."""

    group: str
    members: tuple[str, ...]
    enabled: bool


Step = Reported | Changed


@dataclass(slots=True)
class History:
    """What happened to some receivers, groups and units, in order."""

    number: int
    random: Random
    receivers: list[str] = field(default_factory=list[str])
    wanted: dict[str, str] = field(default_factory=dict[str, str])
    """The type of payload that each receiver's schema asks for now."""
    groups: dict[str, Changed] = field(default_factory=dict[str, Changed])
    steps: list[Step] = field(default_factory=list[Step])
    answers: list[Recorded] = field(default_factory=list[Recorded])


# The oracle ----------------------------------------------------------------------------------------


def latest(steps: list[Step], receiver: str, unit: str) -> Reported | None:
    """A receiver's last event for a unit."""
    found = [s for s in steps if isinstance(s, Reported) and (s.receiver, s.unit) == (receiver, unit)]
    return found[-1] if found else None


def is_complete(steps: list[Step], members: tuple[str, ...], unit: str) -> bool:
    last = [latest(steps, member, unit) for member in members]
    return all(event is not None and event.success for event in last)


def complete_since(steps: list[Step], members: tuple[str, ...], unit: str) -> datetime:
    """When the last of the members began to pass without a failure since."""
    began: list[datetime] = []
    for member in members:
        events = [s for s in steps if isinstance(s, Reported) and (s.receiver, s.unit) == (member, unit)]
        failures = [index for index, event in enumerate(events) if not event.success]
        began.append(events[failures[-1] + 1 if failures else 0].time)
    return max(began)


def as_it_is(steps: list[Step], group: str) -> Changed:
    return [s for s in steps if isinstance(s, Changed) and s.group == group][-1]


def expected_messages(steps: list[Step]) -> list[tuple[Any, ...]]:
    """Every gate message of a history: kind, group, event, transition, since."""
    said: list[tuple[Any, ...]] = []
    for index, event in enumerate(steps):
        if not isinstance(event, Reported):
            continue
        before, after = steps[:index], steps[: index + 1]
        for group in dict.fromkeys(s.group for s in before if isinstance(s, Changed)):
            now = as_it_is(before, group)
            if not now.enabled or event.receiver not in now.members:
                continue
            was, is_now = is_complete(before, now.members, event.unit), is_complete(after, now.members, event.unit)
            changed = max(i for i, s in enumerate(before) if isinstance(s, Changed) and s.group == group)
            first = not any(
                isinstance(s, Reported) and s.unit == event.unit and s.receiver in now.members for s in before[changed:]
            )
            if event.success and is_now:
                since = complete_since(after, now.members, event.unit)
                said.append((Kind.GATE_COMPLETED, group, event.id, not was or first, since))
            elif was and not is_now:
                said.append((Kind.GATE_REGRESSED, group, event.id, True, None))
    return said


# What really happens -------------------------------------------------------------------------------


async def live(hub: Hub, number: int) -> History:
    """One history, from its beginning."""
    random = Random(number)
    history = History(number, random)
    for index in range(random.randint(2, 4)):
        receiver = await new_receiver(hub, f"{number}-{index}", schema={"type": "integer"})
        history.receivers.append(receiver.id)
        history.wanted[receiver.id] = "integer"
    for index in range(random.randint(1, 3)):
        await make_group(hub, history, str(index))
    for _ in range(STEPS):
        await random.choices((report, change_group, change_schema, make_group), (10, 3, 2, 1))[0](hub, history)
    return history


async def report(hub: Hub, history: History) -> None:
    """Some events at once, on few units, some of them with payloads that the receiver refuses."""
    random = history.random
    news: list[Any] = []
    for _ in range(random.choice((1, 1, 2, 6))):
        receiver = random.choice(history.receivers)
        payload = random.choice((1, 1, 1, "text"))
        unit = f"{history.number}-{random.choice('aab')}"
        news.append(new_event(receiver, name=unit, payload=payload, success=random.random() < 0.7))
    for new, answer in zip(news, await hub.recorder.record_all(MANAGER, news), strict=True):
        fits = history.wanted[new.receiver_id] == ("integer" if new.payload == 1 else "string")
        assert isinstance(answer, Recorded if fits else Problem), answer
        if isinstance(answer, Recorded):
            event = answer.event
            step = Reported(event.id, event.receiver_id, event.name, event.success, event.recorded_at)
            history.steps.append(step)
            history.answers.append(answer)


async def make_group(hub: Hub, history: History, name: str = "late") -> None:
    """A new group, enabled or not."""
    enabled = history.random.random() < 0.8
    group = await new_group(hub, *some_of(history), name=f"{history.number}-{name}", enabled=enabled)
    remember(history, Changed(group.id, group.receiver_ids, enabled))


async def change_group(hub: Hub, history: History) -> None:
    """Enables, disables, renames or deletes a group, or changes its members."""
    if not history.groups:
        return
    was = history.random.choice(list(history.groups.values()))
    match history.random.randrange(8):
        case 0:
            await hub.groups.delete(MANAGER, was.group)
            remember(history, Changed(was.group, (), False))
        case 1 | 2 | 3:
            await hub.groups.set_enabled(MANAGER, was.group, not was.enabled)
            remember(history, Changed(was.group, was.members, not was.enabled))
        case 4:
            await hub.groups.update(MANAGER, was.group, GroupChange(name="renamed"))
            remember(history, was)
        case _:
            members = some_of(history)
            await hub.groups.update(MANAGER, was.group, GroupChange(receiver_ids=members))
            remember(history, Changed(was.group, members, was.enabled))


async def change_schema(hub: Hub, history: History) -> None:
    """Lets a receiver want the other type of payload."""
    receiver = history.random.choice(history.receivers)
    wanted = "string" if history.wanted[receiver] == "integer" else "integer"
    await hub.receivers.update(MANAGER, receiver, ReceiverChange(schema={"type": wanted}))
    history.wanted[receiver] = wanted


def some_of(history: History) -> tuple[str, ...]:
    return tuple(history.random.sample(history.receivers, history.random.randint(1, len(history.receivers))))


def remember(history: History, changed: Changed) -> None:
    history.steps.append(changed)
    if changed.members:
        history.groups[changed.group] = changed
    else:
        del history.groups[changed.group]


# Comparing -----------------------------------------------------------------------------------------


async def test_random_histories_match_oracle(database_url: str):
    places = asyncio.Semaphore(BESIDE_EACH_OTHER)
    async with running_hub(database_url, database={"max_connections": 16}) as hub:

        async def one(number: int) -> History:
            async with places:
                return await live(hub, number)

        histories = await asyncio.gather(*(one(number) for number in range(HISTORIES)))
        stream = await messages(hub)
        said = said_by_group(stream)
        for history in histories:
            groups = {step.group for step in history.steps if isinstance(step, Changed)}
            assert said_in_order(said, groups) == expected_messages(history.steps), f"history {history.number}"
        await gates_are_as_expected(hub, histories)
    assert [message.position for message in stream] == list(range(1, len(stream) + 1))
    kinds = [message.kind for message in stream]
    assert kinds.count(Kind.GATE_COMPLETED) > HISTORIES, "the histories had something to say"
    assert kinds.count(Kind.GATE_REGRESSED) > HISTORIES / 4


def said_by_group(stream: list[Message]) -> dict[str, list[tuple[int, tuple[Any, ...]]]]:
    """The gate messages of each group with their positions."""
    said: dict[str, list[tuple[int, tuple[Any, ...]]]] = defaultdict(list)
    for message in stream:
        if message.kind in (Kind.GATE_COMPLETED, Kind.GATE_REGRESSED):
            assert message.group_id is not None
            assert message.event is not None
            assert message.data is not None
            data = orjson.loads(message.data)
            since = None if data["since"] is None else datetime.fromisoformat(data["since"])
            entry = (message.kind, message.group_id, message.event.id, data["transition"], since)
            said[message.group_id].append((message.position, entry))
    return said


def said_in_order(said: dict[str, list[tuple[int, tuple[Any, ...]]]], groups: set[str]) -> list[tuple[Any, ...]]:
    return [entry for _, entry in sorted(found for group in groups for found in said.get(group, ()))]


def is_report(step: Step) -> TypeGuard[Reported]:
    return isinstance(step, Reported)


def reported_on(history: History, members: tuple[str, ...], unit: str) -> bool:
    return any(latest(history.steps, member, unit) for member in members)


async def gates_are_as_expected(hub: Hub, histories: list[History]) -> None:
    """Every gate as it is when asked, and as each answer told it."""
    for history in histories:
        units = {step.unit: Unit(step.unit, "1.0", "1", "linux", "rpm") for step in history.steps if is_report(step)}
        found = await hub.groups.gates_of_units(MANAGER, list(units.values()))
        for name, unit in units.items():
            gates = {gate.group.id: gate for gate in found[unit]}
            assert list(gates) == [g for g in history.groups if reported_on(history, history.groups[g].members, name)]
            for group in (history.groups[id] for id in gates):
                gate = gates[group.group]
                complete = is_complete(history.steps, group.members, name)
                assert (gate.complete, gate.group.enabled) == (complete, group.enabled)
                assert gate.since == (complete_since(history.steps, group.members, name) if complete else None)
                assert [member.receiver_id for member in gate.members] == list(group.members)
        reported = [index for index, step in enumerate(history.steps) if isinstance(step, Reported)]
        for index, answer in zip(reported, history.answers, strict=True):
            step, until = answer.event, history.steps[: index + 1]
            told = {gate.group.id: gate.complete for gate in answer.gates}
            before = {s.group: s for s in until if isinstance(s, Changed)}
            assert told == {
                group: is_complete(until, now.members, step.name)
                for group, now in before.items()
                if now.enabled and step.receiver_id in now.members
            }
