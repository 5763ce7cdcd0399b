"""SQL of events and idempotency keys."""

from collections.abc import Sequence

from psycopg.rows import args_row, scalar_row

from xzepr.features.stream.model import Event
from xzepr.features.stream.rows import EVENT_COLUMNS
from xzepr.infra.db import Connection


async def is_key_used(connection: Connection, owner_id: str, key: str) -> bool:
    """Returns whether an event of this owner was recorded with the idempotency key."""
    cursor = connection.cursor(row_factory=scalar_row)
    await cursor.execute("SELECT EXISTS (SELECT FROM idempotency WHERE owner_id = %s AND key = %s)", (owner_id, key))
    return bool(await cursor.fetchone())


async def delete_old_keys(connection: Connection, hours: int) -> None:
    """Deletes the idempotency keys that are older than `hours`."""
    await connection.execute(
        "DELETE FROM idempotency WHERE recorded_at < clock_timestamp() - make_interval(hours => %s)", (hours,)
    )


async def existing(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Returns the ids of this list that belong to an event."""
    cursor = connection.cursor(row_factory=scalar_row)
    return set(await (await cursor.execute("SELECT id FROM events WHERE id = ANY(%s)", (list(ids),))).fetchall())


async def by_ids(connection: Connection, ids: Sequence[str]) -> list[Event]:
    """Returns the events with these ids, in any order."""
    cursor = await connection.cursor(row_factory=args_row(Event), binary=True).execute(
        "SELECT " + EVENT_COLUMNS + " FROM events AS e WHERE e.id = ANY(%b::text[])", (list(ids),)
    )
    return await cursor.fetchall()


async def by_positions(connection: Connection, positions: Sequence[int]) -> list[Event]:
    """Returns the events at these positions, in any order."""
    cursor = await connection.cursor(row_factory=args_row(Event), binary=True).execute(
        "SELECT " + EVENT_COLUMNS + " FROM events AS e WHERE e.position = ANY(%b::bigint[])", (list(positions),)
    )
    return await cursor.fetchall()
