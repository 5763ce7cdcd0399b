"""Validates payloads with the schemas of receivers, before the writer lock and again under it.

Before the lock, receivers come from a cache that may be out of date. A cached receiver may therefore accept a payload
but never reject it: it is read again before a rejection, and the recorder compares revisions under the lock.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xzepr.core.errors import Conflict, InvalidInput, NotFound
from xzepr.core.ids import texts_with_length
from xzepr.core.lru_cache import LRUCache
from xzepr.features.receivers import schemas, store
from xzepr.features.receivers.model import Receiver, ReceiverState
from xzepr.features.stream.model import Message
from xzepr.infra.binary import Type, array
from xzepr.infra.db import Connection, Database
from xzepr.infra.pipeline import Pipeline, Reply

# The statements of the functions below, which the recorder calls under the writer lock.
STATEMENTS = (store.LOCKED_STATES, store.LOCKED_SCHEMAS)

_CACHE_SIZE = 1_000  # receivers
_FIELD = "receiver_id"  # the field of an event that names its receiver


@dataclass(frozen=True, slots=True)
class _Cached:
    receiver: Receiver
    validator: schemas.Validator


class PayloadValidator:
    """Validates payloads with cached receivers and compiled schemas."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._validators = schemas.Validators()
        self._receivers = LRUCache[str, _Cached](_CACHE_SIZE)

    def known_revision(self, receiver_id: str, payload: object) -> int | None:
        """Returns the revision of the cached schema that accepts the payload. None if the receiver has to be read."""
        cached = self._receivers.get(receiver_id)
        if cached is not None and cached.receiver.enabled and cached.validator.is_valid(payload):
            return cached.receiver.revision
        return None

    async def validate(self, receiver_id: str, payload: object) -> int:
        """Reads the receiver, and returns the revision of its schema if that accepts the payload.

        Raises NotFound, Conflict if the receiver is disabled, or InvalidInput if its current schema rejects it.
        """
        async with self._db.read() as connection:
            cached = await self._read_receiver(connection, receiver_id)
        check_enabled(receiver_id, enabled=cached.receiver.enabled)
        check_payload(cached.validator, payload)
        return cached.receiver.revision

    def forget_changed(self, messages: Sequence[Message]) -> None:
        """Removes the receivers that messages of the stream are about from the cache."""
        for message in messages:
            if message.event is None and message.receiver_id is not None:
                self._receivers.pop(message.receiver_id)

    def clear(self) -> None:
        """Clears the cache. A restored database may have other schemas under the same revisions."""
        self._receivers.clear()

    async def _read_receiver(self, connection: Connection, receiver_id: str) -> _Cached:
        receivers = await store.by_ids(connection, [receiver_id])
        if not receivers:
            self._receivers.pop(receiver_id)
            raise not_found(receiver_id)
        receiver = receivers[0]
        cached = _Cached(receiver, self._validators.get(receiver.schema_digest, receiver.schema))
        self._receivers.put(receiver_id, cached)
        return cached


def not_found(receiver_id: str) -> NotFound:
    """Returns the error for an event of a receiver that does not exist."""
    return NotFound("event receiver", receiver_id, field=_FIELD)


def check_enabled(receiver_id: str, *, enabled: bool) -> None:
    """Raises Conflict if the receiver is disabled."""
    if not enabled:
        raise Conflict(f"the receiver {receiver_id} is disabled", field=_FIELD)


def check_payload(validator: schemas.Validator, payload: object) -> None:
    """Raises InvalidInput with all violations if the schema rejects the payload."""
    if violations := schemas.violations(validator, payload):
        raise InvalidInput(violations)


def send_states(pipeline: Pipeline, receiver_ids: Iterable[str]) -> Reply[ReceiverState]:
    """Reads the states of receivers. Unknown ids are left out."""
    return pipeline.send(store.LOCKED_STATES, [array(Type.TEXT, texts_with_length(receiver_ids))])


async def read_validator(pipeline: Pipeline, receiver_id: str) -> schemas.Validator:
    """Reads the schema of a receiver that exists, and compiles it."""
    reply = pipeline.send(store.LOCKED_SCHEMAS, [array(Type.TEXT, texts_with_length([receiver_id]))])
    await pipeline.flush()
    await pipeline.receive()
    [schema] = reply.rows
    return schemas.compile(schema.encode())
