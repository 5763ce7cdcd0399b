"""SQL of the table of processes, in which each process reports its status."""

from dataclasses import asdict, dataclass
from datetime import datetime

from psycopg.rows import class_row

from xzepr.infra.db import Connection


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """A process according to its last report."""

    id: str
    host: str
    pid: int
    role: str
    version: str
    started_at: datetime
    seen_at: datetime
    head_position: int
    feed_position: int | None
    feed_waiting_since: datetime | None
    slowest_position: int | None
    slowest_waiting_since: datetime | None
    relay_route: str | None
    relay_state: str | None
    relay_leads: bool
    relay_position: int | None
    relay_waiting_since: datetime | None
    websockets: int
    event_streams: int
    subscriptions: int
    recorder_queue: int
    silent_seconds: float
    """Seconds since the last report, by the database's clock."""


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """A process's report about itself."""

    id: str
    host: str
    pid: int
    role: str
    version: str
    up_seconds: float
    """Seconds since the process started; a recreated row thus gets the original start."""
    feed_position: int | None
    slowest_position: int | None
    relay_route: str | None
    relay_state: str | None
    relay_leads: bool
    relay_position: int | None
    websockets: int
    event_streams: int
    subscriptions: int
    recorder_queue: int


async def save_report(connection: Connection, report: ProcessReport) -> ProcessRow:
    """Writes the report together with the stream's current head and the time of the message after each position.

    Reads one row by the stream's primary key for each position. Returns the row as it was written.
    """
    cursor = await connection.cursor(row_factory=class_row(ProcessRow)).execute(
        """
        INSERT INTO processes AS p (
            id, host, pid, role, version, started_at, seen_at, head_position,
            feed_position, feed_waiting_since, slowest_position, slowest_waiting_since,
            relay_route, relay_state, relay_leads, relay_position, relay_waiting_since,
            websockets, event_streams, subscriptions, recorder_queue
        )
        VALUES (
            %(id)s, %(host)s, %(pid)s, %(role)s, %(version)s,
            clock_timestamp() - %(up_seconds)s::float * interval '1 second', clock_timestamp(),
            coalesce((SELECT position FROM messages ORDER BY position DESC LIMIT 1), 0),
            %(feed_position)s,
            (SELECT time FROM messages WHERE position > %(feed_position)s::bigint ORDER BY position LIMIT 1),
            %(slowest_position)s,
            (SELECT time FROM messages WHERE position > %(slowest_position)s::bigint ORDER BY position LIMIT 1),
            %(relay_route)s, %(relay_state)s, %(relay_leads)s, %(relay_position)s,
            (SELECT time FROM messages WHERE position > %(relay_position)s::bigint ORDER BY position LIMIT 1),
            %(websockets)s, %(event_streams)s, %(subscriptions)s, %(recorder_queue)s
        )
        ON CONFLICT (id) DO UPDATE SET (
            seen_at, head_position, feed_position, feed_waiting_since, slowest_position, slowest_waiting_since,
            relay_route, relay_state, relay_leads, relay_position, relay_waiting_since,
            websockets, event_streams, subscriptions, recorder_queue
        ) = (
            excluded.seen_at, excluded.head_position, excluded.feed_position, excluded.feed_waiting_since,
            excluded.slowest_position, excluded.slowest_waiting_since, excluded.relay_route, excluded.relay_state,
            excluded.relay_leads, excluded.relay_position, excluded.relay_waiting_since,
            excluded.websockets, excluded.event_streams, excluded.subscriptions, excluded.recorder_queue
        )
        RETURNING p.*, 0::float AS silent_seconds
        """,
        asdict(report),
    )
    row = await cursor.fetchone()
    assert row is not None, "an upsert returns its row"
    return row


async def rows(connection: Connection, seconds: float) -> list[ProcessRow]:
    """Returns the processes that reported within the last `seconds`, oldest first."""
    cursor = await connection.cursor(row_factory=class_row(ProcessRow)).execute(
        """
        SELECT p.*, greatest(0, extract(epoch FROM clock_timestamp() - seen_at))::float AS silent_seconds
        FROM processes AS p
        WHERE seen_at > clock_timestamp() - %s::float * interval '1 second'
        ORDER BY started_at, id
        """,
        (seconds,),
    )
    return await cursor.fetchall()


async def remove(connection: Connection, id: str) -> None:
    """Removes the row of a process."""
    await connection.execute("DELETE FROM processes WHERE id = %s", (id,))


async def remove_silent(connection: Connection, seconds: float) -> None:
    """Removes the rows of processes that have not reported for `seconds`."""
    await connection.execute(
        "DELETE FROM processes WHERE seen_at < clock_timestamp() - %s::float * interval '1 second'", (seconds,)
    )
