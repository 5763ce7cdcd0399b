"""Values that are sent in PostgreSQL's binary form arrive as they were sent."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from xzepr.core.ids import texts_with_length, with_length
from xzepr.infra.binary import FALSE, NULL, TRUE, Type, array, bigint, integer, timestamp
from xzepr.infra.db import Database
from xzepr.infra.pipeline import Pipeline, Statement
from xzepr.settings import DatabaseSettings


def _row(*columns: Any) -> tuple[Any, ...]:
    return columns


_ARRAYS: Statement[tuple[Any, ...]] = Statement(
    b"arrays",
    "SELECT $1::text[], $2::bytea[], $3::boolean[], $4::bigint[], $5::integer[], $6::timestamptz[], $7::json[]::text[]",
    _row,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
ROWS = st.tuples(
    TEXT,
    st.binary(),
    st.booleans(),
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.integers(-(2**31), 2**31 - 1),
    st.none() | st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001 the zone is added
)


def test_binary_arrays_are_received_as_sent(database_url: str) -> None:
    db = Database(database_url, DatabaseSettings(), name="test")
    with asyncio.Runner() as runner:  # Hypothesis has no examples for asynchronous tests
        pipeline = runner.run(Pipeline.open(db, "test", [_ARRAYS]))

        @given(rows=st.lists(ROWS, max_size=5))
        def check(rows: list[tuple[Any, ...]]) -> None:
            columns: list[list[Any]] = [[row[n] for row in rows] for n in range(6)]
            [received] = runner.run(_echoed(pipeline, columns))
            assert received == (*columns, ['{"a": [1]}'] * len(rows))

        check()
        pipeline.close()


async def _echoed(pipeline: Pipeline, columns: list[list[Any]]) -> list[tuple[Any, ...]]:
    texts, binaries, booleans, bigints, integers, times = columns
    parameters = [
        array(Type.TEXT, texts_with_length(texts)),
        array(Type.BYTEA, [with_length(value) for value in binaries]),
        array(Type.BOOLEAN, [TRUE if value else FALSE for value in booleans]),
        array(Type.BIGINT, [NULL if value is None else bigint(value) for value in bigints]),
        array(Type.INTEGER, [integer(value) for value in integers]),
        array(Type.TIMESTAMPTZ, [NULL if value is None else timestamp(value) for value in times]),
        array(Type.JSON, [with_length(b'{"a": [1]}') for _ in texts]),
    ]
    reply = pipeline.send(_ARRAYS, parameters)
    await pipeline.flush(end=True)
    await pipeline.receive_end()
    return reply.rows
