"""Migrations against a real PostgreSQL."""

import psycopg

from xzepr.infra.migrate import check


async def test_a_migrated_database_fits_this_server(database_url: str) -> None:
    check(database_url)


async def test_each_test_has_its_own_database(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT oldest_server FROM schema_revision WHERE revision = '0001'").fetchone()
    assert row == ("0.1.0",)
