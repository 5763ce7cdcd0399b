"""SQL of the relay: which process leads a route, what the route's row remembers, and instructions to it."""

from dataclasses import dataclass
from datetime import datetime

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
    leader: str | None
    """Which process leads it, where one has said so lately."""
    position: int
    lag: int
    lag_seconds: float


async def try_lead(connection: Connection, route: str) -> bool:
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


async def lags(connection: Connection, seconds: float) -> list[RouteLag]:
    """How far each route is behind: as its leader measured it where one has spoken within so many seconds, else by what
    the route remembers, which may be a second old. One row of the stream's primary key is read for each route."""
    cursor = await connection.cursor(row_factory=class_row(RouteLag)).execute(
        """
        SELECT r.route, leader.id AS leader, at.position,
               greatest(0, at.head_position - at.position) AS lag,
               greatest(0, coalesce(extract(epoch FROM at.time - at.waiting_since), 0))::float AS lag_seconds
        FROM relay_routes AS r
        LEFT JOIN LATERAL (
            SELECT * FROM processes AS p
            WHERE p.relay_route = r.route AND p.relay_leads
              AND p.seen_at > clock_timestamp() - %s::float * interval '1 second'
            ORDER BY p.seen_at DESC LIMIT 1
        ) AS leader ON true
        CROSS JOIN LATERAL (
            SELECT leader.relay_position AS position, leader.head_position, leader.seen_at AS time,
                   leader.relay_waiting_since AS waiting_since
            WHERE leader.relay_position IS NOT NULL
            UNION ALL
            SELECT r.published_position,
                   coalesce((SELECT m.position FROM messages AS m ORDER BY m.position DESC LIMIT 1), 0),
                   clock_timestamp(),
                   (SELECT m.time FROM messages AS m WHERE m.position > r.published_position
                    ORDER BY m.position LIMIT 1)
            WHERE leader.relay_position IS NULL
        ) AS at
        ORDER BY r.route
        """,
        (seconds,),
    )
    return await cursor.fetchall()


async def describe(connection: Connection, route: str, state: str, detail: str) -> None:
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


async def remember(connection: Connection, route: str, position: int, id: str) -> None:
    """Notes how far the route has published. Kafka knows better; this is to notice that Kafka has forgotten."""
    await connection.execute(
        """
        UPDATE relay_routes SET published_position = %s, published_id = %s, updated_at = clock_timestamp()
        WHERE route = %s
        """,
        (position, id, route),
    )


async def instruct(connection: Connection, route: str, resume_id: str, after: int, by: str) -> bool:
    """Leaves an instruction for a stopped route; whether it was stopped."""
    cursor = await connection.execute(
        """
        UPDATE relay_routes SET resume_id = %s, resume_after = %s, resume_by = %s
        WHERE route = %s AND state = 'stopped'
        """,
        (resume_id, after, by, route),
    )
    return cursor.rowcount == 1


async def obeyed(connection: Connection, route: str, resume_id: str) -> None:
    """Removes the instruction."""
    await connection.execute(
        """
        UPDATE relay_routes SET resume_id = NULL, resume_after = NULL, resume_by = NULL
        WHERE route = %s AND resume_id = %s
        """,
        (route, resume_id),
    )
