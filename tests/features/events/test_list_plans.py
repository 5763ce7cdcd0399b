"""Lists of events in a database with a million events: what PostgreSQL reads for a page, near the head and far from it.

Each list is read with current, old and no statistics, with generic and with custom plans.
"""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from tests.support.explained import PLANS, Cost, explained
from xzepr.features.events import list_store, store
from xzepr.features.events.model import EventFilter

pytestmark = pytest.mark.slow

LIMIT = 51  # rows of a page of 50, which tells whether another follows
DEPTH = 10_000 * 50  # rows before a page far from the head
EXAMINED = 20_000
COMMON, RARE = sha256(b"common").digest(), sha256(b"rare").digest()
MIDDLE = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=500_000)

# Filters that one index contains.
CONTAINED = {
    "everything": EventFilter(),
    "common receiver": EventFilter(receiver_id="A"),
    "selective receiver": EventFilter(receiver_id="R7"),
    "rare receiver": EventFilter(receiver_id="rare"),
    "unknown receiver": EventFilter(receiver_id="unknown"),
    "common unit": EventFilter(unit_id=COMMON),
    "selective unit": EventFilter(unit_id=sha256(b"100").digest()),
    "rare unit": EventFilter(unit_id=RARE),
    "unknown unit": EventFilter(unit_id=sha256(b"unknown").digest()),
    "common name": EventFilter(name="app"),
    "selective name": EventFilter(name="lib7"),
    "rare name": EventFilter(name="rare"),
    "unknown name": EventFilter(name="unknown"),
    "common version": EventFilter(version="1"),
    "selective version": EventFilter(version="1.7"),
    "rare version": EventFilter(version="rare"),
    "unknown version": EventFilter(version="unknown"),
    "common release": EventFilter(release="1"),
    "selective release": EventFilter(release="7"),
    "rare release": EventFilter(release="rare"),
    "unknown release": EventFilter(release="unknown"),
    "old": EventFilter(recorded_before=MIDDLE),
    "new": EventFilter(recorded_from=MIDDLE),
    "future": EventFilter(recorded_from=MIDDLE + timedelta(days=1000)),
    "day": EventFilter(recorded_from=MIDDLE, recorded_before=MIDDLE + timedelta(days=1)),
    "common name, old": EventFilter(name="app", recorded_before=MIDDLE),
    "rare version, new": EventFilter(version="rare", recorded_from=MIDDLE),
}
# Filters that are checked row by row, but that most rows of an index meet.
FREQUENT = {
    "common platform": EventFilter(platform_id="linux"),
    "common package": EventFilter(package="oci"),
    "success": EventFilter(success=True),
    "common name and version": EventFilter(name="app", version="1"),
    "common receiver and name": EventFilter(receiver_id="A", name="app"),
    "common unit and success": EventFilter(unit_id=COMMON, success=True),
    "four common values": EventFilter(name="app", version="1", release="1", platform_id="linux"),
    "success, old": EventFilter(success=True, recorded_before=MIDDLE),
}
# Filters that are checked row by row, and that few or no rows meet.
SELDOM = {
    "failure": EventFilter(success=False),
    "selective platform": EventFilter(platform_id="p7"),
    "rare platform": EventFilter(platform_id="rare"),
    "unknown platform": EventFilter(platform_id="unknown"),
    "selective package": EventFilter(package="k7"),
    "rare package": EventFilter(package="rare"),
    "unknown package": EventFilter(package="unknown"),
    "common values of no event": EventFilter(name="app", receiver_id="B"),
    "common values of no event, old": EventFilter(name="app", receiver_id="B", recorded_before=MIDDLE),
    "common unit and rare receiver": EventFilter(unit_id=COMMON, receiver_id="rare"),
    "common unit and name of no event": EventFilter(unit_id=RARE, name="app"),
    "failure of a common receiver": EventFilter(receiver_id="A", success=False),
    "failure of no receiver": EventFilter(receiver_id="B", success=False),
    "rare version and common name": EventFilter(name="app", version="rare"),
    "rare name and common version": EventFilter(name="rare", version="1"),
    "rare name and version": EventFilter(name="rare", version="rare"),
    "selective version and common name": EventFilter(name="app", version="1.7"),
    "selective release and platform": EventFilter(release="7", platform_id="p7"),
    "unknown platform, day": EventFilter(
        platform_id="unknown", recorded_from=MIDDLE, recorded_before=MIDDLE + timedelta(days=1)
    ),
}


@pytest.mark.parametrize("plans", PLANS)
@pytest.mark.parametrize("title", CONTAINED)
async def test_contained_filter_reads_its_page_only(long_history: str, title: str, plans: str) -> None:
    head, deep = await _costs(long_history, CONTAINED[title], plans)
    assert head.rows <= 2 * LIMIT, head.plans
    assert head.buffers <= 300, head.plans
    _assert_similar(head, deep)


