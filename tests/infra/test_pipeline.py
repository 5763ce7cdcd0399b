"""The pipeline of the recorder's thread: values in binary form, errors, large parameters and silent servers."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.hub import execute, terminate, until
from tests.support.silent_proxy import silent_proxy
from xzepr.core.errors import Overloaded
from xzepr.core.ids import texts_with_length, with_length
from xzepr.infra.binary import FALSE, NULL, TRUE, Type, array, bigint, integer, timestamp
from xzepr.infra.db import ConnectionLost, Database, StatementError
from xzepr.infra.pipeline import Pipeline, Statement, failure_of
from xzepr.settings import DatabaseSettings


def _row(*columns: Any) -> tuple[Any, ...]:
    return columns


_ARRAYS: Statement[tuple[Any, ...]] = Statement(
    b"arrays",
    "SELECT $1::text[], $2::bytea[], $3::boolean[], $4::bigint[], $5::integer[], $6::timestamptz[], $7::json[]::text[]",
    _row,
)
_DIVIDE = Statement(b"divide", "SELECT $1::integer / $2::integer", int)
_LOCK = Statement(b"lock", "SELECT pg_advisory_xact_lock(42)", tuple[object])
_STATEMENTS: tuple[Statement[Any], ...] = (_ARRAYS, _DIVIDE, _LOCK)


@pytest.fixture
def pipeline(database_url: str) -> Iterator[Pipeline]:
    """A connection with the statements of this module."""
    pipeline = Pipeline.open(database(database_url), "test", _STATEMENTS)
    yield pipeline
    pipeline.close()


def database(url: str) -> Database:
    """Returns a database of which only the parameters of connections are used."""
    return Database(url, DatabaseSettings(lock_timeout_seconds=0.2), name="test")


def divide(pipeline: Pipeline, dividend: int, divisor: int) -> list[int]:
    """Returns the result of a division by PostgreSQL, as rows."""
    reply = pipeline.send(_DIVIDE, [integer(dividend)[4:], integer(divisor)[4:]])
    pipeline.flush()
    pipeline.receive()
    return reply.rows


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
ROWS = st.tuples(
    TEXT,
    st.binary(),
    st.booleans(),
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.integers(-(2**31), 2**31 - 1),
    st.none() | st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001 the zone is added
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROWS, max_size=5))
def test_binary_arrays_are_received_as_sent(pipeline: Pipeline, rows: list[tuple[Any, ...]]) -> None:
    columns: list[list[Any]] = [[row[n] for row in rows] for n in range(6)]
    texts, binaries, booleans, bigints, integers, times = columns
    parameters = [
        array(Type.TEXT, texts_with_length(texts)),
        array(Type.BYTEA, [with_length(value) for value in binaries]),
        array(Type.BOOLEAN, [TRUE if value else FALSE for value in booleans]),
        array(Type.BIGINT, [NULL if value is None else bigint(value) for value in bigints]),
        array(Type.INTEGER, [integer(value) for value in integers]),
        array(Type.TIMESTAMPTZ, [NULL if value is None else timestamp(value) for value in times]),
        array(Type.JSON, [with_length(b'{"a": [1]}') for _ in rows]),
    ]
    reply = pipeline.send(_ARRAYS, parameters)
    pipeline.flush(end=True)
    pipeline.receive_end()
    assert reply.rows == [(*columns, ['{"a": [1]}'] * len(rows))]


def test_statements_of_one_round_trip_have_separate_results(pipeline: Pipeline) -> None:
    replies = [pipeline.send(_DIVIDE, [integer(n)[4:], integer(2)[4:]]) for n in (2, 4, 6)]
    pipeline.flush()
    pipeline.receive()
    assert [reply.rows for reply in replies] == [[1], [2], [3]]


def test_first_error_of_round_trip_is_raised(pipeline: Pipeline) -> None:
    pipeline.send(_DIVIDE, [integer(1)[4:], integer(0)[4:]])
    pipeline.command("COMMIT")
    pipeline.flush(end=True)
    with pytest.raises(psycopg.errors.DivisionByZero) as error:
        pipeline.receive_end()
    assert isinstance(failure_of(error.value), StatementError)
    assert failure_of(ValueError()) is None


async def test_lock_timeout_is_overloaded(pipeline: Pipeline, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as other:
        await other.execute("SELECT pg_advisory_xact_lock(42)")
        pipeline.send(_LOCK)
        pipeline.flush()
        with pytest.raises(psycopg.errors.LockNotAvailable) as error:
            await asyncio.to_thread(pipeline.receive)
        assert isinstance(failure_of(error.value), Overloaded)


def test_parameters_beyond_socket_buffers_are_sent(pipeline: Pipeline) -> None:
    texts = array(Type.TEXT, texts_with_length(["x" * 1_000_000] * 8))
    empty = [
        array(type, ()) for type in (Type.BYTEA, Type.BOOLEAN, Type.BIGINT, Type.INTEGER, Type.TIMESTAMPTZ, Type.JSON)
    ]
    replies = [pipeline.send(_ARRAYS, [texts, *empty]) for _ in range(4)]
    pipeline.flush()
    pipeline.receive()
    assert all(reply.rows[0][0] == ["x" * 1_000_000] * 8 for reply in replies)


@pytest.mark.parametrize("way", ["terminated", "hung up"])
async def test_lost_connection_is_reported(pipeline: Pipeline, database_url: str, way: str) -> None:
    pipeline.command("SELECT pg_sleep(20)")
    pipeline.flush()
    pipeline.deadline = time.monotonic() + 20
    receiving = asyncio.create_task(asyncio.to_thread(pipeline.receive))
    await until(lambda: _is_active(database_url))
    if way == "terminated":
        await terminate(database_url, "xzepr test test")
    else:
        pipeline.hang_up()
    with pytest.raises(psycopg.OperationalError) as error:
        await receiving
    assert isinstance(failure_of(error.value), ConnectionLost)


async def _is_active(database_url: str) -> bool:
    rows = await execute(
        database_url,
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'xzepr test test' AND wait_event = 'PgSleep'",
    )
    return len(rows) == 1


async def test_silent_server_is_lost_at_the_deadline(database_url: str) -> None:
    async with silent_proxy(database_url) as (url, proxy):
        pipeline = await asyncio.to_thread(Pipeline.open, database(url), "test", _STATEMENTS)
        assert proxy.silence("xzepr test test") == 1
        pipeline.deadline = time.monotonic() + 0.2
        with pytest.raises(psycopg.OperationalError, match="no response in time") as error:
            await asyncio.to_thread(divide, pipeline, 4, 2)
        assert isinstance(failure_of(error.value), ConnectionLost)
        pipeline.close()


def test_failed_preparation_closes_the_connection(database_url: str) -> None:
    broken = Statement(b"broken", "SELECT * FROM no_such_table", tuple[object])
    with pytest.raises(psycopg.errors.UndefinedTable):
        Pipeline.open(database(database_url), "test", [broken])
    with psycopg.connect(database_url) as connection:
        sessions = "SELECT pid FROM pg_stat_activity WHERE application_name = 'xzepr test test'"
        while connection.execute(sessions).fetchall():
            time.sleep(0.005)


def test_plans_use_indexes_and_transactions_are_limited(pipeline: Pipeline, database_url: str) -> None:
    setting = Statement(b"setting", "SELECT current_setting($1::text, true)", str)
    with psycopg.connect(database_url) as connection:
        limited = connection.info.server_version >= 17_00_00
    other = Pipeline.open(database(database_url), "test", [setting])
    replies = [other.send(setting, [name]) for name in (b"enable_seqscan", b"jit", b"transaction_timeout")]
    other.flush()
    other.receive()
    assert [reply.rows for reply in replies[:2]] == [["off"], ["off"]]
    assert replies[2].rows == ["30200ms"] or not limited
    other.close()
