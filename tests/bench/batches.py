"""`createEvents` of 500 on four connections, compared with COPY of the same rows into the same tables."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from tests.bench.cases import BATCH
from tests.bench.contest import measure as load
from tests.bench.session import FILLED, Session
from tests.bench.stage import stage

CONNECTIONS = 4
MIN_SECONDS = 2.0  # for enough requests also in a quick run
_MAX_EVENTS = 50_000  # copied in one round
_COPIED = "batches_copy"
# For each table the rows of the events at some positions, in the order in which the hub wrote them.
_ROWS: dict[LiteralString, LiteralString] = {
    "events": "SELECT * FROM events WHERE position BETWEEN {first} AND {last} ORDER BY position",
    "messages": "SELECT * FROM messages WHERE position BETWEEN {first} AND {last} ORDER BY position",
    "unit_status": "SELECT * FROM unit_status WHERE position BETWEEN {first} AND {last} ORDER BY position",
}
Rows = dict[LiteralString, list[bytes]]


def measure(session: Session) -> None:
    """Measures the hub and COPY in each round, in events per second."""
    target = session.environment.database(_COPIED, FILLED)
    try:
        with stage(session) as running:
            contestant = running.contestant("hub", "batches")
            assert contestant.stored
            for round in session.rounds:
                first = contestant.stored() + 1
                session.record("batches", "hub", round, load(session, "batches", contestant, CONNECTIONS, MIN_SECONDS))
                rows = _read(running.url("hub"), first, contestant.stored())
                session.record("batches", "copy", round, {"rate": _copy(target, rows)})
    finally:
        session.environment.drop(_COPIED)


def _read(url: str, first: int, last: int) -> Rows:
    """Returns the lines of COPY for the newest events between two positions."""
    first = max(first, last - _MAX_EVENTS + 1)
    rows: Rows = {}
    with psycopg.connect(url) as connection:
        for table, query in _ROWS.items():
            statement = sql.SQL("COPY (" + query + ") TO STDOUT").format(first=first, last=last)
            with connection.cursor().copy(statement) as copy:
                rows[table] = [bytes(line) for line in copy]
    counts = {table: len(lines) for table, lines in rows.items()}
    assert set(counts.values()) == {last - first + 1}, counts
    return rows


def _copy(url: str, rows: Rows) -> float:
    """Copies the rows, 500 events in a transaction, on all connections. Returns events per second."""
    count = len(rows["events"]) // BATCH * BATCH
    shares = [range(0, count, BATCH)[number::CONNECTIONS] for number in range(CONNECTIONS)]
    with ExitStack() as stack:
        connections = [stack.enter_context(psycopg.connect(url, autocommit=True)) for _ in shares]
        threads = stack.enter_context(ThreadPoolExecutor(CONNECTIONS))
        began = time.perf_counter()
        for copied in [threads.submit(_copy_share, *pair, rows) for pair in zip(connections, shares, strict=True)]:
            copied.result()
        return count / (time.perf_counter() - began)


def _copy_share(connection: "psycopg.Connection[Any]", starts: Sequence[int], rows: Rows) -> None:
    for start in starts:
        with connection.transaction():
            for table, lines in rows.items():
                statement = sql.SQL("COPY {} FROM STDIN").format(sql.Identifier(table))
                with connection.cursor().copy(statement) as copy:
                    copy.write(b"".join(lines[start : start + BATCH]))
