"""A create with a gate after 10,000 and 1,000,000 earlier events. It reads the same rows in about the same time."""

import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import median

import psycopg

from tests.bench import environment
from tests.support.accounts import key_pair
from xzepr.core.actor import SYSTEM
from xzepr.features.events.model import NewEvent
from xzepr.features.groups.model import NewGroup
from xzepr.features.receivers.model import NewReceiver
from xzepr.hub import Hub
from xzepr.infra.embedded import EmbeddedPostgres
from xzepr.server.loops import serving_loops
from xzepr.settings import Settings

SIZES = (10_000, 1_000_000)
CREATES = 300

# Every second earlier event is about the measured unit; each other one is about its own unit.
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
class _Case:
    """A hub with a number of earlier events."""

    hub: Hub
    url: str
    event: NewEvent

    async def create_seconds(self) -> float:
        """Creates events one after another and returns the median time in seconds."""
        times: list[float] = []
        for _ in range(CREATES):
            began = time.perf_counter()
            await self.hub.recorder.record(SYSTEM, self.event)
            times.append(time.perf_counter() - began)
        return median(times)

    async def rows_read(self) -> float:
        """Returns the rows that PostgreSQL reads for one create, by its own counters."""
        before = self._rows_counted()
        await self.create_seconds()
        return (self._rows_counted() - before) / CREATES

    def _rows_counted(self) -> int:
        with psycopg.connect(self.url) as connection:
            time.sleep(1.1)  # a backend reports its counters at most once a second
            row = connection.execute(_ROWS_READ).fetchone()
            assert row is not None
            return int(row[1])


async def measure(server: EmbeddedPostgres) -> list[list[str]]:
    """Returns rows of earlier events, rows read for a create, milliseconds, and the ratio to the smallest history."""
    async with AsyncExitStack() as stack:
        cases = [await _case(server, size, stack) for size in SIZES]
        rounds = [[await case.create_seconds() for case in cases] for _ in range(environment.ROUNDS)]
        read = [await case.rows_read() for case in cases]
    times = [median(seconds) for seconds in zip(*rounds, strict=True)]
    return [
        [f"{size:,} earlier events", f"{rows:.1f}", f"{seconds * 1000:.2f}", f"{seconds / times[0]:.2f}"]
        for size, rows, seconds in zip(SIZES, read, times, strict=True)
    ]


async def _case(server: EmbeddedPostgres, size: int, stack: AsyncExitStack) -> _Case:
    url = environment.new_database(server, f"history_{size}")
    hub = await stack.enter_async_context(Hub.open(Settings(), url, key_pair()))
    receivers = [
        await hub.receivers.create(SYSTEM, NewReceiver(name, f"ci.{name}", "1", "bench", {})) for name in ("a", "b")
    ]
    ids = tuple(receiver.id for receiver in receivers)
    group = await hub.groups.create(SYSTEM, NewGroup("g", "gate", "1", "bench", ids))
    event = NewEvent("app", "1", "1", "linux", "oci", "bench", {"a": 1}, True, ids[0])
    with psycopg.connect(url, autocommit=True) as connection:
        first = group.position + 1
        values = {"unit": event.unit.id, "receivers": list(ids), "first": first, "last": first + size - 1}
        connection.execute(_FILL, values)
        connection.execute("VACUUM (ANALYZE)")
    await stack.enter_async_context(serving_loops(hub))
    return _Case(hub, url, event)
