"""`createEvent` on an empty hub and after millions of earlier events: its rate, and the rows that it reads."""

import time
from contextlib import ExitStack

import psycopg
from psycopg.conninfo import make_conninfo

from tests.bench import cases
from tests.bench.client import CREATE, EVENT, Client
from tests.bench.contest import Contestant, contest
from tests.bench.load import Target
from tests.bench.session import PREPARED, Session
from tests.bench.stage import stored_by
from xzepr.core.ids import unit_id

CREATES = 300
_FIRST_EVENTS = 2_000  # of a hub that counts as empty
_VERSION = "1"
_CHUNK = 500_000  # events filled by one statement

# Every second earlier event is about one unit; each other one is about its own unit.
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
    ON CONFLICT (unit_id, receiver_id) DO UPDATE SET position = excluded.position
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


def measure(session: Session) -> None:
    """Measures both hubs in each round, then the rows that PostgreSQL reads for a create."""
    environment = session.environment
    urls = {name: environment.database(name, PREPARED) for name in ("hub_empty", "hub_full")}
    try:
        fill(urls["hub_full"], session.holdings.receivers[:2], session.options.history)
        with ExitStack() as stack:
            served = {name: stack.enter_context(environment.hub(url)) for name, url in urls.items()}
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {session.holdings.key}"}
            body = cases.body("create", session.holdings.receivers)
            contestants = [
                Contestant(name, Target(hub.port, "/graphql", body, headers), hub.process, stored_by(urls[name]))
                for name, hub in served.items()
            ]
            for name, hub in served.items():
                _settle(urls[name], Client(hub.port), session.holdings.receivers)
            contest(session, "create", contestants, name="history")
            for name, hub in served.items():
                rows = _rows_read(urls[name], Client(hub.port), session.holdings.receivers[0])
                session.record("history_rows", name, 1, {"rows": rows})
    finally:
        for name in urls:
            environment.drop(name)


def fill(url: str, receivers: list[str], count: int) -> None:
    """Writes earlier events, as the hub would have recorded them for two receivers."""
    texts = [str(EVENT[name]) for name in ("name", "release", "platformId", "package")]
    unit = unit_id(texts[0], _VERSION, *texts[1:])
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT max(position) FROM messages").fetchone()
        assert row is not None
        first, end = row[0] + 1, row[0] + 1 + count
        while first < end:
            last = min(first + _CHUNK, end) - 1
            values = {"unit": unit, "receivers": receivers, "first": first, "last": last}
            connection.execute(_FILL, values)
            first = last + 1
        connection.execute("VACUUM (ANALYZE)")
    # Filled pages are written to the disk before anything is measured.
    with psycopg.connect(make_conninfo(url, user="postgres"), autocommit=True) as connection:
        connection.execute("CHECKPOINT")


def _settle(url: str, client: Client, receivers: list[str]) -> None:
    """Gives the planner statistics. Plans of a hub that has just begun are those of empty tables, for a minute."""
    for _ in client.record(receivers, _FIRST_EVENTS):
        pass
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ANALYZE")


def _rows_read(url: str, client: Client, receiver: str) -> float:
    """Returns the rows that PostgreSQL reads for one create of the unit with a long history, by its own counters."""
    input = EVENT | {"version": _VERSION, "eventReceiverId": receiver}
    before = _rows_counted(url, client, input)
    for _ in range(CREATES):
        client.ask(CREATE, input=input)
    return (_rows_counted(url, client, input) - before) / (CREATES + 1)


def _rows_counted(url: str, client: Client, input: dict[str, object]) -> int:
    """Returns PostgreSQL's counter. A backend reports it when a transaction ends, but at most once a second."""
    time.sleep(1.1)
    client.ask(CREATE, input=input)
    with psycopg.connect(url) as connection:
        row = connection.execute(_ROWS_READ).fetchone()
    assert row is not None
    return int(row[1])
