"""The use cases of groups (create, change, delete, list) and the queries of gates."""

from collections.abc import Sequence
from dataclasses import replace

from xzepr.core.actor import Actor, Permission
from xzepr.core.errors import Conflict, InvalidInput, NotFound, Violation
from xzepr.core.ids import is_id, new_id
from xzepr.core.paging import Page, PageRequest, page_of
from xzepr.features.groups import rules, store
from xzepr.features.groups.model import Gate, Group, GroupChange, GroupFilter, NewGroup, Unit, UnitStatus
from xzepr.features.receivers.catalog import CatalogPart
from xzepr.features.receivers.service import Receivers
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.service import Stream, WriteTransaction
from xzepr.infra.db import Connection, Database
from xzepr.settings import EventSettings, GroupSettings

_MAX_KEPT_BYTES = 4 * 1024 * 1024  # of groups in memory by id, and again by receiver


class Groups:
    """Use cases of groups and gates."""

    def __init__(
        self, *, db: Database, stream: Stream, receivers: Receivers, limits: GroupSettings, text_limits: EventSettings
    ) -> None:
        """`text_limits` has the maximum lengths of names and descriptions."""
        self._db = db
        self._stream = stream
        self._receivers = receivers
        self._limits = limits
        self._text_limits = text_limits
        self._kept = CatalogPart[Group](
            receivers.catalog, store.catalog_by_ids, max_bytes=_MAX_KEPT_BYTES, size_of=lambda group: group.size
        )
        self._kept_by_receiver = CatalogPart[list[Group]](
            receivers.catalog,
            self._read_by_receiver,
            max_bytes=_MAX_KEPT_BYTES,
            size_of=lambda groups: 1024 + sum(group.size for group in groups),
        )

    async def create(self, actor: Actor, new: NewGroup) -> Group:
        """Creates a group. Raises InvalidInput if a field breaks a rule or a receiver does not exist.

        Raises Conflict if a receiver is already in the maximum number of enabled groups.
        """
        actor.must(Permission.GROUP_CREATE)
        self._check(GroupChange(new.name, new.type, new.version, new.description, new.enabled, new.receiver_ids))
        async with self._stream.write(actor) as tx:
            group = Group(
                id=new_id(),
                position=tx.next_position,
                name=new.name,
                type=new.type,
                version=new.version,
                description=new.description,
                enabled=new.enabled,
                owner_id=actor.id,
                resource_version=1,
                changed_position=tx.next_position,
                created_at=tx.time,
                updated_at=tx.time,
                receiver_ids=new.receiver_ids,
            )
            await self._write(tx, Kind.GROUP_CREATED, group, members_changed=True)
        return group

    async def update(self, actor: Actor, id: str, change: GroupChange, expected_version: int | None = None) -> Group:
        """Changes a group and publishes the change. Does not evaluate the group's gates.

        Raises InvalidInput, NotFound, or Conflict as `create` does or if `expected_version` is not the group's
        `resource_version`.
        """
        actor.must(Permission.GROUP_UPDATE)
        self._check(change)
        new_values = {
            field: value
            for field in ("name", "type", "version", "description", "enabled", "receiver_ids")
            if (value := getattr(change, field)) is not None
        }
        async with self._stream.write(actor) as tx:
            group = await self._read_for_change(tx.connection, id, expected_version)
            changed = replace(
                group,
                **new_values,
                resource_version=group.resource_version + 1,
                changed_position=tx.next_position,
                updated_at=tx.time,
            )
            await self._write(tx, Kind.GROUP_UPDATED, changed, members_changed=change.receiver_ids is not None)
        return changed

    async def set_enabled(self, actor: Actor, id: str, enabled: bool, expected_version: int | None = None) -> Group:
        """Enables or disables a group. A disabled group is no gate."""
        return await self.update(actor, id, GroupChange(enabled=enabled), expected_version)

    async def delete(self, actor: Actor, id: str, expected_version: int | None = None) -> Group:
        """Deletes a group, publishes its last state and returns it. Raises NotFound, or Conflict as `update` does."""
        actor.must(Permission.GROUP_DELETE)
        async with self._stream.write(actor) as tx:
            group = await self._read_for_change(tx.connection, id, expected_version)
            await store.delete(tx.connection, id)
            tx.append(Kind.GROUP_DELETED, group_id=id, data=rules.snapshot(group))
        return group

    async def get(self, actor: Actor, id: str) -> Group:
        """Returns one group. Raises NotFound if it does not exist."""
        groups = await self.by_ids(actor, [id])
        if not groups:
            raise NotFound("event receiver group", id)
        return groups[id]

    async def by_ids(self, actor: Actor, ids: Sequence[str]) -> dict[str, Group]:
        """Returns the groups with these ids, by id. Unknown ids are left out.

        A group is the same object in every result until a receiver or a group changes.
        """
        actor.must(Permission.GROUP_READ)
        return await self._kept.by_ids([id for id in ids if is_id(id)])

    async def page(self, actor: Actor, filter: GroupFilter, page_request: PageRequest) -> Page[Group]:
        """Returns a page of the groups that match a filter, newest first."""
        actor.must(Permission.GROUP_READ)
        rules.check_filter(filter)
        first = page_request.first
        async with self._db.read() as connection:
            groups, reached = await store.page(connection, filter, page_request.after, first + 1)
        return page_of(groups, first, reached)

    async def of_receivers(self, actor: Actor, receiver_ids: Sequence[str]) -> dict[str, list[Group]]:
        """Returns each receiver's groups, enabled or not, oldest first, by receiver id."""
        actor.must(Permission.GROUP_READ)
        return await self._kept_by_receiver.by_ids(receiver_ids)

    async def gate(self, actor: Actor, id: str, unit: Unit) -> Gate:
        """Returns the gate of a group, enabled or not, for a unit. Raises NotFound if the group does not exist."""
        group = await self.get(actor, id)
        async with self._db.read() as connection:
            statuses = await (await store.statuses(connection, [unit.id])).fetchall()
        return rules.evaluate_gate(group, unit, rules.statuses_by_unit(statuses).get(unit.id, {}))

    async def gates_of_units(self, actor: Actor, units: Sequence[Unit]) -> dict[Unit, list[Gate]]:
        """Returns each unit's gates that have a member with an event for it, sorted by the groups' creation."""
        actor.must(Permission.GROUP_READ)
        async with self._db.read() as connection:
            statuses = await (await store.statuses(connection, [unit.id for unit in units])).fetchall()
        by_receiver = await self._kept_by_receiver.by_ids({status.receiver_id for status in statuses})
        groups = {group.id: group for groups in by_receiver.values() for group in groups}.values()
        groups = sorted(groups, key=lambda group: group.position)
        by_unit = rules.statuses_by_unit(statuses)
        return {unit: _gates_of(unit, by_unit.get(unit.id, {}), groups) for unit in units}

    async def _read_by_receiver(
        self, connection: Connection, receiver_ids: Sequence[str]
    ) -> tuple[str, dict[str, list[Group]]]:
        token, found = await store.catalog_with_members(connection, receiver_ids)
        groups = sorted(self._kept.keep(token, found).values(), key=lambda group: group.position)
        by_receiver: dict[str, list[Group]] = {id: [] for id in receiver_ids}
        for group in groups:
            for id in by_receiver.keys() & group.receiver_ids:
                by_receiver[id].append(group)
        return token, by_receiver

    def _check(self, change: GroupChange) -> None:
        texts = {
            "name": change.name,
            "type": change.type,
            "version": change.version,
            "description": change.description,
        }
        rules.check(texts, change.receiver_ids, limits=self._text_limits, max_members=self._limits.max_members)

    async def _read_for_change(self, connection: Connection, id: str, expected_version: int | None) -> Group:
        groups = await store.by_ids(connection, [id]) if is_id(id) else []
        if not groups:
            raise NotFound("event receiver group", id, field="id")
        if expected_version not in (None, groups[0].resource_version):
            raise Conflict(
                f"the group is at version {groups[0].resource_version}, not {expected_version}: read it again",
                field="expected_version",
            )
        return groups[0]

    async def _write(self, tx: WriteTransaction, kind: Kind, group: Group, *, members_changed: bool) -> None:
        if members_changed:
            await self._check_receivers(tx.connection, group)
        if group.enabled:
            await self._check_group_limit(tx.connection, group)
        await store.save(tx.connection, group)
        if members_changed:
            await store.remove_members(tx.connection, group.id)
            await store.add_members(tx.connection, group.id, group.receiver_ids)
        tx.append(kind, group_id=group.id, data=rules.snapshot(group))

    async def _check_receivers(self, connection: Connection, group: Group) -> None:
        existing_ids = await self._receivers.existing(connection, group.receiver_ids)
        violations = [
            Violation(f"receiver_ids/{index}", f"there is no event receiver {id!r}")
            for index, id in enumerate(group.receiver_ids)
            if id not in existing_ids
        ]
        if violations:
            raise InvalidInput(violations)

    async def _check_group_limit(self, connection: Connection, group: Group) -> None:
        limit = self._limits.max_groups_per_receiver
        for id in await store.receivers_at_group_limit(connection, group.receiver_ids, group.id, limit):
            raise Conflict(f"the receiver {id} is in {limit} enabled groups already", field="receiver_ids")


def _gates_of(unit: Unit, statuses: dict[str, UnitStatus], groups: Sequence[Group]) -> list[Gate]:
    return [
        rules.evaluate_gate(group, unit, statuses)
        for group in groups
        if not statuses.keys().isdisjoint(group.receiver_ids)
    ]
