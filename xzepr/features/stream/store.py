"""SQL of the stream: its lock, its head, its messages in order, and its partitions."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg import AsyncCursor, sql
from psycopg.rows import args_row, class_row, scalar_row

from xzepr.core.actor import ActorKind
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import Event, Head, Message, Origin
from xzepr.features.stream.rows import EVENT_COLUMNS
from xzepr.infra.db import Connection
from xzepr.infra.pipeline import Pipeline, Statement

_WRITER_LOCK = 0x787A_6570_7201  # key of the advisory lock that admits one writer at a time ("xzepr", 1)

CHANNEL = "xzepr_stream"  # of NOTIFY

# The columns of a message and its event, from `messages AS m` and `events AS e`.
MESSAGE_COLUMNS: LiteralString = (
    """
    m.position, m.id, m.kind, m.time, m.actor_kind, m.actor_id, m.actor_name, m.receiver_id, m.group_id, m.data,
    """
    + EVENT_COLUMNS
)
_SELECT_MESSAGES: LiteralString = (
    "SELECT " + MESSAGE_COLUMNS + "FROM messages AS m LEFT JOIN events AS e ON e.position = m.event_position"
)


@dataclass(frozen=True, slots=True)
class Tip:
    """The newest message, as a writer needs it: the next position follows it, and time never goes backwards."""

    position: int
    id: str | None
    """None while the stream is empty."""
    time: datetime


# For the recorder, which has its own connection.
LOCK = Statement(b"lock", "SELECT pg_advisory_xact_lock($1)", tuple[object])


def send_lock(pipeline: Pipeline) -> None:
    """Waits for the writer lock like `lock`."""
    pipeline.send(LOCK, [_WRITER_LOCK.to_bytes(8, "big")])


async def lock(connection: Connection) -> None:
    """Waits for the writer lock, which COMMIT or ROLLBACK releases. Later statements see everything committed."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_WRITER_LOCK,))


async def end_stuck_writers(connection: Connection, seconds: float) -> int:
    """Terminates this role's sessions that hold the writer lock in a transaction older than `seconds`.

    Returns how many.
    """
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
    """Selects the newest position and the time of the next message. The caller holds the writer lock."""
    return await connection.cursor(row_factory=class_row(Tip)).execute(
        """
        SELECT coalesce(max(newest.position), 0) AS position, max(newest.id) AS id,
               greatest(clock_timestamp(), max(newest.time)) AS time
        FROM (SELECT position, id, time FROM messages ORDER BY position DESC LIMIT 1) AS newest
        """
    )


async def hub_id(connection: Connection) -> str:
    """Returns the hub's id, which the first migration created."""
    cursor = await connection.cursor(row_factory=scalar_row).execute("SELECT id FROM hub")
    row = await cursor.fetchone()
    assert row is not None, "the first migration fills this table"
    return str(row)


async def head(connection: Connection) -> Head:
    """Returns the newest entry; position 0 and the hub's id if there is none."""
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
    """Returns the entry before the oldest message. Retention leaves the last message that it removes as this mark."""
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
    """Returns the id of the message at a position; for 0, the hub's id until retention has removed a message.

    None if there is none.
    """
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
    """Returns the time of the message at a position; None if there is none."""
    cursor = await connection.cursor(row_factory=scalar_row).execute(
        "SELECT time FROM messages WHERE position = %s", (position,)
    )
    return await cursor.fetchone()


async def insert(connection: Connection, messages: Sequence[Message], process_id: str) -> None:
    """Writes messages at their positions, as binary arrays. Their COMMIT notifies the feeds of other processes."""
    await connection.execute(
        """
        WITH notice AS (SELECT pg_notify(%s, %s))
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
            process_id,
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
    """Returns up to `limit` messages after a position, in order, with their events."""
    cursor = await connection.cursor(row_factory=args_row(message_of_row), binary=True).execute(
        _SELECT_MESSAGES
        + """
        WHERE m.position > %s
        ORDER BY m.position
        LIMIT %s
        """,
        (position, limit),
    )
    return await cursor.fetchall()


async def after_cursor(connection: Connection, position: int, id_suffix: str, limit: int) -> list[Message]:
    """Returns up to `limit` messages after a position; empty unless the message there has the id suffix.

    At position 0, the suffix is that of the hub's id. One statement checks the suffix and reads, so that no backup can
    be restored in between.
    """
    cursor = await connection.cursor(row_factory=args_row(message_of_row), binary=True).execute(
        _SELECT_MESSAGES
        + """
        WHERE m.position > %(position)s
          AND (SELECT right(id, 8) FROM messages WHERE position = %(position)s
               UNION ALL SELECT right(id, 8) FROM hub WHERE %(position)s::bigint = 0
                                                        AND coalesce((SELECT min(position) FROM messages), 1) = 1
              ) = %(id_suffix)s
        ORDER BY m.position
        LIMIT %(limit)s
        """,
        {"position": position, "id_suffix": id_suffix, "limit": limit},
    )
    return await cursor.fetchall()


async def partition_ends(connection: Connection) -> list[int]:
    """Returns the exclusive upper bounds of the stream's partitions, in order."""
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
    """Adds the partition for the positions from `start` to before `end`, without blocking readers or writers."""
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


def message_of_row(
    position: int,
    id: str,
    kind: str,
    time: datetime,
    actor_kind: str,
    actor_id: str,
    actor_name: str,
    receiver_id: str | None,
    group_id: str | None,
    data: bytes | None,
    *event: Any,
) -> Message:
    """Returns the message in a row of MESSAGE_COLUMNS."""
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
        event=None if event[0] is None else Event(*event),
        data=data,
    )
