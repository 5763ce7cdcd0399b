"""SQL of events and idempotency keys."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import AsyncCursor
from psycopg.rows import args_row, class_row, scalar_row

from xzepr.features.stream.model import Event
from xzepr.features.stream.rows import EVENT_COLUMNS
from xzepr.infra.db import Connection


@dataclass(frozen=True, slots=True)
class UsedKey:
    """An idempotency key, and the digest and position of its event."""

    owner_id: str
    key: str
    digest: bytes
    position: int


async def insert(connection: Connection, events: Sequence[Event]) -> None:
    """Writes the events of a batch with one statement and binary arrays."""
    await connection.execute(
        """
        INSERT INTO events (position, id, unit_id, name, version, release, platform_id, package, description, payload,
                            success, receiver_id, receiver_revision, owner_id, created_at, recorded_at)
        SELECT e.position, e.id, e.unit_id, e.name, e.version, e.release, e.platform_id, e.package, e.description,
               e.payload::json, e.success, e.receiver_id, e.receiver_revision, e.owner_id, e.created_at, e.recorded_at
        FROM unnest(%b::bigint[], %b::text[], %b::bytea[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[],
                    %b::text[], %b::text[], %b::boolean[], %b::text[], %b::integer[], %b::text[],
                    %b::timestamptz[], %b::timestamptz[])
             AS e (position, id, unit_id, name, version, release, platform_id, package, description, payload,
                   success, receiver_id, receiver_revision, owner_id, created_at, recorded_at)
        """,
        (
            [event.position for event in events],
            [event.id for event in events],
            [event.unit_id for event in events],
            [event.name for event in events],
            [event.version for event in events],
            [event.release for event in events],
            [event.platform_id for event in events],
            [event.package for event in events],
            [event.description for event in events],
            [event.payload.decode() for event in events],
            [event.success for event in events],
            [event.receiver_id for event in events],
            [event.receiver_revision for event in events],
            [event.owner_id for event in events],
            [event.created_at for event in events],
            [event.recorded_at for event in events],
        ),
    )


async def used_keys(connection: Connection, owner_ids: Sequence[str], keys: Sequence[str]) -> AsyncCursor[UsedKey]:
    """Reads the keys that were used before. `owner_ids[n]` belongs to `keys[n]`."""
    return await connection.cursor(row_factory=class_row(UsedKey)).execute(
        """
        SELECT i.owner_id, i.key, i.digest, i.position
        FROM unnest(%b::text[], %b::text[]) AS requested (owner_id, key)
        JOIN idempotency AS i USING (owner_id, key)
        """,
        (list(owner_ids), list(keys)),
    )


async def insert_keys(connection: Connection, keys: Sequence[UsedKey]) -> None:
    """Stores used idempotency keys."""
    await connection.execute(
        """
        INSERT INTO idempotency (owner_id, key, digest, position, recorded_at)
        SELECT k.owner_id, k.key, k.digest, k.position, clock_timestamp()
        FROM unnest(%b::text[], %b::text[], %b::bytea[], %b::bigint[]) AS k (owner_id, key, digest, position)
        """,
        (
            [key.owner_id for key in keys],
            [key.key for key in keys],
            [key.digest for key in keys],
            [key.position for key in keys],
        ),
    )


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
