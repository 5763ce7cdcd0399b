"""`createEvents` with 500 events, compared with COPY of the same rows into the same tables."""

import tempfile
import time
from pathlib import Path
from statistics import median

import psycopg

from tests.bench import environment
from tests.bench.client import EVENT, Client
from xzepr.infra.embedded import EmbeddedPostgres

BATCHES = 20
SIZE = 500
_CREATE = "mutation($input:CreateEventsInput!){createEvents(input:$input){results{recorded{cursor} problems{message}}}}"


def measure(server: EmbeddedPostgres) -> list[list[str]]:
    """Returns rows of name, events/s, and the ratio to COPY."""
    url, copied = environment.new_database(server, "batches"), environment.new_database(server, "batches_copy")
    folder = Path(tempfile.mkdtemp(prefix="xzepr-bench-hub-"))
    created: list[float] = []
    copies: list[float] = []
    with environment.hub(url, folder) as port, psycopg.connect(copied, autocommit=True) as target:
        client = Client(port)
        receiver = client.gate()[0]
        for number in range(environment.ROUNDS):
            created.append(_create(client, receiver, number))
            copies.append(_copy(url, target))
    hub, copy = median(created), median(copies)
    return [
        ["createEvents of 500, one client", f"{hub:,.0f}", f"{hub / copy:.2f}"],
        ["COPY of the same rows, 500 per transaction", f"{copy:,.0f}", "1.00"],
    ]


def _create(client: Client, receiver: str, number: int) -> float:
    began = time.perf_counter()
    for batch in range(BATCHES):
        events = [EVENT | {"version": f"{number}.{batch}.{item}", "eventReceiverId": receiver} for item in range(SIZE)]
        results = client.ask(_CREATE, input={"events": events})["createEvents"]["results"]
        assert len(results) == SIZE
        assert not any(result["problems"] for result in results)
    return BATCHES * SIZE / (time.perf_counter() - began)


def _copy(url: str, target: "psycopg.Connection[tuple[object, ...]]") -> float:
    """Copies the newest events with their messages and states, as the hub wrote them. Returns events per second."""
    tables = ("events", "messages", "unit_status")
    rows: dict[str, list[tuple[object, ...]]] = {}
    with psycopg.connect(url) as source:
        for table, order in zip(tables, ("position", "event_position", "position"), strict=True):
            query = f"SELECT * FROM {table} ORDER BY {order} DESC NULLS LAST LIMIT {BATCHES * SIZE}"
            with source.cursor().copy(f"COPY ({query}) TO STDOUT") as copy:  # pyright: ignore[reportArgumentType]
                rows[table] = [(bytes(line),) for line in copy]
    began = time.perf_counter()
    for batch in range(BATCHES):
        with target.transaction():
            for table in tables:
                with target.cursor().copy(f"COPY {table} FROM STDIN") as copy:  # pyright: ignore[reportArgumentType]
                    for (line,) in rows[table][batch * SIZE : (batch + 1) * SIZE]:
                        copy.write(line)  # pyright: ignore[reportArgumentType]
    took = time.perf_counter() - began
    target.execute("TRUNCATE events, unit_status, messages")
    return BATCHES * SIZE / took
