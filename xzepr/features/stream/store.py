"""SQL of the stream: its lock, its head, its messages in order, and its partitions."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg import AsyncCursor, sql
from psycopg.rows import args_row, class_row, scalar_row

from xzepr.core.actor import ActorKind
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import Head, Message, Origin, StreamFilter
from xzepr.features.stream.rows import EVENT_COLUMNS, event_of_row
from xzepr.infra.db import Connection

_WRITER_LOCK = 0x787A_6570_7201
"""Key of the advisory lock that makes writers go in single file ("xzepr", 1)."""

CHANNEL = "xzepr_stream"

_MESSAGES: LiteralString = (
    """
    SELECT m.position, m.id, m.kind, m.time, m.actor_kind, m.actor_id, m.actor_name,
           m.receiver_id, m.group_id, m.data::text,
    """
    + EVENT_COLUMNS
    + "FROM messages AS m LEFT JOIN events AS e ON e.position = m.event_position"
)


@dataclass(frozen=True, slots=True)
class Tip:
    """What a writer must know of the newest message: the next position follows it, and time never runs back."""

    position: int
    id: str | None
    """None while the stream is empty."""
    time: datetime


async def lock(connection: Connection) -> None:
    """Waits for the writer's lock; COMMIT or ROLLBACK releases it. Statements after it see all that was committed."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_WRITER_LOCK,))


async def end_stuck_writers(connection: Connection, seconds: float) -> int:
    """Ends the sessions that hold the writer's lock in a transaction which began longer ago than this; of other roles
    none, whose sessions are not ours to end."""
    cursor = await connection.cursor(row_factory=scalar_row).execute(
        """
        SELECT pg_terminate_backend(a.pid)
        FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
          AND (l.classid::bigint << 32 | l.objid::bigint) = %(lock)s
          AND a.datname = current_database() AND a.usename = current_user
          AND a.xact_start < clock_timestamp() - make_interval(secs => %(seconds)s)
        """,
        {"lock": _WRITER_LOCK, "seconds": seconds},
    )
    return len(await cursor.fetchall())


async def tip(connection: Connection) -> AsyncCursor[Tip]:
    """The newest position and the time that the next message will carry. Read it under the lock."""
    return await connection.cursor(row_factory=class_row(Tip)).execute(
        """
        SELECT coalesce(max(newest.position), 0) AS position, max(newest.id) AS id,
               greatest(clock_timestamp(), max(newest.time)) AS time
        FROM (SELECT position, id, time FROM messages ORDER BY position DESC LIMIT 1) AS newest
        """
    )


async def hub_id(connection: Connection) -> str:
    """The id that the first migration gave this hub."""
    cursor = await connection.cursor(row_factory=scalar_row).execute("SELECT id FROM hub")
    row = await cursor.fetchone()
    assert row is not None, "the first migration fills this table"
    return str(row)


async def head(connection: Connection) -> Head:
    """The newest entry; position 0 and the hub's id when there is none."""
    cursor = await connection.cursor(row_factory=class_row(Head)).execute(
        """
        SELECT coalesce(newest.position, 0) AS position, coalesce(newest.id, hub.id) AS id
        FROM hub LEFT JOIN (SELECT position, id FROM messages ORDER BY position DESC LIMIT 1) AS newest ON true
        """
    )
    row = await cursor.fetchone()
    assert row is not None, "the first migration fills this table"
    return row


async def origin(connection: Connection) -> Origin:
    """What the stream follows on. Retention leaves the last message that it takes in its place, as the mark of that."""
    cursor = await connection.cursor(row_factory=class_row(Origin)).execute(
        """
        SELECT CASE WHEN oldest.position > 1 THEN oldest.position ELSE 0 END AS position,
               CASE WHEN oldest.position > 1 THEN oldest.id ELSE hub.id END AS id
        FROM hub LEFT JOIN (SELECT position, id FROM messages ORDER BY position LIMIT 1) AS oldest ON true
        """
    )
    row = await cursor.fetchone()
    assert row is not None, "the first migration fills this table"
    return row


async def id_at(connection: Connection, position: int) -> str | None:
    """The id of the message at a position; the hub's id at 0; None where there is nothing, and at 0 once retention has
    taken anything."""
    cursor = await connection.cursor(row_factory=scalar_row).execute(
        """
        SELECT id FROM messages WHERE position = %(position)s
        UNION ALL SELECT id FROM hub WHERE %(position)s::bigint = 0
                                       AND coalesce((SELECT min(position) FROM messages), 1) = 1
        """,
        {"position": position},
    )
    return await cursor.fetchone()


async def time_at(connection: Connection, position: int) -> datetime | None:
    """The time of the message at a position; None where there is none."""
    cursor = await connection.cursor(row_factory=scalar_row).execute(
        "SELECT time FROM messages WHERE position = %s", (position,)
    )
    return await cursor.fetchone()


