"""SQL of lists of events: pages in the order of the stream, newest first, of events or of their positions alone.

A statement has exactly the conditions that are set, so that PostgreSQL plans each combination once for all values.
"""

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

from psycopg.rows import args_row, scalar_row

from xzepr.features.events.model import EventFilter
from xzepr.features.stream.model import Event
from xzepr.features.stream.rows import EVENT_COLUMNS, event_of_row
from xzepr.infra.db import Connection

_MAX_POSITION = 2**63 - 1

_CONDITIONS: Mapping[str, LiteralString] = {
    "receiver_id": "e.receiver_id = %(receiver_id)s::text",
    "unit_id": "e.unit_id = %(unit_id)s::bytea",
    "name": "e.name = %(name)s::text",
    "version": "e.version = %(version)s::text",
    "release": "e.release = %(release)s::text",
    "platform_id": "e.platform_id = %(platform_id)s::text",
    "package": "e.package = %(package)s::text",
    "success": "e.success = %(success)s::boolean",
    "recorded_from": "e.recorded_at >= %(recorded_from)s::timestamptz",
    "recorded_before": "e.recorded_at < %(recorded_before)s::timestamptz",
}


async def page(connection: Connection, filter: EventFilter, before: int | None, limit: int) -> list[Event]:
    """Returns up to `limit` events before a position, newest first. The newest events if `before` is None."""
    where, values = _where(filter, before)
    cursor = await connection.cursor(row_factory=args_row(event_of_row)).execute(
        "SELECT " + EVENT_COLUMNS + "FROM events AS e" + where + " ORDER BY e.position DESC LIMIT %(limit)s",
        {**values, "limit": limit},
    )
    return await cursor.fetchall()


async def page_positions(connection: Connection, filter: EventFilter, before: int | None, limit: int) -> list[int]:
    """Returns the positions of the events that `page` would return."""
    where, values = _where(filter, before)
    cursor = await connection.cursor(row_factory=scalar_row).execute(
        "SELECT e.position FROM events AS e" + where + " ORDER BY e.position DESC LIMIT %(limit)s",
        {**values, "limit": limit},
    )
    return await cursor.fetchall()


def _where(filter: EventFilter, before: int | None) -> tuple[LiteralString, dict[str, object]]:
    """Returns a WHERE clause of the conditions that are set, and their values."""
    values: dict[str, object] = {field: value for field in _CONDITIONS if (value := getattr(filter, field)) is not None}
    conditions: list[LiteralString] = [_CONDITIONS[field] for field in values]
    if before is not None:
        conditions.append("e.position < %(before)s::bigint")
        values["before"] = before
    return (" WHERE " + " AND ".join(conditions) if conditions else ""), values


async def pages_of_receivers(
    connection: Connection, ids: Sequence[str], before: Sequence[int | None], limits: Sequence[int]
) -> list[tuple[int, Event]]:
    """Returns a page of events per receiver, newest first. Each event has the number of its page, from 1.

    The lists have one entry per page: the receiver, the position before which it begins (None for the newest events),
    and its maximum size.
    """
    cursor = await connection.cursor(row_factory=args_row(_numbered)).execute(
        "SELECT page.number, "
        + EVENT_COLUMNS
        + """
        FROM unnest(%b::text[], %b::bigint[], %b::integer[]) WITH ORDINALITY AS page (id, before, size, number)
        CROSS JOIN LATERAL (
            SELECT * FROM events
            WHERE events.receiver_id = page.id AND events.position < page.before
            ORDER BY events.position DESC LIMIT page.size
        ) AS e
        ORDER BY page.number, e.position DESC
        """,
        (list(ids), [_MAX_POSITION if position is None else position for position in before], list(limits)),
    )
    return await cursor.fetchall()


async def pages_of_units(
    connection: Connection, ids: Sequence[bytes], before: Sequence[int | None], limits: Sequence[int]
) -> list[tuple[int, Event]]:
    """Returns a page of events of each unit, with arguments and results as in `pages_of_receivers`."""
    cursor = await connection.cursor(row_factory=args_row(_numbered)).execute(
        "SELECT page.number, "
        + EVENT_COLUMNS
        + """
        FROM unnest(%b::bytea[], %b::bigint[], %b::integer[]) WITH ORDINALITY AS page (id, before, size, number)
        CROSS JOIN LATERAL (
            SELECT * FROM events
            WHERE events.unit_id = page.id AND events.position < page.before
            ORDER BY events.position DESC LIMIT page.size
        ) AS e
        ORDER BY page.number, e.position DESC
        """,
        (list(ids), [_MAX_POSITION if position is None else position for position in before], list(limits)),
    )
    return await cursor.fetchall()


async def page_positions_of_receivers(
    connection: Connection, ids: Sequence[str], before: Sequence[int | None], limits: Sequence[int]
) -> list[tuple[int, int]]:
    """Returns the number and the position of each event that `pages_of_receivers` would return."""
    cursor = await connection.cursor(row_factory=args_row(_number_and_position)).execute(
        """
        SELECT page.number, e.position
        FROM unnest(%b::text[], %b::bigint[], %b::integer[]) WITH ORDINALITY AS page (id, before, size, number)
        CROSS JOIN LATERAL (
            SELECT position FROM events
            WHERE events.receiver_id = page.id AND events.position < page.before
            ORDER BY events.position DESC LIMIT page.size
        ) AS e
        ORDER BY page.number, e.position DESC
        """,
        (list(ids), [_MAX_POSITION if position is None else position for position in before], list(limits)),
    )
    return await cursor.fetchall()


async def page_positions_of_units(
    connection: Connection, ids: Sequence[bytes], before: Sequence[int | None], limits: Sequence[int]
) -> list[tuple[int, int]]:
    """Returns the number and the position of each event that `pages_of_units` would return."""
    cursor = await connection.cursor(row_factory=args_row(_number_and_position)).execute(
        """
        SELECT page.number, e.position
        FROM unnest(%b::bytea[], %b::bigint[], %b::integer[]) WITH ORDINALITY AS page (id, before, size, number)
        CROSS JOIN LATERAL (
            SELECT position FROM events
            WHERE events.unit_id = page.id AND events.position < page.before
            ORDER BY events.position DESC LIMIT page.size
        ) AS e
        ORDER BY page.number, e.position DESC
        """,
        (list(ids), [_MAX_POSITION if position is None else position for position in before], list(limits)),
    )
    return await cursor.fetchall()


def _numbered(number: int, *columns: Any) -> tuple[int, Event]:
    return number, event_of_row(*columns)


def _number_and_position(number: int, position: int) -> tuple[int, int]:
    return number, position
