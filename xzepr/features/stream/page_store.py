"""SQL of pages of the stream: the messages that a filter accepts, oldest first."""

from collections.abc import Set
from typing import LiteralString

from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import Cursor, Message, StreamFilter
from xzepr.features.stream.store import MESSAGE_COLUMNS, message_of_row
from xzepr.infra.db import Connection

_MESSAGE_CONDITIONS: dict[LiteralString, LiteralString] = {
    "kinds": "m.kind = ANY(%(kinds)s)",
    "receiver_ids": "m.receiver_id = ANY(%(receiver_ids)s)",
    "group_ids": "m.group_id = ANY(%(group_ids)s)",
}
_EVENT_CONDITIONS: dict[LiteralString, LiteralString] = {
    "unit_id": "e.unit_id = %(unit_id)s",
    "name": "e.name = %(name)s",
    "version": "e.version = %(version)s",
    "release": "e.release = %(release)s",
    "platform_id": "e.platform_id = %(platform_id)s",
    "package": "e.package = %(package)s",
    "success": "e.success = %(success)s",
}
# A LIMIT in a subquery for each row keeps PostgreSQL from joining whole tables.
_EVENTS_OF_MESSAGES: LiteralString = """
    LEFT JOIN LATERAL (SELECT * FROM events WHERE events.position = m.event_position LIMIT 1) AS e ON true
"""
# Retention leaves the last message that it removes, as a mark.
_START: LiteralString = """
    coalesce(%(after)s::bigint, (SELECT CASE WHEN min(position) > 1 THEN min(position) ELSE 0 END FROM messages))
"""


async def page(
    connection: Connection, after: int | None, filter: StreamFilter, limit: int
) -> tuple[list[Message], Cursor | None]:
    """Returns up to `limit` messages that the filter accepts, in order, and the cursor where the read stopped early.

    The messages follow a position (None: the origin). The read examines at most 20,000 messages. The cursor is None if
    it did not stop early.
    """
    values = _values(filter)
    statement = _scan(values.keys())
    cursor = await connection.cursor(binary=True).execute(statement, {**values, "after": after, "limit": limit})
    rows = await cursor.fetchall()
    position, id = rows[0][:2]
    messages = [message_of_row(*row[2:]) for row in rows if row[2] is not None]
    return messages, None if position is None else Cursor.of(position, id)


def _values(filter: StreamFilter) -> dict[str, object]:
    """Returns the values of the conditions that are set. That on kinds is not set if it accepts all kinds."""
    values = {name: getattr(filter, name) for name in (*_MESSAGE_CONDITIONS, *_EVENT_CONDITIONS)}
    values["kinds"] = None if len(filter.kinds) == len(Kind) else {kind.value for kind in filter.kinds}
    return {
        name: list(value) if name in _MESSAGE_CONDITIONS else value
        for name, value in values.items()
        if value is not None
    }


def _scan(names: Set[str]) -> LiteralString:
    """Returns the query that checks conditions on the messages of the stream, in chunks of 100.

    The first columns of each row are the position and the id of the message at which the read stopped early, or null.
    """
    on_events: list[LiteralString] = [text for name, text in _EVENT_CONDITIONS.items() if name in names]
    on_messages: list[LiteralString] = [text for name, text in _MESSAGE_CONDITIONS.items() if name in names]
    checks = on_messages + on_events
    return f"""
        WITH RECURSIVE scan (chunks, reached, found, matches) AS (
            SELECT 0, {_START}, ARRAY[]::bigint[], 0
            UNION ALL
            SELECT scan.chunks + 1, chunk.reached, chunk.found, scan.matches + cardinality(chunk.found)
            FROM scan CROSS JOIN LATERAL (
                SELECT max(m.position) AS reached,
                       coalesce(array_agg(m.position) FILTER (WHERE {" AND ".join(checks or ["true"])}),
                                ARRAY[]::bigint[]) AS found
                FROM (
                    SELECT * FROM messages WHERE position > scan.reached ORDER BY position LIMIT 100
                ) AS m {_EVENTS_OF_MESSAGES if on_events else ""}
            ) AS chunk
            WHERE scan.chunks < 200 AND scan.matches < %(limit)s AND chunk.reached IS NOT NULL
        ), stop AS (
            SELECT m.position, m.id
            FROM scan CROSS JOIN LATERAL (SELECT * FROM messages WHERE position = scan.reached LIMIT 1) AS m
            WHERE scan.chunks = 200 AND scan.matches < %(limit)s
        ), page AS (
            SELECT {MESSAGE_COLUMNS}
            FROM (SELECT unnest(scan.found) AS position FROM scan) AS match
            CROSS JOIN LATERAL (SELECT * FROM messages WHERE messages.position = match.position LIMIT 1) AS m
            {_EVENTS_OF_MESSAGES}
            ORDER BY m.position LIMIT %(limit)s
        )
        SELECT stop.*, page.*
        FROM (VALUES (true)) AS one LEFT JOIN stop ON true LEFT JOIN page ON true
        ORDER BY 3
    """
