"""The session parameters of every connection, whatever the database, the role and the environment say."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import LiteralString, cast

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from tests.support.postgres import Databases
from xzepr.core.errors import CannotStart
from xzepr.infra import migrate, revisions
from xzepr.infra.db import Database
from xzepr.infra.pipeline import Pipeline, Statement
from xzepr.settings import DatabaseSettings

HOSTILE = {
    "timezone": "America/New_York",
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "client_encoding": "LATIN1",
    "standard_conforming_strings": "off",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "statement_timeout": "1min",
    "lock_timeout": "1min",
    "idle_in_transaction_session_timeout": "1min",
    "enable_seqscan": "on",
    "transform_null_equals": "on",
}
EXPECTED = {
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read committed",
    "statement_timeout": "3s",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "4s",
    "enable_seqscan": "off",
    "transform_null_equals": "off",
}
ENVIRONMENT = {
    "PGTZ": "America/New_York",
    "PGDATESTYLE": "German",
    "PGCLIENTENCODING": "LATIN1",
    "PGOPTIONS": "-c intervalstyle=iso_8601 -c statement_timeout=9s",
}
SETTINGS = DatabaseSettings(
    statement_timeout_seconds=3, lock_timeout_seconds=0.001, idle_in_transaction_timeout_seconds=4
)
NAMES = ", ".join(f"current_setting('{name}')" for name in EXPECTED)


@pytest.fixture
def hostile_url(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A migrated database whose defaults, and the environment, contradict what the hub needs."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        for parameter, value in HOSTILE.items():
            connection.execute(
                sql.SQL("ALTER DATABASE {} SET {} = {}").format(name, sql.Identifier(parameter), sql.Literal(value))
                if parameter != "datestyle"
                else sql.SQL("ALTER DATABASE {} SET datestyle = SQL, DMY").format(name)
            )
    for variable, value in ENVIRONMENT.items():
        monkeypatch.setenv(variable, value)
    return database_url


async def _parameters(connection: psycopg.AsyncConnection[tuple[object, ...]]) -> dict[str, object]:
    row = await (await connection.execute(f"SELECT {NAMES}".encode())).fetchone()
    assert row is not None
    return dict(zip(EXPECTED, row, strict=True))


async def test_every_connection_has_the_session_parameters(hostile_url: str) -> None:
    db = Database(hostile_url, SETTINGS, name="test")
    await db.open()
    try:
        for take in (db.read, db.read_bulk, db.read_reserved):
            async with take() as connection:
                assert await _parameters(connection) == EXPECTED, take.__name__
        async with db.write() as connection:
            assert await _parameters(connection) == EXPECTED
        async with await db.connect("feed") as connection:
            assert await _parameters(connection) == EXPECTED
            cursor = await connection.execute("SELECT '2026-01-01T00:00:00Z'::timestamptz, '🦄'")
            row = await cursor.fetchone()
            assert row is not None
            assert row == (datetime(2026, 1, 1, tzinfo=UTC), "🦄")
            assert str(row[0]) == "2026-01-01 00:00:00+00:00"
        sql_text = cast("LiteralString", f"SELECT ARRAY[{NAMES}]")
        statement = Statement(b"parameters", sql_text, cast("Callable[..., list[object]]", list))
        pipeline = await Pipeline.open(db, "test", [statement])
        try:
            reply = pipeline.send(statement)
            await pipeline.flush(end=True)
            await pipeline.receive_end()
            assert reply.rows == [list(EXPECTED.values())]
        finally:
            pipeline.close()
    finally:
        await db.close()


def test_migration_is_not_limited_by_defaults(hostile_url: str) -> None:
    with migrate.connected(hostile_url) as connection:
        row = connection.exec_driver_sql(f"SELECT {NAMES}").one()
    limits = dict.fromkeys(("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"), "0")
    assert dict(zip(EXPECTED, row, strict=True)) == {**EXPECTED, **limits, "enable_seqscan": "on"}
    assert revisions.are_current(hostile_url)


async def test_options_of_the_url_are_kept(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA hub")
    separator = "&" if "?" in empty_database_url else "?"
    url = f"{empty_database_url}{separator}options=-csearch_path%3Dhub"
    await asyncio.to_thread(migrate.migrate, url, report=print)
    assert revisions.are_current(url)
    assert not revisions.are_current(empty_database_url)
    async with await Database(url, SETTINGS, name="test").connect("feed") as connection:
        cursor = await connection.execute("SELECT 'events'::regclass::oid = 'hub.events'::regclass::oid")
        assert await cursor.fetchone() == (True,)


def test_startup_packet_has_nothing_that_poolers_refuse() -> None:
    conninfo = conninfo_to_dict(Database("postgresql://h/d", SETTINGS, name="test").conninfo("feed"))
    assert "options" not in conninfo
    assert conninfo["client_encoding"] == "UTF8"


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_database_in_other_encoding_is_refused(encoding: str, postgres_server: Databases) -> None:
    name = f"xzepr_test_{encoding.lower()}"
    with psycopg.connect(postgres_server.admin_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0".encode())
    try:
        parts = conninfo_to_dict(postgres_server.admin_url) | {"dbname": name}
        url = " ".join(f"{key}='{value}'" for key, value in parts.items())
        for check in (lambda: migrate.migrate(url, report=print), lambda: revisions.are_current(url)):
            with pytest.raises(CannotStart, match=f"the database has the encoding {encoding}, .*ENCODING 'UTF8'"):
                check()
    finally:
        with psycopg.connect(postgres_server.admin_url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
