"""A database with a million events, for tests of what lists cost: with current, old and no statistics."""

from collections.abc import Iterator
from typing import LiteralString
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from tests.support.postgres import Databases

EVENTS = 1_000_000
RARE = 60  # events that have a value that no later event has: more than a page, at the far end of every list
CATALOG = 5_000  # receivers, and as many groups

# Three fifths of the events have the common value of a column, whatever the others. Receiver B has no event of `app`.
_VIEW: LiteralString = """
    CREATE OR REPLACE TEMPORARY VIEW filled AS
    SELECT n, 10000 + n + n / 10 AS position, 'E' || lpad(n::text, 25, '0') AS id,
           CASE WHEN n <= 60 THEN sha256('rare') WHEN n %% 17 < 11 THEN sha256('common')
                ELSE sha256((n / 8)::text::bytea) END AS unit_id,
           CASE WHEN n <= 60 THEN 'rare' WHEN n %% 5 < 3 THEN 'app' ELSE 'lib' || n / 8 %% 997 END AS name,
           CASE WHEN n <= 60 THEN 'rare' WHEN n / 2 %% 5 < 3 THEN '1' ELSE '1.' || n / 4000 END AS version,
           CASE WHEN n <= 60 THEN 'rare' WHEN n / 3 %% 5 < 3 THEN '1' ELSE (n / 8 %% 500)::text END AS release,
           CASE WHEN n <= 60 THEN 'rare' WHEN n / 7 %% 5 < 3 THEN 'linux' ELSE 'p' || n / 8 %% 500 END AS platform_id,
           CASE WHEN n <= 60 THEN 'rare' WHEN n / 11 %% 5 < 3 THEN 'oci' ELSE 'k' || n / 8 %% 500 END AS package,
           n > 60 AND n %% 20 <> 0 AS success,
           CASE WHEN n <= 60 THEN 'rare' WHEN n %% 5 < 3 THEN 'A' WHEN n %% 5 = 3 THEN 'B'
                ELSE 'R' || n / 8 %% 200 END AS receiver_id,
           timestamptz '2025-01-01' + n * interval '1 second' AS recorded_at
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
"""
_FILL: tuple[LiteralString, ...] = (
    """
    INSERT INTO events (position, id, unit_id, name, version, release, platform_id, package, description, payload,
                        success, receiver_id, receiver_revision, owner_id, created_at, recorded_at)
    SELECT position, id, unit_id, name, version, release, platform_id, package, 'filled', '{"a":1}',
           success, receiver_id, 1, 'u', recorded_at, recorded_at
    FROM filled
    """,
    """
    INSERT INTO messages (position, id, kind, time, actor_kind, actor_id, actor_name, receiver_id, event_position)
    SELECT position, id, 'event.recorded', recorded_at, 'user', 'u', 'u', receiver_id, position FROM filled
    """,
    """
    INSERT INTO messages (position, id, kind, time, actor_kind, actor_id, actor_name, receiver_id, group_id,
                          event_position, data)
    SELECT position + 1, 'G' || id, 'gate.completed', recorded_at, 'user', 'u', 'u', receiver_id,
           'G' || n / 10 % 50, position, '{}'
    FROM filled WHERE n % 10 = 9
    """,
    """
    INSERT INTO unit_status (unit_id, receiver_id, position, success)
    SELECT DISTINCT ON (unit_id, receiver_id) unit_id, receiver_id, position, success
    FROM filled WHERE n % 10 = 0 ORDER BY unit_id, receiver_id, position DESC
    ON CONFLICT (unit_id, receiver_id) DO UPDATE SET position = excluded.position
    """,
)
# Receivers have the positions 1 to 5,000, groups 5,001 to 10,000. Their common values are those of three fifths, too.
_FILL_CATALOG: tuple[LiteralString, ...] = (
    """
    INSERT INTO messages (position, id, kind, time, actor_kind, actor_id, actor_name, receiver_id, group_id, data)
    SELECT p, 'C' || p, CASE WHEN p <= 5000 THEN 'receiver.created' ELSE 'group.created' END,
           timestamptz '2024-12-31', 'user', 'u', 'u', CASE WHEN p <= 5000 THEN 'R' || p END,
           CASE WHEN p > 5000 THEN 'G' || p - 5000 END, '{}'
    FROM generate_series(1, 10000) AS p
    """,
    """
    INSERT INTO receivers (id, position, name, type, version, description, schema, schema_digest, revision,
                           fingerprint, enabled, owner_id, resource_version, created_at, updated_at)
    SELECT 'R' || p, p, CASE WHEN p <= 60 THEN 'rare' WHEN p % 5 < 3 THEN 'app' ELSE 'r' || p END,
           CASE WHEN p <= 60 THEN 'rare' WHEN p / 2 % 5 < 3 THEN 'build' ELSE 't' || p % 50 END,
           CASE WHEN p <= 60 THEN 'rare' WHEN p / 3 % 5 < 3 THEN '1' ELSE p::text END,
           'filled', '{}', 'd', 1, 'f', p % 20 <> 0, 'u', 1, now(), now()
    FROM generate_series(1, 5000) AS p
    """,
    """
    INSERT INTO groups (id, position, name, type, version, description, enabled, owner_id, resource_version,
                        changed_position, created_at, updated_at)
    SELECT 'G' || p - 5000, p, r.name, r.type, r.version, 'filled', r.enabled, 'u', 1, p, now(), now()
    FROM generate_series(5001, 10000) AS p JOIN receivers AS r ON r.position = p - 5000
    """,
    """
    INSERT INTO group_members (group_id, receiver_id, ordinal)
    SELECT 'G' || g, 'R' || 1 + (g * 7 + m * 13) % 5000, m
    FROM generate_series(1, 5000) AS g CROSS JOIN generate_series(1, 4) AS m
    """,
    """
    INSERT INTO dead_letters (route, position, message_id, reason, dropped_at, dropped_by)
    SELECT 'r' || route, p, 'm' || p, 'filled', CASE WHEN dropped THEN now() END, CASE WHEN dropped THEN 'u' END
    FROM generate_series(1, 10000) AS p CROSS JOIN generate_series(1, 3) AS route
    CROSS JOIN LATERAL (SELECT CASE route WHEN 1 THEN p % 2 = 0 WHEN 2 THEN p <= 60 ELSE p > 60 END AS dropped) AS it
    """,
    """
    INSERT INTO users (id, username, password_hash, roles)
    SELECT 'U' || u, 'user' || u, 'x', ARRAY['user'] FROM generate_series(1, 5000) AS u
    """,
    """
    INSERT INTO api_keys (id, user_id, name, digest)
    SELECT 'K' || k, 'U' || 1 + k % 5000, 'filled', sha256(k::text::bytea) FROM generate_series(1, 20000) AS k
    """,
)