async def insert(connection: Connection, messages: Sequence[Message]) -> None:
    """Writes messages at their positions, with binary arrays; once they are committed every feed is woken."""
    await connection.execute(
        """
        WITH notice AS (SELECT pg_notify(%s, ''))
        INSERT INTO messages (position, id, kind, time, actor_kind, actor_id, actor_name,
                              receiver_id, group_id, event_position, data)
        SELECT m.position, m.id, m.kind, m.time, m.actor_kind, m.actor_id, m.actor_name,
               m.receiver_id, m.group_id, m.event_position, m.data::json
        FROM unnest(%b::bigint[], %b::text[], %b::text[], %b::timestamptz[], %b::text[], %b::text[], %b::text[],
                    %b::text[], %b::text[], %b::bigint[], %b::text[])
             AS m (position, id, kind, time, actor_kind, actor_id, actor_name,
                   receiver_id, group_id, event_position, data), notice
        """,
        (
            CHANNEL,
            [m.position for m in messages],
            [m.id for m in messages],
            [m.kind.value for m in messages],
            [m.time for m in messages],
            [m.actor_kind.value for m in messages],
            [m.actor_id for m in messages],
            [m.actor_name for m in messages],
            [m.receiver_id for m in messages],
            [m.group_id for m in messages],
            [None if m.event is None else m.event.position for m in messages],
            [None if m.data is None else m.data.decode() for m in messages],
        ),
    )


async def after(connection: Connection, position: int, limit: int) -> list[Message]:
    """Up to `limit` messages after a position, in order, with their events."""
    cursor = await connection.cursor(row_factory=args_row(_message)).execute(
        _MESSAGES
        + """
        WHERE m.position > %s
        ORDER BY m.position
        LIMIT %s
        """,
        (position, limit),
    )
    return await cursor.fetchall()


async def after_cursor(connection: Connection, position: int, tail: str, limit: int) -> list[Message]:
    """Returns up to `limit` messages after a position; empty unless the id of the message there (0: of the hub) ends
    with `tail`. One statement, so that no restored backup can come between the two questions."""
    cursor = await connection.cursor(row_factory=args_row(_message)).execute(
        _MESSAGES
        + """
        WHERE m.position > %(position)s
          AND (SELECT right(id, 8) FROM messages WHERE position = %(position)s
               UNION ALL SELECT right(id, 8) FROM hub WHERE %(position)s::bigint = 0
                                                        AND coalesce((SELECT min(position) FROM messages), 1) = 1
              ) = %(tail)s
        ORDER BY m.position
        LIMIT %(limit)s
        """,
        {"position": position, "tail": tail, "limit": limit},
    )
    return await cursor.fetchall()


async def page(connection: Connection, position: int | None, wanted: StreamFilter, limit: int) -> list[Message]:
    """Up to `limit` messages after a position (None: after what `origin` says) that the filter lets through, in order,
    with their events."""
    cursor = await connection.cursor(row_factory=args_row(_message)).execute(
        _MESSAGES
        + """
        WHERE m.position > coalesce(
                %(position)s::bigint, (SELECT CASE WHEN min(position) > 1 THEN min(position) ELSE 0 END FROM messages))
          AND m.kind = ANY(%(kinds)s)
          AND (%(receiver_ids)s::text[] IS NULL OR m.receiver_id = ANY(%(receiver_ids)s))
          AND (%(group_ids)s::text[] IS NULL OR m.group_id = ANY(%(group_ids)s))
          AND (%(unit_id)s::bytea IS NULL OR e.unit_id = %(unit_id)s)
          AND (%(name)s::text IS NULL OR e.name = %(name)s)
          AND (%(version)s::text IS NULL OR e.version = %(version)s)
          AND (%(release)s::text IS NULL OR e.release = %(release)s)
          AND (%(platform_id)s::text IS NULL OR e.platform_id = %(platform_id)s)
          AND (%(package)s::text IS NULL OR e.package = %(package)s)
          AND (%(success)s::boolean IS NULL OR e.success = %(success)s)
        ORDER BY m.position
        LIMIT %(limit)s
        """,
        {
            "position": position,
            "limit": limit,
            "kinds": [kind.value for kind in wanted.kinds],
            "receiver_ids": None if wanted.receiver_ids is None else list(wanted.receiver_ids),
            "group_ids": None if wanted.group_ids is None else list(wanted.group_ids),
            "unit_id": wanted.unit_id,
            "name": wanted.name,
            "version": wanted.version,
            "release": wanted.release,
            "platform_id": wanted.platform_id,
            "package": wanted.package,
            "success": wanted.success,
        },
        prepare=False,  # planned for what was asked: a plan for any filter would read the whole table
    )
    return await cursor.fetchall()


async def partition_ends(connection: Connection) -> list[int]:
    """The exclusive upper bounds of the partitions of the stream, in order."""
    cursor = await connection.cursor(row_factory=scalar_row).execute(
        r"""
        SELECT (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''(\d+)''\)'))[1]::bigint AS upper_bound
        FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'messages'::regclass
        ORDER BY upper_bound
        """
    )
    return await cursor.fetchall()


async def add_partition(connection: Connection, start: int, end: int) -> None:
    """Adds the partition for positions from `start` up to and without `end`, without stopping readers or writers."""
    name = sql.Identifier(f"messages_from_{start}")
    await connection.execute(
        sql.SQL("CREATE TABLE {} (LIKE messages INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES)").format(
            name
        )
    )
    await connection.execute(
        sql.SQL("ALTER TABLE messages ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
            name, sql.Literal(start), sql.Literal(end)
        )
    )


def _message(
    position: int,
    id: str,
    kind: str,
    time: datetime,
    actor_kind: str,
    actor_id: str,
    actor_name: str,
    receiver_id: str | None,
    group_id: str | None,
    data: str | None,
    *event: Any,
) -> Message:
    return Message(
        position=position,
        id=id,
        kind=Kind(kind),
        time=time,
        actor_kind=ActorKind(actor_kind),
        actor_id=actor_id,
        actor_name=actor_name,
        receiver_id=receiver_id,
        group_id=group_id,
        event=None if event[0] is None else event_of_row(*event),
        data=None if data is None else data.encode(),
    )