@pytest.mark.parametrize("plans", PLANS)
@pytest.mark.parametrize("title", FREQUENT)
async def test_frequent_match_reads_a_few_rows_each(long_history: str, title: str, plans: str) -> None:
    head, deep = await _costs(long_history, FREQUENT[title], plans)
    assert head.rows <= 1_500, head.plans
    _assert_similar(head, deep)


@pytest.mark.parametrize("plans", PLANS)
@pytest.mark.parametrize("title", SELDOM)
async def test_seldom_match_reads_a_bounded_number(long_history: str, title: str, plans: str) -> None:
    for cost in await _costs(long_history, SELDOM[title], plans):
        assert cost.rows <= EXAMINED + 4_000, cost.plans
        assert cost.buffers <= 1.5 * EXAMINED, cost.plans


@pytest.mark.parametrize("title", ["rare platform", "common values of no event", "failure", "selective package"])
async def test_pages_of_a_seldom_match_are_complete(analyzed_history: str, title: str) -> None:
    filter = SELDOM[title]
    found: list[int] = []
    before: int | None = None
    async with await psycopg.AsyncConnection.connect(analyzed_history, autocommit=True) as connection:
        while True:
            positions, reached = await list_store.page_positions(connection, filter, before, LIMIT)
            found += positions
            before = positions[-1] if len(positions) == LIMIT else reached
            if before is None:
                break
    assert found == _matches(analyzed_history, filter)


async def _costs(url: str, filter: EventFilter, plans: str) -> tuple[Cost, Cost]:
    """Reads the first page and one far from the head, compares both with all matches, and returns what they cost."""
    matches = _matches(url, filter)
    depth = min(DEPTH, len(matches) * 9 // 10)
    costs: list[Cost] = []
    for before, expected in ((None, matches), (matches[depth - 1] if depth else None, matches[depth:])):
        async with explained(url, plans) as connection:
            positions, reached = await list_store.page_positions(connection, filter, before, LIMIT)
        assert positions == [position for position in expected[:LIMIT] if position >= (reached or 0)]
        assert not connection.cost.flaws
        costs.append(connection.cost)
    return costs[0], costs[1]


def _assert_similar(head: Cost, deep: Cost) -> None:
    """Compares two reads: at most half as much again, besides two descents of an index."""
    assert deep.rows <= 1.5 * head.rows + 2, deep.plans
    assert deep.buffers <= 1.5 * head.buffers + 8, deep.plans


_COLUMNS: dict[str, LiteralString] = {
    "recorded_from": "recorded_at >= %(recorded_from)s",
    "recorded_before": "recorded_at < %(recorded_before)s",
}


@cache
def _matches(url: str, filter: EventFilter) -> list[int]:
    """Returns the positions of all matches, newest first, by a plain query."""
    values = {name: value for name, value in asdict(filter).items() if value is not None}
    conditions = [
        sql.SQL(_COLUMNS[name])
        if name in _COLUMNS
        else sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name))
        for name in values
    ]
    query = sql.SQL("SELECT position FROM events WHERE {}").format(
        sql.SQL(" AND ").join([sql.SQL("true"), *conditions])
    )
    with psycopg.connect(url) as connection:
        return sorted((position for (position,) in connection.execute(query, values)), reverse=True)


@pytest.mark.parametrize("plans", PLANS)
async def test_pages_of_lists_read_their_rows_only(long_history: str, plans: str) -> None:
    receivers = ["A", "B", "R7", "rare", "unknown", "A"]
    units = [COMMON, RARE, sha256(b"100").digest(), sha256(b"unknown").digest()]
    for before in (None, 600_000):
        async with explained(long_history, plans) as connection:
            await list_store.page_positions_of_receivers(connection, receivers, [before] * 6, [LIMIT] * 5 + [2])
            await list_store.page_positions_of_units(connection, units, [before] * 4, [LIMIT] * 4)
        assert not connection.cost.flaws
        assert connection.cost.rows <= 9 * LIMIT
        assert connection.cost.buffers <= 12 * LIMIT


@pytest.mark.parametrize("plans", PLANS)
async def test_events_of_a_page_are_read_by_position(long_history: str, plans: str) -> None:
    positions = [10_000 + n + n // 10 for n in range(500_000, 500_000 + LIMIT)]
    async with explained(long_history, plans) as connection:
        assert len(await store.by_positions(connection, positions)) == LIMIT
        assert len(await store.by_ids(connection, ["E" + str(n).zfill(25) for n in positions[:3]])) == 3
    assert not connection.cost.flaws
    assert connection.cost.rows == LIMIT + 3