@pytest.fixture(scope="session")
def outgrown_history(postgres_server: Databases, template_database: str) -> Iterator[str]:
    """The URL of a database with a million events, and statistics from when it had a thousand."""
    with postgres_server.database(template_database) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in _FILL_CATALOG:
                connection.execute(statement)
            _fill(connection, 1, 1000)
            connection.execute("ANALYZE")
            _fill(connection, 1001, EVENTS)
        yield url


@pytest.fixture(scope="session")
def analyzed_history(outgrown_history: str, postgres_server: Databases) -> Iterator[str]:
    """The URL of a database with a million events and current statistics."""
    with postgres_server.database(_name(outgrown_history)) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("VACUUM (ANALYZE)")
        yield url


@pytest.fixture(scope="session")
def unanalyzed_history(outgrown_history: str, postgres_server: Databases) -> Iterator[str]:
    """The URL of a database with a million events and no statistics, as if it had grown between two visits."""
    with postgres_server.database(_name(outgrown_history)) as url:
        admin_url = urlunsplit(urlsplit(postgres_server.admin_url)._replace(path=f"/{_name(url)}"))
        with psycopg.connect(admin_url, autocommit=True) as connection:
            if connection.execute("SELECT FROM pg_roles WHERE rolname = current_user AND rolsuper").fetchone() is None:
                pytest.skip("only a superuser removes statistics")
            connection.execute("DELETE FROM pg_statistic")
            connection.execute(
                "UPDATE pg_class SET relpages = 0, reltuples = -1 WHERE relnamespace = 'public'::regnamespace"
            )
        yield url


@pytest.fixture(params=["analyzed", "outgrown", "unanalyzed"], scope="session")
def long_history(request: pytest.FixtureRequest) -> str:
    """The URL of a database with a million events; each test runs with current, old and no statistics."""
    return str(request.getfixturevalue(f"{request.param}_history"))


def _fill(connection: psycopg.Connection, first: int, last: int) -> None:
    psycopg.ClientCursor(connection).execute(_VIEW, {"first": first, "last": last})
    for statement in _FILL:
        connection.execute(statement)


def _name(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")
