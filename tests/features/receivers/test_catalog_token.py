"""The catalog's token in the database: any change of receivers and groups renews it, and nothing else does."""

from collections.abc import Iterator
from typing import LiteralString

import psycopg
import pytest

RECEIVER: LiteralString = (
    "INSERT INTO receivers SELECT id, position, 'n', 't', '1', '', '{}', '', 1, '', true, 'o', 1, now(), now()"
    " FROM (VALUES ('r1', 1), ('r2', 2)) AS new (id, position)"
)
GROUP: LiteralString = "INSERT INTO groups VALUES ('g', 3, 'n', 't', '1', '', true, 'o', 1, 3, now(), now())"
MEMBER: LiteralString = "INSERT INTO group_members VALUES ('g', 'r1', 1)"


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def token(connection: psycopg.Connection) -> object:
    rows = connection.execute("SELECT token FROM catalog").fetchall()
    assert len(rows) == 1
    return rows[0][0]


def test_each_change_renews_token(connection: psycopg.Connection):
    changes: list[LiteralString] = [
        RECEIVER,
        GROUP,
        MEMBER,
        "UPDATE receivers SET enabled = false WHERE id = 'r1'",
        "UPDATE groups SET enabled = false",
        "UPDATE group_members SET ordinal = 2",
        "DELETE FROM groups",
        GROUP,
        MEMBER,
        "DELETE FROM group_members",
        "DELETE FROM receivers WHERE id = 'r2'",
        MEMBER,
        "TRUNCATE group_members",
        "TRUNCATE groups CASCADE",
        "TRUNCATE receivers CASCADE",
    ]
    tokens = [token(connection)]
    for change in changes:
        connection.execute(change)
        tokens.append(token(connection))
    assert len(set(tokens)) == len(changes) + 1


def test_token_is_renewed_outside_of_search_path(connection: psycopg.Connection):
    before = token(connection)
    connection.execute("SET search_path = ''")
    connection.execute("UPDATE public.receivers SET enabled = true")
    connection.execute("RESET search_path")
    assert token(connection) != before


def test_rolled_back_change_keeps_token(connection: psycopg.Connection):
    before = token(connection)
    with connection.transaction(force_rollback=True):
        connection.execute(RECEIVER)
        assert token(connection) != before
    assert token(connection) == before


def test_catalog_has_one_row(connection: psycopg.Connection):
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute("INSERT INTO catalog DEFAULT VALUES")
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute("INSERT INTO catalog (one) VALUES (false)")
