"""SQL of the relay: the lock of a route's leader, the route's status and lag, and resume instructions."""

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
    """Whether a process leads the route now."""
    resume_id: str | None
    resume_after: int | None
    dead_letters: int
    """Messages that were rejected and not dropped."""


@dataclass(frozen=True, slots=True)
class RouteLag:
    """How far a route is behind the stream."""

    route: str
    awaited_since: datetime | None
    """When the first process with brokers for this route started; None once a process has led it."""
    leader: str | None
    """Id of the process that leads the route; None if none has reported lately."""
    position: int
    time: datetime
    """When `position` and `lag` were measured."""
    lag: int
    lag_seconds: float
    dead_letters: int
    """Messages that were rejected and not dropped."""


# A process that waits for brokers without leading has no brokers configured, so its route does not count. If the oldest
# message is not at position 1, it is the mark that retention left, and a new route begins after it.
_ROUTE_POSITIONS: LiteralString = """
    WITH live_processes AS (
        SELECT * FROM processes WHERE seen_at > clock_timestamp() - %(seconds)s::float * interval '1 second'
    ), stream AS (
        SELECT coalesce((SELECT position FROM messages ORDER BY position DESC LIMIT 1), 0) AS head,
               coalesce(nullif((SELECT position FROM messages ORDER BY position LIMIT 1), 1), 0) AS origin
    ), routes AS (
        SELECT route, published_position, NULL::timestamptz AS awaited_since FROM relay_routes
        UNION ALL
        SELECT relay_route, 0, min(started_at) FROM live_processes
        WHERE (relay_leads OR relay_state <> 'waiting_for_brokers')
          AND NOT EXISTS (SELECT FROM relay_routes WHERE route = relay_route)
        GROUP BY relay_route
    ), route_positions AS (
        SELECT route, awaited_since, head, position, greatest(position, origin) AS after
        FROM stream, routes, LATERAL (
            SELECT CASE WHEN published_position <= head THEN published_position ELSE 0 END AS position
        ) AS recorded
    )
"""


async def try_acquire_lead(connection: Connection, route: str) -> bool:
    """Tries to acquire the route's lock until this connection closes. Returns whether it succeeded."""
    cursor = await connection.cursor(row_factory=scalar_row).execute(
        "SELECT pg_try_advisory_lock(hashtextextended('xzepr relay ' || %s, 0))", (route,)
    )
    return bool(await cursor.fetchone())


async def check(connection: Connection) -> None:
    """Raises an error if the connection, and with it the leadership, is lost."""
    await connection.execute("SELECT 1")


async def row(connection: Connection, route: str) -> RouteRow | None:
    """Returns the status of a route for its leader; None before a process has led it."""
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
    """Returns all routes that a process ever led, by name."""
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
    """Returns how far each route is behind the stream, by name.

    A leader that reported within `silent_seconds` has measured the lag. Otherwise the lag is derived from the recorded
    position, which may be a second old, or from the stream's beginning if no process ever led the route. A position
    after the stream's end belongs to a stream that a restore has replaced, and is ignored.
    """
    cursor = await connection.cursor(row_factory=class_row(RouteLag)).execute(
        _ROUTE_POSITIONS
        + """
        SELECT r.route, r.awaited_since, leader.id AS leader, at.position, at.time, at.head - at.after AS lag,
               greatest(0, coalesce(extract(epoch FROM at.time - at.waiting_since), 0))::float AS lag_seconds,
               (SELECT count(*) FROM dead_letters AS d WHERE d.route = r.route AND d.dropped_at IS NULL) AS dead_letters
        FROM route_positions AS r
        LEFT JOIN LATERAL (
            SELECT * FROM live_processes AS p WHERE p.relay_route = r.route AND p.relay_leads
            ORDER BY p.seen_at DESC LIMIT 1
        ) AS leader ON true
        CROSS JOIN LATERAL (
            SELECT leader.relay_position AS position, leader.relay_position AS after, leader.head_position AS head,
                   leader.seen_at AS time, leader.relay_waiting_since AS waiting_since
            WHERE leader.relay_position <= leader.head_position
            UNION ALL
            SELECT r.position, r.after, r.head, clock_timestamp(),
                   (SELECT m.time FROM messages AS m WHERE m.position > r.after ORDER BY m.position LIMIT 1)
            WHERE (leader.relay_position <= leader.head_position) IS NOT TRUE
        ) AS at
        ORDER BY r.route
        """,
        {"seconds": silent_seconds},
    )
    return await cursor.fetchall()


async def save_status(connection: Connection, route: str, state: str, detail: str) -> None:
    """Saves the state of the route's leader and the reason for it."""
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
    """Records the published position. Kafka has the current one; this record reveals that Kafka lost its data."""
    await connection.execute(
        """
        UPDATE relay_routes SET published_position = %s, published_id = %s, updated_at = clock_timestamp()
        WHERE route = %s
        """,
        (position, id, route),
    )


async def request_resume(connection: Connection, route: str, resume_id: str, after: int, by: str) -> bool:
    """Stores a resume instruction for a stopped route. Returns False if the route is not stopped."""
    cursor = await connection.execute(
        """
        UPDATE relay_routes SET resume_id = %s, resume_after = %s, resume_by = %s
        WHERE route = %s AND state = 'stopped'
        """,
        (resume_id, after, by, route),
    )
    return cursor.rowcount == 1


async def acknowledge_resume(connection: Connection, route: str, resume_id: str) -> None:
    """Removes a resume instruction, because it was applied."""
    await connection.execute(
        """
        UPDATE relay_routes SET resume_id = NULL, resume_after = NULL, resume_by = NULL
        WHERE route = %s AND resume_id = %s
        """,
        (route, resume_id),
    )
