"""The use cases of receivers: create, change, delete and list."""

from collections.abc import Iterable

from xzepr.core.actor import Actor, Permission
from xzepr.core.errors import Conflict, NotFound
from xzepr.core.ids import is_id, new_id
from xzepr.core.paging import Page, PageRequest, page_of
from xzepr.features.receivers import rules, store
from xzepr.features.receivers.catalog import Catalog, CatalogPart
from xzepr.features.receivers.model import NewReceiver, Receiver, ReceiverChange, ReceiverFilter
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.service import Stream, WriteTransaction
from xzepr.infra.db import Connection, Database
from xzepr.settings import EventSettings

_MAX_KEPT_BYTES = 16 * 1024 * 1024  # of receivers in memory, most of which is schemas


class Receivers:
    """Use cases of receivers."""

    def __init__(self, db: Database, stream: Stream, text_limits: EventSettings) -> None:
        """`text_limits` has the maximum lengths of names and descriptions."""
        self._db = db
        self._stream = stream
        self._text_limits = text_limits
        self.catalog = Catalog(db)
        self._kept = CatalogPart[Receiver](
            self.catalog, store.catalog_by_ids, max_bytes=_MAX_KEPT_BYTES, size_of=lambda receiver: receiver.size
        )

    async def create(self, actor: Actor, new: NewReceiver) -> Receiver:
        """Creates a receiver; name, type and version need not be unique. Raises InvalidInput if a field is invalid."""
        actor.must(Permission.RECEIVER_CREATE)
        schema = rules.check(new, self._text_limits)
        assert schema is not None, "a new receiver has a schema"
        async with self._stream.write(actor) as tx:
            receiver = rules.new_receiver(
                new, schema, id=new_id(), position=tx.next_position, owner_id=actor.id, time=tx.time
            )
            await self._write(tx, Kind.RECEIVER_CREATED, receiver, new_revision=True)
        return receiver

    async def update(
        self, actor: Actor, id: str, change: ReceiverChange, expected_version: int | None = None
    ) -> Receiver:
        """Changes a receiver and publishes the change. Another schema becomes a new revision.

        Raises InvalidInput, NotFound, or Conflict if `expected_version` is not the receiver's `resource_version`.
        """
        actor.must(Permission.RECEIVER_UPDATE)
        schema = rules.check(change, self._text_limits)
        async with self._stream.write(actor) as tx:
            receiver = await self._read_for_change(tx.connection, id, expected_version)
            changed = rules.apply_change(receiver, change, schema, tx.time)
            await self._write(tx, Kind.RECEIVER_UPDATED, changed, new_revision=changed.revision != receiver.revision)
        return changed

    async def delete(self, actor: Actor, id: str, expected_version: int | None = None) -> Receiver:
        """Deletes a receiver, publishes its last state and returns it.

        Raises NotFound, or Conflict if an event or a group refers to it or as `update` does.
        """
        actor.must(Permission.RECEIVER_DELETE)
        async with self._stream.write(actor) as tx:
            receiver = await self._read_for_change(tx.connection, id, expected_version)
            if await store.has_events(tx.connection, id):
                raise Conflict("the receiver has events, which are never deleted; disable it instead", field="id")
            if (group_id := await store.group_with_member(tx.connection, id)) is not None:
                raise Conflict(f"the receiver is a member of the group {group_id}", field="id")
            await store.delete(tx.connection, id)
            tx.append(Kind.RECEIVER_DELETED, receiver_id=id, data=rules.snapshot(receiver))
        return receiver

    async def get(self, actor: Actor, id: str) -> Receiver:
        """Returns one receiver. Raises NotFound if it does not exist."""
        receivers = await self.by_ids(actor, [id])
        if not receivers:
            raise NotFound("event receiver", id)
        return receivers[id]

    async def by_ids(self, actor: Actor, ids: Iterable[str]) -> dict[str, Receiver]:
        """Returns the receivers with these ids, by id. Unknown ids are left out.

        A receiver is the same object in every result until a receiver or a group changes.
        """
        actor.must(Permission.RECEIVER_READ)
        return await self._kept.by_ids([id for id in ids if is_id(id)])

    async def page(self, actor: Actor, filter: ReceiverFilter, page_request: PageRequest) -> Page[Receiver]:
        """Returns a page of the receivers that match a filter, newest first."""
        actor.must(Permission.RECEIVER_READ)
        rules.check_filter(filter)
        first = page_request.first
        async with self._db.read() as connection:
            receivers, reached = await store.page(connection, filter, page_request.after, first + 1)
        return page_of(receivers, first, reached)

    async def existing(self, connection: Connection, ids: Iterable[str]) -> set[str]:
        """Returns the ids that belong to a receiver, in the caller's transaction. The caller checks permissions."""
        return set(await store.existing(connection, [id for id in ids if is_id(id)]))

    async def _read_for_change(self, connection: Connection, id: str, expected_version: int | None) -> Receiver:
        receivers = await store.by_ids(connection, [id]) if is_id(id) else []
        if not receivers:
            raise NotFound("event receiver", id, field="id")
        if expected_version not in (None, receivers[0].resource_version):
            raise Conflict(
                f"the receiver is at version {receivers[0].resource_version}, not {expected_version}: read it again",
                field="expected_version",
            )
        return receivers[0]

    async def _write(self, tx: WriteTransaction, kind: Kind, receiver: Receiver, *, new_revision: bool) -> None:
        await store.save(tx.connection, receiver)
        if new_revision:
            await store.insert_revision(tx.connection, receiver.id)
        tx.append(kind, receiver_id=receiver.id, data=rules.snapshot(receiver))
