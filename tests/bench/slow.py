"""Creates beside subscribers that do not read, that catch up from behind the ring, and that follow live."""

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

from tests.bench import stage
from tests.bench.client import CREATE, EVENT, Client
from tests.bench.load import Measured, Target, press
from tests.support.many_subscribers import many_subscribers
from xzepr.infra.embedded import EmbeddedPostgres

MESSAGES = 30_000
FEW, MANY = 9, 1_000
CONNECTIONS = 8
SECONDS = 4.0
FILLING_SECONDS = 10.0
"""After which the buffers of those who do not read are full."""
SETTINGS = {
    "XZEPR__STREAM__MAX_SUBSCRIPTIONS_PER_ACTOR": "2000",
    "XZEPR__STREAM__MAX_CONNECTIONS_PER_ACTOR": "2000",
    "XZEPR__STREAM__STALLED_SECONDS": "3600",
    "XZEPR__JWT__ACCESS_TOKEN_EXPIRATION": "3600",
}
_CREATE_MANY = "mutation($input:CreateEventsInput!){createEvents(input:$input){results{problems{message}}}}"


def measure(server: EmbeddedPostgres) -> list[list[str]]:
    """Rows of what is beside the creates, their p50 and p99 in milliseconds and as multiples of those beside nobody,
    the hub's memory, and the most connections through which it reads the past."""
    url = stage.new_database(server, "slow")
    folder = Path(tempfile.mkdtemp(prefix="xzepr-bench-hub-"))
    with stage.hub(url, folder, **SETTINGS) as port:
        bench = _Bench(url, port)
        rows: dict[str, list[list[float]]] = {}
        for _ in range(stage.ROUNDS):
            for name, figures in bench.round():
                rows.setdefault(name, []).append(figures)
    return [_row(name, many, rows["nobody"]) for name, many in rows.items()]


def _row(name: str, many: list[list[float]], quiet: list[list[float]]) -> list[str]:
    figures, without = (
        [median(one) for one in zip(*many, strict=True)],
        [median(one) for one in zip(*quiet, strict=True)],
    )
    shown = [f"{figures[0]:.1f}", f"{figures[1]:.1f}"]
    ratios = [f"{figures[0] / without[0]:.2f}", f"{figures[1] / without[1]:.2f}"]
    return [name, *shown, *ratios, f"{figures[2]:.0f}", f"{max(one[3] for one in many):.0f}"]


class _Bench:
    """A hub with a stream that is three rings long."""

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
        """Names and figures: p50, p99, MiB, connections."""
        yield "nobody", self._figures()
        with self._crowd(1):
            yield "1 that reads nothing", self._figures()
        with self._crowd(MANY):
            time.sleep(FILLING_SECONDS)
            yield f"{MANY:,} that read nothing", self._figures()
        for count in (FEW, MANY):
            with self._crowd(count, reading=True):
                yield f"{count:,} that catch up", self._figures()
            with self._crowd(count, reading=True, live=True):
                yield f"{count:,} that follow", self._figures()

    @contextmanager
    def _crowd(self, count: int, *, reading: bool = False, live: bool = False) -> Generator[None]:
        after = None if live else self._first
        with many_subscribers(self._port, self._client.token, after, count, reading=reading):
            yield
        time.sleep(1)

    def _figures(self) -> list[float]:
        measured: Measured = press(self._target, CONNECTIONS, SECONDS)
        assert not measured.failures
        return [measured.percentile(50), measured.percentile(99), self._memory(), self._connections()]

    def _memory(self) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics") as answer:
            found = re.search(r"process_resident_memory_bytes ([\d.e+]+)", answer.read().decode())
        assert found
        return float(found[1]) / 2**20

    def _connections(self) -> int:
        with psycopg.connect(self._url) as connection:
            rows = connection.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name LIKE 'xzepr % apart'"
            ).fetchone()
        assert rows
        return int(rows[0])
