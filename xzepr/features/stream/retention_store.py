"""SQL of retention: which messages may be removed, and removing them from the old end."""

from dataclasses import dataclass
from datetime import timedelta

from psycopg import sql
from psycopg.rows import class_row, scalar_row

from xzepr.infra.db import Connection

# Key of the advisory lock that lets one process at a time remove messages ("xzepr", 2).
_RETENTION_LOCK = 0x787A_6570_7202


@dataclass(frozen=True, slots=True)
class Bounds:
    """The positions up to which retention may advance, each for one reason; None if that reason sets no limit.

    The message at the position itself stays, as the mark of where the stream starts.
    """

    newest: int | None
    """The newest message, which new positions follow."""
    published: int | None
    """Every message up to here is in Kafka, on every route that counts."""
    dead_letter: int | None
    """The first message that may be retried as a dead letter."""

    @property
    def lowest(self) -> int:
        """The lowest of the positions."""
        positions = (self.newest, self.published, self.dead_letter)
        return min((position for position in positions if position is not None), default=0)


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of the stream's table; `end` is the position after its last one."""

    name: str
    end: int


async def try_lock(connection: Connection) -> bool:
    """Tries to take the retention lock until COMMIT. Returns False while another process holds it."""
    cursor = await connection.cursor(row_factory=scalar_row).execute(
        "SELECT pg_try_advisory_xact_lock(%s)", (_RETENTION_LOCK,)
    )
    return bool(await cursor.fetchone())


async def bounds(connection: Connection, route: str | None, age: timedelta) -> Bounds:
    """Returns the bounds of the messages that may be removed.

    The configured route counts even before it has started. A route that is no longer configured counts until its relay
    has been silent for as long as messages are kept.
    """
    cursor = await connection.cursor(row_factory=class_row(Bounds)).execute(
        """
        SELECT (SELECT position FROM messages ORDER BY position DESC LIMIT 1) AS newest,
               (SELECT min(least(published_position, resume_after))
                FROM (SELECT route, published_position, resume_after, updated_at FROM relay_routes
                      UNION ALL SELECT %(route)s::text, 0, NULL, NULL
                      WHERE NOT EXISTS (SELECT FROM relay_routes WHERE route = %(route)s)) AS known
                WHERE route = %(route)s OR updated_at > clock_timestamp() - %(age)s::interval) AS published,
               (SELECT min(position) FROM dead_letters WHERE dropped_at IS NULL) AS dead_letter
        """,
        {"route": route, "age": age},
    )
    row = await cursor.fetchone()
    assert row is not None, "a query without FROM has one row"
    return row


async def is_old(connection: Connection, position: int, age: timedelta) -> bool:
    """Returns whether there is a message at the position that is older than `age`."""
    cursor = await connection.cursor(row_factory=scalar_row).execute(
        "SELECT time < clock_timestamp() - %s::interval FROM messages WHERE position = %s", (age, position)
    )
    return bool(await cursor.fetchone())


async def remove(connection: Connection, last: int, age: timedelta, limit: int) -> int:
    """Removes up to `limit` of the oldest messages that are older than `age` and not after `last`; returns how many.

    The last of them stays as the mark of where the stream starts.
    """
    cursor = await connection.execute(
        """
        DELETE FROM messages WHERE position < (
            SELECT max(position) FROM (
                SELECT position, time FROM messages WHERE position <= %(last)s ORDER BY position LIMIT %(limit)s + 1
            ) AS oldest WHERE time < clock_timestamp() - %(age)s::interval
        )
        """,
        {"last": last, "age": age, "limit": limit},
    )
    return cursor.rowcount


async def oldest_partition(connection: Connection) -> Partition:
    """Returns the partition of the oldest positions."""
    cursor = await connection.cursor(row_factory=class_row(Partition)).execute(
        r"""
        SELECT c.relname AS name,
               (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''(\d+)''\)'))[1]::bigint AS end
        FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'messages'::regclass
        ORDER BY 2 LIMIT 1
        """
    )
    row = await cursor.fetchone()
    assert row is not None, "the first migration creates two, and the newest is never dropped"
    return row


async def drop_partition(connection: Connection, name: str) -> None:
    """Drops a partition with its messages.

    The statement waits for readers of the stream, and later readers wait for it. So it raises Overloaded after 0.2 s.
    """
    await connection.execute("SET LOCAL lock_timeout = '200ms'")
    await connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
