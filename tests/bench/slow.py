"""Creates beside subscribers that read nothing, that catch up from the history, and that are live."""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import psycopg

from tests.bench.client import Client, create_target
from tests.bench.environment import Served
from tests.bench.load import press
from tests.bench.processors import resident_kib
from tests.bench.session import PREPARED, Holdings, Session
from tests.support.many_subscribers import many_subscribers

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


def measure(session: Session) -> None:
    """Measures creates beside each kind of subscriber in each round.

    Percentiles are those of the creates in milliseconds, `…_idle` their ratios to those without subscribers. `mib` is
    the hub's resident memory. `connections` are those to the database that read the history.
    """
    url = session.environment.database("slow", PREPARED)
    with session.environment.hub(url, **SETTINGS) as hub:
        bench = _Bench(url, hub, session.holdings)
        for round in session.rounds:
            idle: dict[str, float] = {}
            for name, figures in bench.round():
                idle = idle or figures
                relative = {f"{each}_idle": figures[each] / idle[each] for each in ("p50", "p99")}
                session.record("slow", name, round, figures | relative)
    session.environment.drop("slow")


class _Bench:
    """A hub whose stream is three times as long as the ring."""

    def __init__(self, url: str, hub: Served, holdings: Holdings) -> None:
        self._url = url
        self._hub = hub
        self._client = Client(hub.port)
        receivers = holdings.receivers[:1]
        for _ in self._client.record(receivers, MESSAGES):
            pass
        self._first: str = self._client.ask("{stream(first:1){cursor}}")["stream"]["cursor"]
        self._target = create_target(hub.port, holdings.key, receivers[0])

    def round(self) -> Iterator[tuple[str, dict[str, float]]]:
        """Yields the name of each case with its figures."""
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
        with many_subscribers(self._hub.port, self._client.token, after, count, reading=reading):
            yield
        time.sleep(1)

    def _figures(self) -> dict[str, float]:
        measured = press(self._target, CONNECTIONS, SECONDS)
        assert not measured.failures
        mib = resident_kib(self._hub.process) / 1024
        return {"p50": measured.p50, "p99": measured.p99, "mib": mib, "connections": self._connections()}

    def _connections(self) -> int:
        with psycopg.connect(self._url) as connection:
            rows = connection.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name LIKE 'xzepr % bulk'"
            ).fetchone()
        assert rows
        return int(rows[0])
