"""SQL of dead letters: the messages that a route skips, and the decisions of administrators about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from psycopg.rows import class_row, scalar_row

from xzepr.infra.db import Connection
from xzepr.infra.keyset import MAX_POSITION


@dataclass(frozen=True, slots=True)
class DeadLetterRow:
    """A message that a route skips."""

    route: str
    position: int
    message_id: str
    reason: str
    attempts: int
    refused_at: datetime
    retry_by: str | None
    dropped_at: datetime | None
    dropped_by: str | None


@dataclass(frozen=True, slots=True)
class DueRetry:
    """A dead letter that an administrator wants to retry."""

    position: int
    message_id: str
    retry_id: str


async def record(connection: Connection, route: str, position: int, message_id: str, reason: str) -> None:
    """Records that a message was rejected, or rejected again; clears the decision of an administrator."""
    await connection.execute(
        """
        INSERT INTO dead_letters AS d (route, position, message_id, reason) VALUES (%s, %s, %s, %s)
        ON CONFLICT (route, position) DO UPDATE SET
            message_id = excluded.message_id, reason = excluded.reason, attempts = d.attempts + 1,
            refused_at = clock_timestamp(), retry_id = NULL, retry_by = NULL, dropped_at = NULL, dropped_by = NULL
        """,
        (route, position, message_id, reason),
    )


async def positions_after(connection: Connection, route: str, position: int) -> set[int]:
    """Returns the positions of all dead letters after a position, dropped ones and pending retries included."""
    cursor = await connection.cursor(row_factory=scalar_row).execute(
        "SELECT position FROM dead_letters WHERE route = %s AND position > %s", (route, position)
    )
    return set(await cursor.fetchall())


async def next_retry(connection: Connection, route: str, published_position: int) -> DueRetry | None:
    """Returns the first pending retry at or before the published position; None if there is none."""
    cursor = await connection.cursor(row_factory=class_row(DueRetry)).execute(
        """
        SELECT position, message_id, retry_id FROM dead_letters
        WHERE route = %s AND dropped_at IS NULL AND retry_id IS NOT NULL AND position <= %s
        ORDER BY position LIMIT 1
        """,
        (route, published_position),
    )
    return await cursor.fetchone()


async def delete_retried(connection: Connection, retry_id: str) -> None:
    """Deletes the dead letter of this retry, because it is in Kafka."""
    await connection.execute("DELETE FROM dead_letters WHERE retry_id = %s", (retry_id,))


async def page(
    connection: Connection, route: str, dropped: bool, before: int | None, limit: int
) -> list[DeadLetterRow]:
    """Returns a route's dead letters before a position, newest first."""
    state: LiteralString = "dropped_at IS NOT NULL" if dropped else "dropped_at IS NULL"
    cursor = await connection.cursor(row_factory=class_row(DeadLetterRow)).execute(
        f"""
        SELECT route, position, message_id, reason, attempts, refused_at, retry_by, dropped_at, dropped_by
        FROM (
            SELECT * FROM dead_letters
            WHERE {state} AND (route, position) < (%(route)s, %(before)s) AND (route, position) >= (%(route)s, 0)
            ORDER BY route DESC, position DESC LIMIT 101
        ) AS newest
        LIMIT %(limit)s
        """,
        {"route": route, "before": MAX_POSITION if before is None else before, "limit": limit},
    )
    return await cursor.fetchall()


async def request_retry(
    connection: Connection, route: str, positions: Sequence[int] | None, retry_prefix: str, by: str
) -> list[int]:
    """Requests a retry of these positions, or of all that are not dropped if None. Returns the positions found."""
    cursor = await connection.cursor(row_factory=scalar_row).execute(
        """
        UPDATE dead_letters SET retry_id = coalesce(retry_id, %(prefix)s || '-' || position), retry_by = %(by)s,
                                dropped_at = NULL, dropped_by = NULL
        WHERE route = %(route)s AND CASE WHEN %(positions)s::bigint[] IS NULL THEN dropped_at IS NULL
                                         ELSE position = ANY(%(positions)s) END
        RETURNING position
        """,
        {"route": route, "positions": _array(positions), "prefix": retry_prefix, "by": by},
    )
    return await cursor.fetchall()


async def drop(connection: Connection, route: str, positions: Sequence[int] | None, by: str) -> list[int]:
    """Drops these positions, or all if None, except pending retries. Returns the positions that are dropped now."""
    cursor = await connection.cursor(row_factory=scalar_row).execute(
        """
        UPDATE dead_letters SET dropped_at = clock_timestamp(), dropped_by = %(by)s
        WHERE route = %(route)s AND dropped_at IS NULL AND retry_id IS NULL
          AND (%(positions)s::bigint[] IS NULL OR position = ANY(%(positions)s))
        RETURNING position
        """,
        {"route": route, "positions": _array(positions), "by": by},
    )
    return await cursor.fetchall()


def _array(positions: Sequence[int] | None) -> list[int] | None:
    return None if positions is None else list(positions)
