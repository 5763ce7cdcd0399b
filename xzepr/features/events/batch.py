"""A batch of events that the recorder writes in one transaction."""

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
    """The outcome of an event whose idempotency key was used before, for the event at `position`."""

    position: int


Outcome = Recorded | Repeat | Problem


class Batch:
    """The events of one transaction: `read` what they need, `add` each in order, `write` them all."""

    def __init__(
        self, tx: WriteTransaction, validator: BatchValidator, gates: GateBatch, used_keys: Sequence[store.UsedKey]
    ):
        self._tx = tx
        self._validator = validator
        self._gates = gates
        self._keys = {(key.owner_id, key.key): key for key in used_keys}
        self._new_keys: list[store.UsedKey] = []
        self._events: list[Event] = []

    @classmethod
    async def read(cls, tx: WriteTransaction, validator: PayloadValidator, pendings: Sequence[Pending]) -> "Batch":
        """Reads receivers, gates and idempotency keys of the batch under the writer lock."""
        connection = tx.connection
        receiver_ids = {pending.accepted.new.receiver_id for pending in pendings}
        owned_keys = [
            (pending.actor.id, key) for pending in pendings if (key := pending.accepted.new.idempotency_key) is not None
        ]
        used_keys = None
        if owned_keys:
            used_keys = await store.used_keys(connection, [id for id, _ in owned_keys], [key for _, key in owned_keys])
        states = await validator.read_states(connection, receiver_ids)
        gates = await GateBatch.read(connection, receiver_ids, {pending.accepted.unit_id for pending in pendings})
        batch_validator = BatchValidator(validator, connection, await states.fetchall())
        return cls(tx, batch_validator, gates, await used_keys.fetchall() if used_keys else [])

    async def add(self, pending: Pending) -> Outcome:
        """Gives an event its position and appends its message; returns a Repeat or a Problem if it is not recorded."""
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
        used_key = None if key is None else self._keys.get((actor.id, key))
        if used_key is None:
            return None
        if used_key.digest != accepted.digest:
            raise Conflict("this idempotency key was used for an event with other content", field="idempotency_key")
        return Repeat(used_key.position)

    def _record(self, actor: Actor, accepted: Accepted, event: Event) -> Recorded:
        message = self._tx.append(
            Kind.EVENT_RECORDED, actor=actor, id=event.id, receiver_id=event.receiver_id, event=event
        )
        self._events.append(event)
        if (key := accepted.new.idempotency_key) is not None:
            used_key = store.UsedKey(actor.id, key, accepted.digest, event.position)
            self._keys[actor.id, key] = used_key
            self._new_keys.append(used_key)
        gates = self._gates.record(self._tx, actor, event)
        return Recorded(event, Cursor.of(message.position, message.id), gates, repeated=False)

    async def write(self, connection: Connection) -> None:
        """Writes the recorded events, gates and idempotency keys. The write transaction writes the messages."""
        if not self._events:
            return
        await store.insert(connection, self._events)
        await self._gates.save(connection)
        if self._new_keys:
            await store.insert_keys(connection, self._new_keys)
