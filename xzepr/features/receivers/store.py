"""SQL of receivers and their revisions."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, LiteralString

from psycopg.rows import args_row, scalar_row

from xzepr.features.receivers.model import Receiver, ReceiverFilter, ReceiverState
from xzepr.infra import keyset
from xzepr.infra.db import Connection
from xzepr.infra.pipeline import Statement

_COLUMNS: LiteralString = """
    r.id, r.position, r.name, r.type, r.version, r.description, r.schema::text, r.schema_digest, r.revision,
    r.fingerprint, r.enabled, r.owner_id, r.resource_version, r.created_at, r.updated_at
"""
_RECEIVERS: LiteralString = "SELECT " + _COLUMNS + "FROM receivers AS r "
_LIST = keyset.Listing(
    table="receivers",
    row="r",
    indexed={"name": "name", "type": "type", "version": "version"},
    checked={"enabled": "r.enabled = %(enabled)s"},
)


# For the recorder, which holds the writer lock and has its own connection.
LOCKED_STATES = Statement(
    b"receiver states",
    "SELECT id, enabled, revision FROM receivers WHERE id = ANY($1::text[])",
    ReceiverState,
)
LOCKED_SCHEMAS = Statement(b"receiver schemas", "SELECT schema::text FROM receivers WHERE id = ANY($1::text[])", str)


def _receiver(*columns: Any) -> Receiver:
    values = list(columns)
    values[6] = values[6].encode()
    return Receiver(*values)


async def by_ids(connection: Connection, ids: Sequence[str]) -> list[Receiver]:
    """Returns the receivers with these ids, in any order."""
    cursor = connection.cursor(row_factory=args_row(_receiver))
    return await (await cursor.execute(_RECEIVERS + "WHERE r.id = ANY(%s)", (list(ids),))).fetchall()


async def catalog_token(connection: Connection) -> str:
    """Returns the token of the catalog, which changes with each change of receivers and groups."""
    cursor = await connection.cursor(row_factory=scalar_row).execute("SELECT token::text FROM catalog")
    token = await cursor.fetchone()
    assert token is not None, "a migration fills this table"
    return str(token)


async def catalog_by_ids(connection: Connection, ids: Sequence[str]) -> tuple[str, dict[str, Receiver]]:
    """Returns the catalog's token and the receivers with these ids, by id, as one statement sees them."""
    cursor = await connection.execute(
        "SELECT catalog.token::text, receiver.* FROM catalog LEFT JOIN ("
        + _RECEIVERS
        + "WHERE r.id = ANY(%b::text[])) AS receiver ON true",
        (list(ids),),
    )
    rows = await cursor.fetchall()
    return rows[0][0], {id: _receiver(id, *columns) for _, id, *columns in rows if id is not None}


async def existing(connection: Connection, ids: Sequence[str]) -> list[str]:
    """Returns the ids of this list that belong to a receiver."""
    cursor = connection.cursor(row_factory=scalar_row)
    return await (await cursor.execute("SELECT id FROM receivers WHERE id = ANY(%s)", (list(ids),))).fetchall()


async def page(
    connection: Connection, filter: ReceiverFilter, before: int | None, limit: int
) -> tuple[list[Receiver], int | None]:
    """Returns up to `limit` receivers before a position (None: the newest ones), newest first.

    Then the position at which the read stopped early, or None.
    """
    found = await keyset.read(connection, _LIST, _COLUMNS, asdict(filter), before=before, limit=limit)
    return [_receiver(*row) for row in found.rows], found.reached


async def save(connection: Connection, receiver: Receiver) -> None:
    """Inserts or updates a receiver."""
    await connection.execute(
        """
        INSERT INTO receivers (id, position, name, type, version, description, schema, schema_digest, revision,
                               fingerprint, enabled, owner_id, resource_version, created_at, updated_at)
        VALUES (%(id)s, %(position)s, %(name)s, %(type)s, %(version)s, %(description)s, %(schema)s::json,
                %(schema_digest)s, %(revision)s, %(fingerprint)s, %(enabled)s, %(owner_id)s, %(resource_version)s,
                %(created_at)s, %(updated_at)s)
        ON CONFLICT (id) DO UPDATE SET
            name = EXCLUDED.name, type = EXCLUDED.type, version = EXCLUDED.version,
            description = EXCLUDED.description, schema = EXCLUDED.schema, schema_digest = EXCLUDED.schema_digest,
            revision = EXCLUDED.revision, fingerprint = EXCLUDED.fingerprint, enabled = EXCLUDED.enabled,
            resource_version = EXCLUDED.resource_version, updated_at = EXCLUDED.updated_at
        """,
        {
            "id": receiver.id,
            "position": receiver.position,
            "name": receiver.name,
            "type": receiver.type,
            "version": receiver.version,
            "description": receiver.description,
            "schema": receiver.schema.decode(),
            "schema_digest": receiver.schema_digest,
            "revision": receiver.revision,
            "fingerprint": receiver.fingerprint,
            "enabled": receiver.enabled,
            "owner_id": receiver.owner_id,
            "resource_version": receiver.resource_version,
            "created_at": receiver.created_at,
            "updated_at": receiver.updated_at,
        },
    )


async def insert_revision(connection: Connection, receiver_id: str) -> None:
    """Stores the current schema of a receiver under its current revision, which must be new."""
    await connection.execute(
        """
        INSERT INTO receiver_revisions (receiver_id, revision, schema, schema_digest, created_at)
        SELECT id, revision, schema, schema_digest, updated_at FROM receivers WHERE id = %s
        """,
        (receiver_id,),
    )


async def has_events(connection: Connection, receiver_id: str) -> bool:
    """Returns whether the receiver has events."""
    cursor = connection.cursor(row_factory=scalar_row)
    await cursor.execute("SELECT EXISTS (SELECT FROM events WHERE receiver_id = %s)", (receiver_id,))
    return bool(await cursor.fetchone())


async def group_with_member(connection: Connection, receiver_id: str) -> str | None:
    """Returns the id of a group that has the receiver as a member. None if there is none."""
    cursor = connection.cursor(row_factory=scalar_row)
    await cursor.execute("SELECT group_id FROM group_members WHERE receiver_id = %s LIMIT 1", (receiver_id,))
    return await cursor.fetchone()


async def delete(connection: Connection, receiver_id: str) -> None:
    """Deletes a receiver and its revisions."""
    await connection.execute("DELETE FROM receivers WHERE id = %s", (receiver_id,))
