"""One batch of events in one transaction: read what it needs, judge each in order, write it all."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from xzepr.core.actor import Actor
from xzepr.core.clock import now
from xzepr.core.errors import Conflict, Problem
from xzepr.features.events import rules, store
from xzepr.features.events.model import Accepted, Recorded
from xzepr.features.events.queue import Pending
from xzepr.features.groups.gates import GateBatch
from xzepr.features.receivers.payload_validation import BatchValidator, PayloadValidator
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import Cursor, Event
from xzepr.features.stream.service import WriteTransaction
from xzepr.infra.db import Connection


@dataclass(frozen=True, slots=True)
class Repeat:
    """The idempotency key was used before: the answer is the event that stands at this position."""

    position: int


Outcome = Recorded | Repeat | Problem


class Batch:
    """The events of one transaction, each with what became of it."""

    def __init__(
        self, tx: WriteTransaction, admitting: BatchValidator, gates: GateBatch, keys: Sequence[store.UsedKey]
    ):
        self._tx = tx
        self._validator = admitting
        self._gates = gates
        self._keys = {(key.owner_id, key.key): key for key in keys}
        self._new_keys: list[store.UsedKey] = []
        self._events: list[Event] = []

    @classmethod
    async def read(cls, tx: WriteTransaction, admission: PayloadValidator, pendings: Sequence[Pending]) -> "Batch":
        """Reads receivers, gates and idempotency keys of the batch under the lock."""
        connection = tx.connection
        receiver_ids = {pending.accepted.new.receiver_id for pending in pendings}
        keyed = [
            (pending.actor.id, key) for pending in pendings if (key := pending.accepted.new.idempotency_key) is not None
        ]
        used = await store.used_keys(connection, [id for id, _ in keyed], [key for _, key in keyed]) if keyed else None
        standings = await admission.read_states(connection, receiver_ids)
        gates = await GateBatch.read(connection, receiver_ids, {pending.accepted.unit_id for pending in pendings})
        admitting = BatchValidator(admission, connection, await standings.fetchall())
        return cls(tx, admitting, gates, await used.fetchall() if used else [])

    async def add(self, pending: Pending) -> Outcome:
        """Gives one event its place, or says why not."""
        accepted, actor = pending.accepted, pending.actor
        try:
            if (repeat := self._find_repeat(actor, accepted)) is not None:
                return repeat
            new = accepted.new
            revision = await self._validator.validate(new.receiver_id, accepted.receiver_revision, new.payload)
            if revision != accepted.receiver_revision:
                accepted = replace(accepted, receiver_revision=revision)
            event = rules.position_event(accepted, self._tx.next_position, self._tx.time, actor.id, now())
        except Problem as problem:
            return problem
        return self._record(actor, accepted, event)

    def _find_repeat(self, actor: Actor, accepted: Accepted) -> Repeat | None:
        key = accepted.new.idempotency_key
        used = None if key is None else self._keys.get((actor.id, key))
        if used is None:
            return None
        if used.digest != accepted.digest:
            raise Conflict("this idempotency key was used for an event with other content", field="idempotency_key")
        return Repeat(used.position)

    def _record(self, actor: Actor, accepted: Accepted, event: Event) -> Recorded:
        message = self._tx.append(
            Kind.EVENT_RECORDED, actor=actor, id=event.id, receiver_id=event.receiver_id, event=event
        )
        self._events.append(event)
        if (key := accepted.new.idempotency_key) is not None:
            used = store.UsedKey(actor.id, key, accepted.digest, event.position)
            self._keys[actor.id, key] = used
            self._new_keys.append(used)
        gates = self._gates.record(self._tx, actor, event)
        return Recorded(event, Cursor.of(message.position, message.id), gates, repeated=False)

    async def write(self, connection: Connection) -> None:
        """Writes what was given a place; the stream's turn writes the messages."""
        if not self._events:
            return
        await store.insert(connection, self._events)
        await self._gates.save(connection)
        if self._new_keys:
            await store.insert_keys(connection, self._new_keys)
