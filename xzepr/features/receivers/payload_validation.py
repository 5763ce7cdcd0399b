"""Which events a receiver admits: judged before the lock by what this process remembers, and again under it if that
is no longer true.

What is remembered can only be too old. So it may admit, because the recorder compares revisions under the lock; it
never refuses: before a refusal the receiver is read again.
"""

from collections.abc import Collection, Mapping, Sequence

from xzepr.core.errors import Conflict, InvalidInput, NotFound
from xzepr.core.lru_cache import LRUCache
from xzepr.features.receivers import schemas, store
from xzepr.features.receivers.model import Receiver
from xzepr.features.stream.model import Message
from xzepr.infra.db import Connection, Cursor, Database

_CACHE_SIZE = 1_000
_FIELD = "receiver_id"
"""The field of an event that names its receiver."""


class PayloadValidator:
    """The receivers that this process has met, with their validators."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._validators = schemas.Validators()
        self._receivers = LRUCache[str, Receiver](_CACHE_SIZE)

    async def validate(self, receiver_id: str, payload: object) -> int:
        """The revision of the schema that accepts the payload. Raises NotFound, Conflict (disabled), or InvalidInput
        with every violation, as the receiver is now."""
        receiver = self._receivers.get(receiver_id)
        if receiver is not None and receiver.enabled and self._accepts(receiver, payload):
            return receiver.revision
        async with self._db.read() as connection:
            receiver = await self._read(connection, receiver_id)
        self.check(receiver, payload)
        return receiver.revision

    def check(self, receiver: Receiver, payload: object) -> None:
        """Raises Conflict or InvalidInput unless the receiver admits the payload."""
        if not receiver.enabled:
            raise Conflict(f"the receiver {receiver.id} is disabled", field=_FIELD)
        validator = self._validators.get(receiver.schema_digest, receiver.schema)
        if found := schemas.violations(validator, payload):
            raise InvalidInput(found)

    async def read_states(self, connection: Connection, receiver_ids: Collection[str]) -> Cursor[store.ReceiverState]:
        """Asks how the receivers of a batch stand, under the lock; fetch it into `Admitting`."""
        return await store.states(connection, list(receiver_ids))

    def forget_changed(self, messages: Sequence[Message]) -> None:
        """Forgets receivers that the stream says were changed, in whatever process."""
        for message in messages:
            if message.event is None and message.receiver_id is not None:
                self._receivers.pop(message.receiver_id)

    def clear(self) -> None:
        """Forgets every receiver: the database was restored, and may hold other revisions under the same numbers."""
        self._receivers.clear()

    async def reread(self, connection: Connection, receiver_id: str) -> Receiver:
        """The receiver as it is under the lock."""
        return await self._read(connection, receiver_id)

    def _accepts(self, receiver: Receiver, payload: object) -> bool:
        return self._validators.get(receiver.schema_digest, receiver.schema).is_valid(payload)

    async def _read(self, connection: Connection, receiver_id: str) -> Receiver:
        found = await store.by_ids(connection, [receiver_id])
        if not found:
            self._receivers.pop(receiver_id)
            raise NotFound("event receiver", receiver_id, field=_FIELD)
        self._receivers.put(receiver_id, found[0])
        return found[0]


class BatchValidator:
    """The receivers of one batch as they stand under the lock."""

    def __init__(
        self, admission: PayloadValidator, connection: Connection, standings: Sequence[store.ReceiverState]
    ) -> None:
        self._validator = admission
        self._connection = connection
        self._states: Mapping[str, store.ReceiverState] = {standing.id: standing for standing in standings}

    async def validate(self, receiver_id: str, revision: int, payload: object) -> int:
        """The revision that accepts the payload, which was judged by `revision` before the lock; if the receiver has
        changed since, it is judged again. Raises NotFound, Conflict or InvalidInput."""
        standing = self._states.get(receiver_id)
        if standing is None:
            raise NotFound("event receiver", receiver_id, field=_FIELD)
        if standing.enabled and standing.revision == revision:
            return revision
        receiver = await self._validator.reread(self._connection, receiver_id)
        self._validator.check(receiver, payload)
        return receiver.revision
