"""The gates in a transaction of the recorder: read, updated with each event, published and stored."""

from collections.abc import Collection, Sequence

import orjson

from xzepr.core.actor import Actor
from xzepr.features.groups import rules, store
from xzepr.features.groups.model import Gate, GateUpdate
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import Event
from xzepr.features.stream.service import WriteTransaction
from xzepr.infra.db import Connection


class GateBatch:
    """The gates that one batch of events can change.

    `read` takes two statements and `save` one, however many events the batch has.
    """

    def __init__(self, fold: rules.GateFold) -> None:
        self._fold = fold
        self._snapshots: dict[str, orjson.Fragment] = {}

    @classmethod
    async def read(
        cls, connection: Connection, receiver_ids: Collection[str], unit_ids: Collection[bytes]
    ) -> "GateBatch":
        """Reads gates under the writer lock, in one round trip if the connection is in pipeline mode."""
        groups = await store.enabled_groups_with_members(connection, list(receiver_ids))
        statuses = await store.statuses(connection, list(unit_ids))
        return cls(rules.GateFold(await groups.fetchall(), await statuses.fetchall()))

    def record(self, tx: WriteTransaction, actor: Actor, event: Event) -> tuple[Gate, ...]:
        """Applies one event, publishes the gates that it completes or regresses, and returns its receiver's gates."""
        updates = self._fold.record(event)
        for update in updates:
            self._publish(tx, actor, event, update)
        return tuple(update.gate for update in updates)

    def _publish(self, tx: WriteTransaction, actor: Actor, event: Event, update: GateUpdate) -> None:
        if not update.completed and not update.regressed:
            return
        group = update.gate.group
        if group.id not in self._snapshots:
            self._snapshots[group.id] = orjson.Fragment(rules.snapshot(group))
        tx.append(
            Kind.GATE_COMPLETED if update.completed else Kind.GATE_REGRESSED,
            actor=actor,
            receiver_id=event.receiver_id,
            group_id=group.id,
            event=event,
            data=orjson.dumps(
                {
                    "eventReceiverGroup": self._snapshots[group.id],
                    "transition": update.transition,
                    "since": update.gate.since,
                },
                option=orjson.OPT_UTC_Z,
            ),
        )

    async def save(self, connection: Connection) -> None:
        """Writes each receiver's status for each unit of the batch."""
        if statuses := self._fold.changed():
            await store.save_statuses(connection, statuses)


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
