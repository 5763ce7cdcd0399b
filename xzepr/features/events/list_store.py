"""SQL of lists of events: the positions of pages, newest first. The events themselves may be in memory.

A statement has exactly the conditions that are set, so that PostgreSQL plans each combination once for all values.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import LiteralString

from xzepr.core.ids import unit_id
from xzepr.features.events.model import EventFilter
from xzepr.infra import keyset
from xzepr.infra.db import Connection


def _first_position(time: LiteralString) -> LiteralString:
    """Returns a query for the first position from which on all events were recorded at a time or later.

    Times never decrease along the stream, so a search by halves reads a row for each of some twenty steps.
    """
    return f"""(
        WITH RECURSIVE search (low, high) AS (
            SELECT 0::bigint, coalesce(max(position), 0) + 1 FROM events
            UNION ALL
            SELECT CASE WHEN earlier THEN middle ELSE low END, CASE WHEN earlier THEN high ELSE middle END
            FROM search CROSS JOIN LATERAL (SELECT (low + high) / 2 AS middle) AS half CROSS JOIN LATERAL (
                SELECT recorded_at < {time} AS earlier FROM events WHERE position >= middle ORDER BY position LIMIT 1
            ) AS probe
            WHERE high - low > 1
        )
        SELECT min(high) FROM search
    )"""


# Columns that name what an event is about have an index. Those that classify it, with few values, have none.
_EVENTS = keyset.Listing(
    table="events",
    row="e",
    indexed={
        "unit_id": "unit_id",
        "name": "name",
        "version": "version",
        "release": "release",
        "receiver_id": "receiver_id",
    },
    checked={
        "platform_id": "e.platform_id = %(platform_id)s",
        "package": "e.package = %(package)s",
        "success": "e.success = %(success)s",
    },
    starts={"recorded_from": _first_position("%(recorded_from)s")},
    ends={"recorded_before": _first_position("%(recorded_before)s")},
)

_CONDITIONS = [field.name for field in fields(EventFilter)]
_UNIT_KEY = ("name", "version", "release", "platform_id", "package")


async def page_positions(
    connection: Connection, filter: EventFilter, before: int | None, limit: int
) -> tuple[list[int], int | None]:
    """Returns the positions of a page, newest first, and the position where the read stopped early.

    The page has up to `limit` events before a position. Without one, these are the newest events. The second result
    is None if the read did not stop early.
    """
    conditions = _conditions(filter)
    found = await keyset.read(connection, _EVENTS, "e.position", conditions, before=before, limit=limit)
    return [position for (position,) in found.rows], found.reached


def _conditions(filter: EventFilter) -> dict[str, object]:
    """Returns the conditions by name. The five strings of a unit become its id, which has an index."""
    conditions = {name: getattr(filter, name) for name in _CONDITIONS}
    key = [conditions[name] for name in _UNIT_KEY]
    if filter.unit_id is None and None not in key:
        conditions |= dict.fromkeys(_UNIT_KEY) | {"unit_id": unit_id(*key)}
    return conditions


async def page_positions_of_receivers(
    connection: Connection, ids: Sequence[str], before: Sequence[int | None], limits: Sequence[int]
) -> list[tuple[int, int]]:
    """Returns a page of events per receiver, newest first: the number of the page, from 1, and the event's position.

    The lists have one entry per page: the receiver, the position before which it begins (None for the newest events),
    and its maximum size.
    """
    return await _page_positions(connection, _PAGES_OF_RECEIVERS, ids, before, limits)


async def page_positions_of_units(
    connection: Connection, ids: Sequence[bytes], before: Sequence[int | None], limits: Sequence[int]
) -> list[tuple[int, int]]:
    """Returns a page of events of each unit, with arguments and results as in `page_positions_of_receivers`."""
    return await _page_positions(connection, _PAGES_OF_UNITS, ids, before, limits)


def _pages_of(column: LiteralString, type: LiteralString) -> LiteralString:
    """Returns the statement that selects pages of events by the values of an indexed column."""
    return f"""
        SELECT page.number, e.position
        FROM unnest(%b::{type}[], %b::bigint[], %b::integer[]) WITH ORDINALITY AS page (id, before, size, number)
        CROSS JOIN LATERAL (
            SELECT position FROM (
                SELECT position FROM events
                WHERE (events.{column}, events.position) < (page.id, page.before)
                  AND (events.{column}, events.position) >= (page.id, 0)
                ORDER BY events.{column} DESC, events.position DESC LIMIT 101
            ) AS newest LIMIT page.size
        ) AS e
        ORDER BY page.number, e.position DESC
        """


_PAGES_OF_RECEIVERS = _pages_of("receiver_id", "text")
_PAGES_OF_UNITS = _pages_of("unit_id", "bytea")


async def _page_positions(
    connection: Connection,
    statement: LiteralString,
    ids: Sequence[str] | Sequence[bytes],
    before: Sequence[int | None],
    limits: Sequence[int],
) -> list[tuple[int, int]]:
    positions = [keyset.MAX_POSITION if position is None else position for position in before]
    cursor = await connection.cursor(binary=True).execute(statement, (list(ids), positions, list(limits)))
    return [(number, position) for number, position in await cursor.fetchall()]
