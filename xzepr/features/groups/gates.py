"""The gates in a transaction of the recorder: their groups, and the messages about them."""

from collections.abc import Iterable, Sequence

import orjson

from xzepr.core.clock import json_time
from xzepr.core.ids import texts_with_length
from xzepr.features.groups import rules, store
from xzepr.features.groups.model import Gate, GateUpdate, Group
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import Event
from xzepr.infra.binary import Type, array
from xzepr.infra.db import Connection
from xzepr.infra.pipeline import Pipeline, Reply

# The statements of the functions below, which the recorder calls under the writer lock.
STATEMENTS = (store.LOCKED_GROUPS,)


def send_groups(pipeline: Pipeline, receiver_ids: Iterable[str]) -> Reply[Group]:
    """Reads every enabled group that has any of the receivers as a member, in any order."""
    return pipeline.send(store.LOCKED_GROUPS, [array(Type.TEXT, texts_with_length(receiver_ids))])


def published_kind(update: GateUpdate) -> Kind | None:
    """Returns the kind of the message that is published about an update. None if there is no message."""
    if update.completed:
        return Kind.GATE_COMPLETED
    return Kind.GATE_REGRESSED if update.regressed else None


def message_data(update: GateUpdate, snapshots: dict[str, orjson.Fragment]) -> bytes:
    """Returns the data of the message about an update. `snapshots` keeps those of groups for the next message."""
    group = update.group
    if group.id not in snapshots:
        snapshots[group.id] = orjson.Fragment(rules.snapshot(group))
    return orjson.dumps(
        {
            "eventReceiverGroup": snapshots[group.id],
            "transition": update.transition,
            "since": None if (since := rules.gate_of(update).since) is None else json_time(since),
        },
        option=orjson.OPT_UTC_Z,
    )


async def current_gates(connection: Connection, events: Sequence[Event]) -> dict[int, tuple[Gate, ...]]:
    """Returns the current gates of each event's receiver for the event's unit, by the event's position."""
    groups = await (
        await store.enabled_groups_with_members(connection, [event.receiver_id for event in events])
    ).fetchall()
    groups.sort(key=lambda group: group.position)
    statuses = await (await store.statuses(connection, [event.unit_id for event in events])).fetchall()
    units = rules.statuses_by_unit(statuses)
    return {
        event.position: tuple(
            rules.evaluate_gate(group, rules.unit_of(event), units.get(event.unit_id, {}))
            for group in groups
            if event.receiver_id in group.receiver_ids
        )
        for event in events
    }
