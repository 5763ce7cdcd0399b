"""Creates beside subscribers that read nothing, that catch up from the history, and that are live."""

import re
import tempfile
import time
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import orjson
import psycopg

from tests.bench import environment
from tests.bench.client import CREATE, EVENT, Client
from tests.bench.load import Measured, Target, press
from tests.support.many_subscribers import many_subscribers
from xzepr.infra.embedded import EmbeddedPostgres

MESSAGES = 30_000
FEW, MANY = 9, 1_000
CONNECTIONS = 8
SECONDS = 4.0
FILLING_SECONDS = 10.0  # until the buffers of subscribers that do not read are full
SETTINGS = {
    "XZEPR__STREAM__MAX_SUBSCRIPTIONS_PER_ACTOR": "2000",
    "XZEPR__STREAM__MAX_CONNECTIONS_PER_ACTOR": "2000",
    "XZEPR__STREAM__STALLED_SECONDS": "3600",
    "XZEPR__JWT__ACCESS_TOKEN_EXPIRATION": "3600",
}
_CREATE_MANY = "mutation($input:CreateEventsInput!){createEvents(input:$input){results{problems{message}}}}"


def measure(server: EmbeddedPostgres) -> list[list[str]]:
    """Returns rows of subscribers, p50, p99, their ratios to those without subscribers, MiB, and history connections.

    Percentiles are those of the creates in milliseconds. MiB is the hub's resident memory.
    """
    url = environment.new_database(server, "slow")
    folder = Path(tempfile.mkdtemp(prefix="xzepr-bench-hub-"))
    with environment.hub(url, folder, **SETTINGS) as port:
        bench = _Bench(url, port)
        rows: dict[str, list[list[float]]] = {}
        for _ in range(environment.ROUNDS):
            for name, figures in bench.round():
                rows.setdefault(name, []).append(figures)
    return [_row(name, rounds, rows["none"]) for name, rounds in rows.items()]


def _row(name: str, rounds: list[list[float]], idle_rounds: list[list[float]]) -> list[str]:
    figures = [median(values) for values in zip(*rounds, strict=True)]
    idle = [median(values) for values in zip(*idle_rounds, strict=True)]
    percentiles = [f"{figures[0]:.1f}", f"{figures[1]:.1f}"]
    ratios = [f"{figures[0] / idle[0]:.2f}", f"{figures[1] / idle[1]:.2f}"]
    connections = max(values[3] for values in rounds)
    return [name, *percentiles, *ratios, f"{figures[2]:.0f}", f"{connections:.0f}"]


class _Bench:
    """A hub whose stream is three times as long as the ring."""

    def __init__(self, url: str, port: int) -> None:
        self._url = url
        self._port = port
        self._client = Client(port)
        self._receiver = self._client.gate()[0]
        self._fill()
        self._first: str = self._client.ask("{stream(first:1){cursor}}")["stream"]["cursor"]
        event = EVENT | {"eventReceiverId": self._receiver}
        self._target = Target(
            port,
            "/graphql",
            orjson.dumps({"query": CREATE, "variables": {"input": event}}),
            {"Content-Type": "application/json", "Authorization": f"Bearer {self._client.token}"},
        )

    def _fill(self) -> None:
        for batch in range(MESSAGES // 500):
            events = [EVENT | {"version": f"{batch}.{n}", "eventReceiverId": self._receiver} for n in range(500)]
            self._client.ask(_CREATE_MANY, input={"events": events})

    def round(self) -> Iterator[tuple[str, list[float]]]:
        """Yields the name of each case with its figures: p50, p99, MiB, connections."""
        yield "none", self._figures()
        with self._subscribers(1):
            yield "1 that reads nothing", self._figures()
        with self._subscribers(MANY):
            time.sleep(FILLING_SECONDS)
            yield f"{MANY:,} that read nothing", self._figures()
        for count in (FEW, MANY):
            with self._subscribers(count, reading=True):
                yield f"{count:,} that catch up", self._figures()
            with self._subscribers(count, reading=True, live=True):
                yield f"{count:,} that are live", self._figures()

    @contextmanager
    def _subscribers(self, count: int, *, reading: bool = False, live: bool = False) -> Generator[None]:
        after = None if live else self._first
        with many_subscribers(self._port, self._client.token, after, count, reading=reading):
            yield
        time.sleep(1)

    def _figures(self) -> list[float]:
        measured: Measured = press(self._target, CONNECTIONS, SECONDS)
        assert not measured.failures
        return [measured.percentile(50), measured.percentile(99), self._memory(), self._connections()]

    def _memory(self) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics") as response:
            sample = re.search(r"process_resident_memory_bytes ([\d.e+]+)", response.read().decode())
        assert sample
        return float(sample[1]) / 2**20

    def _connections(self) -> int:
        with psycopg.connect(self._url) as connection:
            rows = connection.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name LIKE 'xzepr % bulk'"
            ).fetchone()
        assert rows
        return int(rows[0])
