"""SQL of the relay: which process leads a route, what the route's row remembers, and instructions to it."""

from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from psycopg.rows import class_row, scalar_row

from xzepr.infra.db import Connection


@dataclass(frozen=True, slots=True)
class RouteRow:
    """A route as its leader last described it."""

    route: str
    state: str
    detail: str
    since: datetime
    published_position: int
    published_id: str
    updated_at: datetime
    led: bool
    """Whether a process leads it now."""
    resume_id: str | None
    resume_after: int | None
    dead_letters: int
    """Messages that were refused and not dropped."""


@dataclass(frozen=True, slots=True)
class RouteLag:
    """How far a route is behind the stream."""

    route: str
    awaited_since: datetime | None
    """Since when a process has had brokers for it; None once one has led it."""
    leader: str | None
    """Which process leads it, where one has said so lately."""
    position: int
    time: datetime
    """When it was there."""
    lag: int
    lag_seconds: float
    dead_letters: int
    """Messages that were refused and not dropped."""


# A process that waits for brokers and does not lead has none named. The oldest message, unless it is the first, is the
# mark that retention has left: a route that begins follows on it.
_ROUTE_POSITIONS: LiteralString = """
    WITH heard AS (
        SELECT * FROM processes WHERE seen_at > clock_timestamp() - %(seconds)s::float * interval '1 second'
    ), stream AS (
        SELECT coalesce((SELECT position FROM messages ORDER BY position DESC LIMIT 1), 0) AS head,
               coalesce(nullif((SELECT position FROM messages ORDER BY position LIMIT 1), 1), 0) AS origin
    ), named AS (
        SELECT route, published_position, NULL::timestamptz AS awaited_since FROM relay_routes
        UNION ALL
        SELECT relay_route, 0, min(started_at) FROM heard
        WHERE (relay_leads OR relay_state <> 'waiting_for_brokers')
          AND NOT EXISTS (SELECT FROM relay_routes WHERE route = relay_route)
        GROUP BY relay_route
    ), known AS (
        SELECT route, awaited_since, head, position, greatest(position, origin) AS after
        FROM stream, named, LATERAL (
            SELECT CASE WHEN published_position <= head THEN published_position ELSE 0 END AS position
        ) AS remembered
    )
"""


async def try_acquire_lead(connection: Connection, route: str) -> bool:
    """Whether this connection now leads the route; it does until it ends."""
    cursor = await connection.cursor(row_factory=scalar_row).execute(
        "SELECT pg_try_advisory_lock(hashtextextended('xzepr relay ' || %s, 0))", (route,)
    )
    return bool(await cursor.fetchone())


async def check(connection: Connection) -> None:
    """Raises when the connection, and with it the lead, is lost."""
    await connection.execute("SELECT 1")


async def row(connection: Connection, route: str) -> RouteRow | None:
    """What is remembered of a route, for its leader; None before its first relay."""
    cursor = await connection.cursor(row_factory=class_row(RouteRow)).execute(
        """
        SELECT route, state, detail, since, published_position, published_id, updated_at, true AS led,
               resume_id, resume_after,
               (SELECT count(*) FROM dead_letters AS d WHERE d.route = r.route AND d.dropped_at IS NULL) AS dead_letters
        FROM relay_routes AS r WHERE route = %s
        """,
        (route,),
    )
    return await cursor.fetchone()


async def rows(connection: Connection) -> list[RouteRow]:
    """All routes that a relay ever led, by name."""
    cursor = await connection.cursor(row_factory=class_row(RouteRow)).execute(
        """
        SELECT route, state, detail, since, published_position, published_id, updated_at,
               EXISTS (
                   SELECT FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
                   WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
                     AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended('xzepr relay ' || route, 0)
               ) AS led,
               resume_id, resume_after,
               (SELECT count(*) FROM dead_letters AS d WHERE d.route = r.route AND d.dropped_at IS NULL) AS dead_letters
        FROM relay_routes AS r ORDER BY route
        """
    )
    return await cursor.fetchall()


async def lags(connection: Connection, silent_seconds: float) -> list[RouteLag]:
    """How far each route is behind, by name: as its leader measured it where one has spoken within so many seconds,
    else by what the route remembers, which may be a second old, or from the stream's beginning where none ever led it.
    A position past the stream's end is of a stream that a restore has replaced, and counts for nothing."""
    cursor = await connection.cursor(row_factory=class_row(RouteLag)).execute(
        _ROUTE_POSITIONS
        + """
        SELECT k.route, k.awaited_since, leader.id AS leader, at.position, at.time, at.head - at.after AS lag,
               greatest(0, coalesce(extract(epoch FROM at.time - at.waiting_since), 0))::float AS lag_seconds,
               (SELECT count(*) FROM dead_letters AS d WHERE d.route = k.route AND d.dropped_at IS NULL) AS dead_letters
        FROM known AS k
        LEFT JOIN LATERAL (
            SELECT * FROM heard AS p WHERE p.relay_route = k.route AND p.relay_leads ORDER BY p.seen_at DESC LIMIT 1
        ) AS leader ON true
        CROSS JOIN LATERAL (
            SELECT leader.relay_position AS position, leader.relay_position AS after, leader.head_position AS head,
                   leader.seen_at AS time, leader.relay_waiting_since AS waiting_since
            WHERE leader.relay_position <= leader.head_position
            UNION ALL
            SELECT k.position, k.after, k.head, clock_timestamp(),
                   (SELECT m.time FROM messages AS m WHERE m.position > k.after ORDER BY m.position LIMIT 1)
            WHERE (leader.relay_position <= leader.head_position) IS NOT TRUE
        ) AS at
        ORDER BY k.route
        """,
        {"seconds": silent_seconds},
    )
    return await cursor.fetchall()


async def save_status(connection: Connection, route: str, state: str, detail: str) -> None:
    """Writes what the route's leader is doing."""
    await connection.execute(
        """
        INSERT INTO relay_routes AS r (route, state, detail) VALUES (%(route)s, %(state)s, %(detail)s)
        ON CONFLICT (route) DO UPDATE SET
            since = CASE WHEN r.state = excluded.state THEN r.since ELSE clock_timestamp() END,
            state = excluded.state, detail = excluded.detail, updated_at = clock_timestamp()
        """,
        {"route": route, "state": state, "detail": detail},
    )


async def save_published(connection: Connection, route: str, position: int, id: str) -> None:
    """Notes how far the route has published. Kafka knows better; this is to notice that Kafka has forgotten."""
    await connection.execute(
        """
        UPDATE relay_routes SET published_position = %s, published_id = %s, updated_at = clock_timestamp()
        WHERE route = %s
        """,
        (position, id, route),
    )


async def request_resume(connection: Connection, route: str, resume_id: str, after: int, by: str) -> bool:
    """Leaves an instruction for a stopped route; whether it was stopped."""
    cursor = await connection.execute(
        """
        UPDATE relay_routes SET resume_id = %s, resume_after = %s, resume_by = %s
        WHERE route = %s AND state = 'stopped'
        """,
        (resume_id, after, by, route),
    )
    return cursor.rowcount == 1


async def acknowledge_resume(connection: Connection, route: str, resume_id: str) -> None:
    """Removes the instruction."""
    await connection.execute(
        """
        UPDATE relay_routes SET resume_id = NULL, resume_after = NULL, resume_by = NULL
        WHERE route = %s AND resume_id = %s
        """,
        (route, resume_id),
    )
