"""Validates payloads with the schemas of receivers, before the writer lock and again under it.

Before the lock, receivers come from a cache that may be out of date. A cached receiver may therefore accept a payload
but never reject it: it is read again before a rejection, and the recorder compares revisions under the lock.
"""

from collections.abc import Collection, Mapping, Sequence

from xzepr.core.errors import Conflict, InvalidInput, NotFound
from xzepr.core.lru_cache import LRUCache
from xzepr.features.receivers import schemas, store
from xzepr.features.receivers.model import Receiver
from xzepr.features.stream.model import Message
from xzepr.infra.db import Connection, Cursor, Database

_CACHE_SIZE = 1_000  # receivers
_FIELD = "receiver_id"  # the field of an event that names its receiver


class PayloadValidator:
    """Validates payloads with cached receivers and compiled schemas."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._validators = schemas.Validators()
        self._receivers = LRUCache[str, Receiver](_CACHE_SIZE)

    async def validate(self, receiver_id: str, payload: object) -> int:
        """Returns the revision of the schema that accepts the payload.

        Raises NotFound, Conflict if the receiver is disabled, or InvalidInput if its current schema rejects it.
        """
        receiver = self._receivers.get(receiver_id)
        if receiver is not None and receiver.enabled and self._accepts(receiver, payload):
            return receiver.revision
        async with self._db.read() as connection:
            receiver = await self.read_receiver(connection, receiver_id)
        self.check(receiver, payload)
        return receiver.revision

    def check(self, receiver: Receiver, payload: object) -> None:
        """Raises Conflict if the receiver is disabled, or InvalidInput if its schema rejects the payload."""
        if not receiver.enabled:
            raise Conflict(f"the receiver {receiver.id} is disabled", field=_FIELD)
        validator = self._validators.get(receiver.schema_digest, receiver.schema)
        if violations := schemas.violations(validator, payload):
            raise InvalidInput(violations)

    async def read_states(self, connection: Connection, receiver_ids: Collection[str]) -> Cursor[store.ReceiverState]:
        """Reads the states of a batch's receivers under the writer lock, for `BatchValidator`."""
        return await store.states(connection, list(receiver_ids))

    def forget_changed(self, messages: Sequence[Message]) -> None:
        """Removes the receivers that messages of the stream are about from the cache."""
        for message in messages:
            if message.event is None and message.receiver_id is not None:
                self._receivers.pop(message.receiver_id)

    def clear(self) -> None:
        """Clears the cache. A restored database may have other schemas under the same revisions."""
        self._receivers.clear()

    async def read_receiver(self, connection: Connection, receiver_id: str) -> Receiver:
        """Reads a receiver and caches it. Raises NotFound."""
        receivers = await store.by_ids(connection, [receiver_id])
        if not receivers:
            self._receivers.pop(receiver_id)
            raise NotFound("event receiver", receiver_id, field=_FIELD)
        self._receivers.put(receiver_id, receivers[0])
        return receivers[0]

    def _accepts(self, receiver: Receiver, payload: object) -> bool:
        return self._validators.get(receiver.schema_digest, receiver.schema).is_valid(payload)


class BatchValidator:
    """Validates the payloads of one batch with the states of its receivers under the writer lock."""

    def __init__(
        self, validator: PayloadValidator, connection: Connection, states: Sequence[store.ReceiverState]
    ) -> None:
        self._validator = validator
        self._connection = connection
        self._states: Mapping[str, store.ReceiverState] = {state.id: state for state in states}

    async def validate(self, receiver_id: str, revision: int, payload: object) -> int:
        """Returns the revision that accepts the payload, which `revision` accepted before the lock.

        Validates it again if the receiver has changed since. Raises NotFound, Conflict or InvalidInput.
        """
        state = self._states.get(receiver_id)
        if state is None:
            raise NotFound("event receiver", receiver_id, field=_FIELD)
        if state.enabled and state.revision == revision:
            return revision
        receiver = await self._validator.read_receiver(self._connection, receiver_id)
        self._validator.check(receiver, payload)
        return receiver.revision
