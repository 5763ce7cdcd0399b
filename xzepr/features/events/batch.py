"""A batch of events that the recorder writes in one transaction."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from xzepr.core.clock import now
from xzepr.core.errors import Conflict, Problem
from xzepr.core.frozen import frozen
from xzepr.core.ids import new_id
from xzepr.features.events import batch_store as store
from xzepr.features.events import rules
from xzepr.features.events.catalog import KnownCatalog
from xzepr.features.events.model import Recorded
from xzepr.features.events.queue import Pending
from xzepr.features.groups.gates import message_data, published_kind
from xzepr.features.groups.model import GateUpdate, Group
from xzepr.features.groups.rules import GateFold
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import Event, Message
from xzepr.features.stream.service import Committed, begin_writing
from xzepr.infra.pipeline import Pipeline
from xzepr.settings import EventSettings

_EVENTS_PER_SLICE = 100  # events that are decided before other tasks run


@dataclass(frozen=True, slots=True)
class Repeat:
    """The outcome of an event whose idempotency key was used before, for the event at `position`."""

    position: int


Outcome = Recorded | Repeat | Problem


@frozen
class _Placed:
    """An event with its position, its gates and the messages about them."""

    pending: Pending
    event: Event
    updates: Sequence[GateUpdate]
    gate_messages: Sequence[Message]


class Batch:
    """The events of one transaction, which `record` runs."""

    def __init__(self, pendings: Sequence[Pending], process_id: str, limits: EventSettings) -> None:
        self.pendings = pendings
        self._limits = limits
        self._process_id = process_id
        self.is_committing = False
        """Whether COMMIT was sent, or is being sent. Before that, the transaction cannot have been committed."""
        self._decisions: list[_Placed | Repeat | Problem] = []
        self._statuses = GateFold(())
        self._snapshots: dict[str, orjson.Fragment] = {}
        self._new_keys: list[store.UsedKey] = []

    async def record(self, pipeline: Pipeline, catalog: KnownCatalog) -> None:
        """Runs the transaction, in two round trips, and returns after COMMIT. Raises as the pipeline does."""
        await self._read(pipeline, catalog)
        for index, pending in enumerate(self.pendings, 1):
            self._decisions.append(await self._decide(pending, pipeline, catalog))
            if index % _EVENTS_PER_SLICE == 0:
                await asyncio.sleep(0)
        self._write(pipeline)
        self.is_committing = True
        pipeline.command("COMMIT")
        await pipeline.flush(end=True)
        self.finish()  # while PostgreSQL writes
        await pipeline.receive_end()

    async def _read(self, pipeline: Pipeline, catalog: KnownCatalog) -> None:
        pendings = self.pendings
        keys = [(p.actor.id, key) for p in pendings if (key := p.accepted.new.idempotency_key) is not None]
        begin_writing(pipeline)
        start = store.send_start(pipeline)
        statuses = store.send_statuses(pipeline, list({pending.accepted.unit_id for pending in pendings}))
        used_keys = store.send_used_keys(pipeline, keys) if keys else None
        await pipeline.flush()
        await pipeline.receive()
        [self._start] = start.rows
        self._position = self._start.position
        self._statuses = GateFold(statuses.rows)
        self._keys = {(key.owner_id, key.key): key for key in used_keys.rows} if used_keys else {}
        receiver_ids = {pending.accepted.new.receiver_id for pending in pendings}
        self._standings = await catalog.standings(pipeline, self._start.token, receiver_ids)
        self._latest = rules.latest_time(self._start.time, now(), self._limits)

    async def _decide(self, pending: Pending, pipeline: Pipeline, catalog: KnownCatalog) -> _Placed | Repeat | Problem:
        try:
            if (repeat := self._find_repeat(pending)) is not None:
                return repeat
            revision, receiver_id = pending.revision, pending.accepted.new.receiver_id
            standing = self._standings[receiver_id]
            state = standing.state
            if state is None or not state.enabled or state.revision != revision:
                revision = await catalog.revision(pipeline, receiver_id, state, pending.accepted.new.payload)
            return self._place(pending, revision, standing.groups)
        except Problem as problem:
            return problem

    def _find_repeat(self, pending: Pending) -> Repeat | None:
        key = pending.accepted.new.idempotency_key
        used_key = None if key is None else self._keys.get((pending.actor.id, key))
        if used_key is None:
            return None
        if not rules.has_content(pending.accepted, used_key.digest):
            raise Conflict("this idempotency key was used for an event with other content", field="idempotency_key")
        return Repeat(used_key.position)

    def _place(self, pending: Pending, revision: int, groups: Sequence[Group]) -> _Placed:
        accepted, actor = pending.accepted, pending.actor
        new = accepted.new
        event = rules.position_event(accepted, revision, self._position + 1, self._start.time, actor.id, self._latest)
        self._position += 1
        if accepted.digest is not None and new.idempotency_key is not None:
            used_key = store.UsedKey(actor.id, new.idempotency_key, accepted.digest, event.position)
            self._keys[actor.id, new.idempotency_key] = used_key
            self._new_keys.append(used_key)
        updates = self._statuses.record(event, groups)
        if not updates:
            return _Placed(pending, event, (), ())
        messages = [message for update in updates if (message := self._message(pending, event, update)) is not None]
        return _Placed(pending, event, updates, messages)

    def _message(self, pending: Pending, event: Event, update: GateUpdate) -> Message | None:
        if (kind := published_kind(update)) is None:
            return None
        self._position += 1
        data = message_data(update, self._snapshots)
        return _new_message(kind, new_id(), self._position, pending, event, update.group.id, data)

    def _write(self, pipeline: Pipeline) -> None:
        placed = [decision for decision in self._decisions if isinstance(decision, _Placed)]
        if not placed:
            return
        store.send_events(
            pipeline,
            [each.pending.row for each in placed],
            [each.event.position for each in placed],
            [each.event.receiver_revision for each in placed],
            time=self._start.time,
            statuses=self._statuses.changed(),
            process_id=self._process_id,
        )
        if gate_messages := [message for each in placed for message in each.gate_messages]:
            store.send_gate_messages(pipeline, gate_messages)
        if self._new_keys:
            store.send_keys(pipeline, self._new_keys)

    def finish(self) -> None:
        """Makes `outcomes` and `committed`, which hold if the transaction is committed. Call it if `is_committing`."""
        self.outcomes: list[Outcome] = []
        messages: list[Message] = []
        for decision in self._decisions:
            if not isinstance(decision, _Placed):
                self.outcomes.append(decision)
                continue
            event = decision.event
            messages.append(_new_message(Kind.EVENT_RECORDED, event.id, event.position, decision.pending, event))
            messages.extend(decision.gate_messages)
            self.outcomes.append(Recorded(event, decision.updates, False))
        self.committed = Committed(self._start.id, messages)


def _new_message(
    kind: Kind,
    id: str,
    position: int,
    pending: Pending,
    event: Event,
    group_id: str | None = None,
    data: bytes | None = None,
) -> Message:
    actor = pending.actor
    return Message(
        position,
        id,
        kind,
        event.recorded_at,
        actor.kind,
        actor.id,
        actor.name,
        event.receiver_id,
        group_id,
        event,
        data,
    )
