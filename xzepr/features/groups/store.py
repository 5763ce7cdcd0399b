"""SQL of groups, their members, and unit statuses."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, LiteralString

from psycopg import AsyncCursor
from psycopg.rows import args_row, class_row, scalar_row

from xzepr.features.groups.model import Group, GroupFilter, UnitStatus
from xzepr.infra import keyset
from xzepr.infra.db import Connection
from xzepr.infra.pipeline import Statement

_COLUMNS: LiteralString = """
    g.id, g.position, g.name, g.type, g.version, g.description, g.enabled, g.owner_id, g.resource_version,
    g.changed_position, g.created_at, g.updated_at,
    (SELECT array_agg(m.receiver_id ORDER BY m.ordinal) FROM group_members AS m WHERE m.group_id = g.id) AS receiver_ids
"""
_GROUPS: LiteralString = "SELECT " + _COLUMNS + "FROM groups AS g "
_LIST = keyset.Listing(
    table="groups",
    row="g",
    indexed={"name": "name", "type": "type", "version": "version"},
    checked={
        "enabled": "g.enabled = %(enabled)s",
        "receiver_id": """
            EXISTS (SELECT FROM group_members AS m WHERE m.group_id = g.id AND m.receiver_id = %(receiver_id)s)
        """,
    },
)


def _group(*columns: Any) -> Group:
    return Group(*columns[:-1], receiver_ids=tuple(columns[-1]))


# For the recorder, which holds the writer lock and has its own connection.
LOCKED_GROUPS = Statement(
    b"enabled groups",
    _GROUPS + "WHERE g.enabled AND g.id IN (SELECT group_id FROM group_members WHERE receiver_id = ANY($1::text[]))",
    _group,
)


async def by_ids(connection: Connection, ids: Sequence[str]) -> list[Group]:
    """Returns the groups with these ids, in any order."""
    cursor = connection.cursor(row_factory=args_row(_group))
    return await (await cursor.execute(_GROUPS + "WHERE g.id = ANY(%s)", (list(ids),))).fetchall()


async def catalog_by_ids(connection: Connection, ids: Sequence[str]) -> tuple[str, dict[str, Group]]:
    """Returns the catalog's token and the groups with these ids, by id, as one statement sees them."""
    return await _in_catalog(connection, _GROUPS + "WHERE g.id = ANY(%b::text[])", ids)


async def catalog_with_members(connection: Connection, receiver_ids: Sequence[str]) -> tuple[str, dict[str, Group]]:
    """Returns the catalog's token and every group that has any of the receivers as a member, by id."""
    return await _in_catalog(
        connection,
        _GROUPS + "WHERE g.id IN (SELECT group_id FROM group_members WHERE receiver_id = ANY(%b::text[]))",
        receiver_ids,
    )


async def _in_catalog(
    connection: Connection, groups: LiteralString, ids: Sequence[str]
) -> tuple[str, dict[str, Group]]:
    cursor = await connection.execute(
        "SELECT catalog.token::text, found.* FROM catalog LEFT JOIN (" + groups + ") AS found ON true", (list(ids),)
    )
    rows = await cursor.fetchall()
    return rows[0][0], {id: _group(id, *columns) for _, id, *columns in rows if id is not None}


async def enabled_groups_with_members(connection: Connection, receiver_ids: Sequence[str]) -> AsyncCursor[Group]:
    """Reads every enabled group that has any of the receivers as a member."""
    return await connection.cursor(row_factory=args_row(_group)).execute(
        _GROUPS
        + "WHERE g.enabled AND g.id IN (SELECT group_id FROM group_members WHERE receiver_id = ANY(%b::text[]))",
        (list(receiver_ids),),
    )


async def page(
    connection: Connection, filter: GroupFilter, before: int | None, limit: int
) -> tuple[list[Group], int | None]:
    """Returns up to `limit` groups before a position (None: the newest ones), newest first.

    Then the position at which the read stopped early, or None.
    """
    found = await keyset.read(connection, _LIST, _COLUMNS, asdict(filter), before=before, limit=limit)
    return [_group(*row) for row in found.rows], found.reached


async def save(connection: Connection, group: Group) -> None:
    """Inserts or updates a group, without its members."""
    await connection.execute(
        """
        INSERT INTO groups (id, position, name, type, version, description, enabled, owner_id, resource_version,
                            changed_position, created_at, updated_at)
        VALUES (%(id)s, %(position)s, %(name)s, %(type)s, %(version)s, %(description)s, %(enabled)s, %(owner_id)s,
                %(resource_version)s, %(changed_position)s, %(created_at)s, %(updated_at)s)
        ON CONFLICT (id) DO UPDATE SET
            name = EXCLUDED.name, type = EXCLUDED.type, version = EXCLUDED.version,
            description = EXCLUDED.description, enabled = EXCLUDED.enabled,
            resource_version = EXCLUDED.resource_version, changed_position = EXCLUDED.changed_position,
            updated_at = EXCLUDED.updated_at
        """,
        {
            "id": group.id,
            "position": group.position,
            "name": group.name,
            "type": group.type,
            "version": group.version,
            "description": group.description,
            "enabled": group.enabled,
            "owner_id": group.owner_id,
            "resource_version": group.resource_version,
            "changed_position": group.changed_position,
            "created_at": group.created_at,
            "updated_at": group.updated_at,
        },
    )


async def remove_members(connection: Connection, group_id: str) -> None:
    """Removes all members from a group."""
    await connection.execute("DELETE FROM group_members WHERE group_id = %s", (group_id,))


async def add_members(connection: Connection, group_id: str, receiver_ids: Sequence[str]) -> None:
    """Adds members, in this order, to a group without members."""
    await connection.execute(
        """
        INSERT INTO group_members (group_id, receiver_id, ordinal)
        SELECT %s, m.receiver_id, m.ordinal
        FROM unnest(%s::text[]) WITH ORDINALITY AS m (receiver_id, ordinal)
        """,
        (group_id, list(receiver_ids)),
    )


async def delete(connection: Connection, group_id: str) -> None:
    """Deletes a group and its memberships."""
    await connection.execute("DELETE FROM groups WHERE id = %s", (group_id,))


async def receivers_at_group_limit(
    connection: Connection, receiver_ids: Sequence[str], group_id: str, limit: int
) -> list[str]:
    """Returns the receivers that are members of at least `limit` enabled groups other than `group_id`."""
    cursor = await connection.cursor(row_factory=scalar_row).execute(
        """
        SELECT m.receiver_id FROM group_members AS m JOIN groups AS g ON g.id = m.group_id
        WHERE m.receiver_id = ANY(%s) AND g.enabled AND g.id <> %s
        GROUP BY m.receiver_id HAVING count(*) >= %s
        """,
        (list(receiver_ids), group_id, limit),
    )
    return await cursor.fetchall()


async def statuses(connection: Connection, unit_ids: Sequence[bytes]) -> AsyncCursor[UnitStatus]:
    """Reads every status of the units. The cost does not depend on the number of past events."""
    return await connection.cursor(row_factory=class_row(UnitStatus)).execute(
        """
        SELECT unit_id, receiver_id, position, success, run_position, run_began_at
        FROM unit_status WHERE unit_id = ANY(%b::bytea[])
        """,
        (list(unit_ids),),
    )
