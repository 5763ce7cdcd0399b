"""Create and gate with 10,000 and with 1,000,000 earlier events: the same rows are read, in about the same time."""

import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import median

import psycopg

from tests.bench import stage
from tests.support.accounts import key_pair
from xzepr.core.actor import SYSTEM
from xzepr.features.events.model import NewEvent
from xzepr.features.groups.model import NewGroup
from xzepr.features.receivers.model import NewReceiver
from xzepr.hub import Hub
from xzepr.infra.embedded import EmbeddedPostgres
from xzepr.processes import running
from xzepr.settings import Settings

SIZES = (10_000, 1_000_000)
CREATES = 300

# Every second earlier event is about the very unit that is measured; the others are about one unit each.
_FILL = """
WITH filled AS (
    SELECT p AS position, CASE WHEN p %% 2 = 0 THEN %(unit)s::bytea ELSE sha256(p::text::bytea) END AS unit_id,
           (%(receivers)s::text[])[1 + p / 2 %% 2] AS receiver_id
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS p
), messages AS (
    INSERT INTO messages (position, id, kind, time, actor_kind, actor_id, actor_name, receiver_id, event_position)
    SELECT position, 'filled' || position, 'event.recorded', now(), 'user', 'u', 'u', receiver_id, position FROM filled
), statuses AS (
    INSERT INTO unit_status (unit_id, receiver_id, position, success, run_position, run_began_at)
    SELECT unit_id, receiver_id, max(position), true, min(position), now() FROM filled GROUP BY unit_id, receiver_id
)
INSERT INTO events (position, id, unit_id, name, version, release, platform_id, package, description, payload, success,
                    receiver_id, receiver_revision, owner_id, created_at, recorded_at)
SELECT position, 'filled' || position, unit_id, 'app', '1', '1', 'linux', 'oci', 'filled', '{"a":1}', true,
       receiver_id, 1, 'u', now(), now()
FROM filled
"""
_ROWS_READ = """
SELECT pg_stat_force_next_flush(), sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))
FROM pg_stat_user_tables
"""


@dataclass(frozen=True, slots=True)
class _Side:
    """One hub with so many earlier events."""

    hub: Hub
    url: str
    event: NewEvent

    async def creates(self) -> float:
        """Median seconds of a create, one after another."""
        times: list[float] = []
        for _ in range(CREATES):
            began = time.perf_counter()
            await self.hub.recorder.record(SYSTEM, self.event)
            times.append(time.perf_counter() - began)
        return median(times)

    async def rows_read(self) -> float:
        """Rows that PostgreSQL reads for one create, by its own counters."""
        before = self._counted()
        await self.creates()
        return (self._counted() - before) / CREATES

    def _counted(self) -> int:
        with psycopg.connect(self.url) as connection:
            time.sleep(1.1)  # a backend reports its counters at most once a second
            row = connection.execute(_ROWS_READ).fetchone()
            assert row is not None
            return int(row[1])


async def measure(server: EmbeddedPostgres) -> list[list[str]]:
    """Rows of earlier events, rows read for a create, milliseconds, and the ratio to the smallest history."""
    async with AsyncExitStack() as opened:
        sides = [await _side(server, size, opened) for size in SIZES]
        rounds = [[await side.creates() for side in sides] for _ in range(stage.ROUNDS)]
        read = [await side.rows_read() for side in sides]
    times = [median(one) for one in zip(*rounds, strict=True)]
    return [
        [f"{size:,} earlier events", f"{rows:.1f}", f"{seconds * 1000:.2f}", f"{seconds / times[0]:.2f}"]
        for size, rows, seconds in zip(SIZES, read, times, strict=True)
    ]


async def _side(server: EmbeddedPostgres, size: int, opened: AsyncExitStack) -> _Side:
    url = stage.new_database(server, f"history_{size}")
    hub = await opened.enter_async_context(Hub.open(Settings(), url, key_pair()))
    receivers = [
        await hub.receivers.create(SYSTEM, NewReceiver(name, f"ci.{name}", "1", "bench", {})) for name in ("a", "b")
    ]
    ids = tuple(receiver.id for receiver in receivers)
    group = await hub.groups.create(SYSTEM, NewGroup("g", "gate", "1", "bench", ids))
    event = NewEvent("app", "1", "1", "linux", "oci", "bench", {"a": 1}, True, ids[0])
    with psycopg.connect(url, autocommit=True) as connection:
        first = group.position + 1
        given = {"unit": event.unit.id, "receivers": list(ids), "first": first, "last": first + size - 1}
        connection.execute(_FILL, given)
        connection.execute("VACUUM (ANALYZE)")
    await opened.enter_async_context(running(hub))
    return _Side(hub, url, event)
