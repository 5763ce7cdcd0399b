"""The recorder's pipeline: errors, large parameters, lost and silent servers."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
import uvloop

from tests.support.hub import execute, terminate, until
from tests.support.silent_proxy import silent_proxy
from xzepr.core.errors import Overloaded
from xzepr.core.ids import texts_with_length
from xzepr.infra.binary import Type, array, integer
from xzepr.infra.db import ConnectionLost, Database, StatementError
from xzepr.infra.pipeline import Pipeline, Reply, Statement, failure_of
from xzepr.settings import DatabaseSettings

_ECHO = Statement(b"echo", "SELECT $1::text[]", list[str])
_DIVIDE = Statement(b"divide", "SELECT $1::integer / $2::integer", int)
_LOCK = Statement(b"lock", "SELECT pg_advisory_xact_lock(42)", tuple[object])
_STATEMENTS: tuple[Statement[Any], ...] = (_ECHO, _DIVIDE, _LOCK)


@pytest.fixture
async def pipeline(database_url: str) -> AsyncIterator[Pipeline]:
    """A connection with the statements of this module."""
    pipeline = await open_pipeline(database_url)
    yield pipeline
    pipeline.close()


async def open_pipeline(url: str) -> Pipeline:
    """Opens a connection with the statements of this module."""
    return await Pipeline.open(database(url), "test", _STATEMENTS)


def database(url: str) -> Database:
    """Returns a database of which only the parameters of connections are used."""
    return Database(url, DatabaseSettings(lock_timeout_seconds=0.2), name="test")


async def divide(pipeline: Pipeline, dividend: int, divisor: int) -> list[int]:
    """Returns the result of a division by PostgreSQL, as rows."""
    reply = pipeline.send(_DIVIDE, [integer(dividend)[4:], integer(divisor)[4:]])
    await pipeline.flush()
    await pipeline.receive()
    return reply.rows


def send_texts(pipeline: Pipeline, texts: list[str]) -> Reply[list[str]]:
    """Sends texts that PostgreSQL returns."""
    return pipeline.send(_ECHO, [array(Type.TEXT, texts_with_length(texts))])


async def test_statements_of_one_round_trip_have_separate_results(pipeline: Pipeline) -> None:
    replies = [pipeline.send(_DIVIDE, [integer(n)[4:], integer(2)[4:]]) for n in (2, 4, 6)]
    await pipeline.flush()
    await pipeline.receive()
    assert [reply.rows for reply in replies] == [[1], [2], [3]]


async def test_first_error_of_round_trip_is_raised(pipeline: Pipeline) -> None:
    pipeline.send(_DIVIDE, [integer(1)[4:], integer(0)[4:]])
    pipeline.command("COMMIT")
    await pipeline.flush(end=True)
    with pytest.raises(psycopg.errors.DivisionByZero) as error:
        await pipeline.receive_end()
    assert isinstance(failure_of(error.value), StatementError)
    assert failure_of(ValueError()) is None


async def test_lock_timeout_is_overloaded(pipeline: Pipeline, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as other:
        await other.execute("SELECT pg_advisory_xact_lock(42)")
        pipeline.send(_LOCK)
        await pipeline.flush()
        with pytest.raises(psycopg.errors.LockNotAvailable) as error:
            await pipeline.receive()
        assert isinstance(failure_of(error.value), Overloaded)


# Large statements ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("statements", "texts"), [(4, 8), (40, 1)])
async def test_parameters_beyond_socket_buffers_are_sent(pipeline: Pipeline, statements: int, texts: int) -> None:
    await _echo_megabytes(pipeline, statements, texts)


async def _echo_megabytes(pipeline: Pipeline, statements: int, texts: int) -> None:
    """Fills both directions: the server stops to read until its responses are read, while more is to be sent."""
    sent = ["x" * 1_000_000] * texts
    async with asyncio.timeout(60):
        replies = [send_texts(pipeline, sent) for _ in range(statements)]
        await pipeline.flush()
        await pipeline.receive()
    assert all(reply.rows == [sent] for reply in replies)
    assert await divide(pipeline, 4, 2) == [2]


# Lost servers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["sending", "receiving"])
@pytest.mark.parametrize("way", ["terminated", "closed", "silent"])
async def test_lost_connection_is_reported(pipeline: Pipeline, database_url: str, way: str, stage: str) -> None:
    await _lose(pipeline, database_url, way, stage)


async def _lose(pipeline: Pipeline, database_url: str, way: str, stage: str) -> None:
    pipeline.command("SELECT pg_sleep(20)")  # until its end the server reads nothing else
    await pipeline.flush()
    await until(lambda: _is_asleep(database_url))
    if stage == "sending":
        send_texts(pipeline, ["x" * 1_000_000] * 8)
    waiting = asyncio.create_task(_finish(pipeline))
    await asyncio.sleep(0)
    assert not pipeline.is_lost
    socket = pipeline._libpq.socket  # pyright: ignore[reportPrivateUsage]
    if way == "terminated":
        await terminate(database_url, "xzepr test test")
    elif way == "closed":
        pipeline.close()
        assert not asyncio.get_running_loop().remove_writer(socket), "its number can be used again"
    else:
        pipeline.limit(0.1)
    async with asyncio.timeout(20):
        with pytest.raises(psycopg.OperationalError) as error:
            await waiting
    assert isinstance(failure_of(error.value), ConnectionLost)
    with pytest.raises(psycopg.OperationalError):
        await divide(pipeline, 4, 2)


async def _finish(pipeline: Pipeline) -> None:
    await pipeline.flush()
    await pipeline.receive()


async def _is_asleep(database_url: str) -> bool:
    rows = await execute(
        database_url,
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'xzepr test test' AND wait_event = 'PgSleep'",
    )
    return len(rows) == 1


async def test_large_statement_on_lost_connection_fails(pipeline: Pipeline) -> None:
    pipeline.command("SELECT pg_sleep(20)")
    pipeline.limit(0.01)
    await pipeline.flush()
    with pytest.raises(psycopg.OperationalError, match="no response in time"):
        await pipeline.receive()
    assert pipeline.is_lost
    send_texts(pipeline, ["x" * 1_000_000] * 8)
    with pytest.raises(psycopg.OperationalError, match="no response in time"):
        await pipeline.flush()
    socket = pipeline._libpq.socket  # pyright: ignore[reportPrivateUsage]
    assert not asyncio.get_running_loop().remove_writer(socket)


async def test_loss_of_idle_connection_is_noticed(pipeline: Pipeline, database_url: str) -> None:
    assert await divide(pipeline, 4, 2) == [2]
    assert not pipeline.is_lost
    await terminate(database_url, "xzepr test test")
    await until(lambda: pipeline.is_lost)
    with pytest.raises(psycopg.OperationalError) as error:
        await divide(pipeline, 4, 2)
    assert isinstance(failure_of(error.value), ConnectionLost)


async def test_responses_before_the_loss_are_received(pipeline: Pipeline) -> None:
    reply = pipeline.send(_DIVIDE, [integer(4)[4:], integer(2)[4:]])
    pipeline.command("SELECT pg_terminate_backend(pg_backend_pid())")
    await pipeline.flush()
    with pytest.raises(psycopg.errors.AdminShutdown) as error:
        await pipeline.receive()
    assert reply.rows == [2]
    assert isinstance(failure_of(error.value), ConnectionLost)


async def test_silent_server_is_lost_at_the_deadline(database_url: str) -> None:
    async with silent_proxy(database_url) as (url, proxy):
        pipeline = await open_pipeline(url)
        assert proxy.silence("xzepr test test") == 1
        pipeline.limit(0.2)
        with pytest.raises(psycopg.OperationalError, match="no response in time") as error:
            await divide(pipeline, 4, 2)
        assert isinstance(failure_of(error.value), ConnectionLost)
        pipeline.close()


async def test_removed_limits_have_no_effect(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xzepr.infra.pipeline._SETUP_TIMEOUT_SECONDS", 0.5)
    pipeline = await open_pipeline(database_url)
    pipeline_with_limits = await open_pipeline(database_url)
    pipeline_with_limits.limit(0.1)
    pipeline_with_limits.limit(0.2)
    pipeline_with_limits.unlimit()
    await asyncio.sleep(0.6)
    for each in (pipeline, pipeline_with_limits):
        assert not each.is_lost
        assert await divide(each, 4, 2) == [2]
        each.close()


async def test_cancelled_wait_leaves_connection_to_be_closed(pipeline: Pipeline, database_url: str) -> None:
    pipeline.command("SELECT pg_sleep(20)")
    await pipeline.flush()
    waiting = asyncio.create_task(pipeline.receive())
    await until(lambda: _is_asleep(database_url))
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert not pipeline.is_lost
    pipeline.close()
    pipeline.close()
    assert pipeline.is_lost


# Opening -------------------------------------------------------------------------------------------


async def test_failed_preparation_closes_the_connection(database_url: str) -> None:
    broken = Statement(b"broken", "SELECT * FROM no_such_table", tuple[object])
    with pytest.raises(psycopg.errors.UndefinedTable):
        await Pipeline.open(database(database_url), "test", [broken])
    await until(lambda: _has_no_session(database_url))


async def _has_no_session(database_url: str) -> bool:
    sessions = "SELECT pid FROM pg_stat_activity WHERE application_name = 'xzepr test test'"
    return await execute(database_url, sessions) == []


async def test_plans_use_indexes_and_transactions_are_limited(pipeline: Pipeline, database_url: str) -> None:
    setting = Statement(b"setting", "SELECT current_setting($1::text, true)", str)
    with psycopg.connect(database_url) as connection:
        limited = connection.info.server_version >= 17_00_00
    other = await Pipeline.open(database(database_url), "test", [setting])
    replies = [other.send(setting, [name]) for name in (b"enable_seqscan", b"jit", b"transaction_timeout")]
    await other.flush()
    await other.receive()
    assert [reply.rows for reply in replies[:2]] == [["off"], ["off"]]
    assert replies[2].rows == ["30200ms"] or not limited
    other.close()


def test_pipeline_runs_under_uvloop(database_url: str) -> None:
    async def check() -> None:
        pipeline = await open_pipeline(database_url)
        await _echo_megabytes(pipeline, 4, 8)
        pipeline.close()
        for way in ("terminated", "closed", "silent"):
            for stage in ("sending", "receiving"):
                pipeline = await open_pipeline(database_url)
                await _lose(pipeline, database_url, way, stage)
                pipeline.close()
                await terminate(database_url, "xzepr test test")  # a session that still sleeps

    uvloop.run(check())
