"""A run in progress: its options, its environment, and what has been measured so far."""

import itertools
import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from tests.bench import hand
from tests.bench.client import Client
from tests.bench.environment import Environment
from tests.bench.load import NUMBERS
from tests.bench.table.figures import Measurement

PREPARED, FILLED = "prepared", "filled"  # databases to copy: with receivers and gates; and with events
GATES = 10
_SAMPLE = 1000  # ids that are requested in turn


@dataclass(frozen=True, slots=True)
class Options:
    """The size of a run."""

    rounds: int = 5
    seconds: float = 4.0
    warm_up_seconds: float = 1.0
    events: int = 50_000
    """Events in the databases that are read from."""
    history: int = 5_000_000
    subscribers: int = 1_000
    peers: Path | None = None
    """The folder of the peers; None leaves them out."""
    quick: bool = False


QUICK = Options(rounds=2, seconds=0.8, warm_up_seconds=0.25, events=5_000, history=100_000, quick=True)


@dataclass(frozen=True, slots=True)
class Holdings:
    """Objects in the prepared databases."""

    key: str
    """The secret of an administrator's API key."""
    receivers: list[str]
    ids: tuple[str, ...]
    """Ids of some events, in random order."""


@dataclass(slots=True)
class Session:
    """A run in progress."""

    environment: Environment
    options: Options
    holdings: Holdings
    measurements: list[Measurement] = field(default_factory=list[Measurement])
    notes: dict[str, str] = field(default_factory=dict[str, str])
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(NUMBERS, NUMBERS))
    """The first number of each load, so that no two create events of the same unit."""

    @property
    def rounds(self) -> range:
        """The numbers of the rounds."""
        return range(1, self.options.rounds + 1)

    def record(self, case: str, server: str, round: int, figures: Mapping[str, float]) -> None:
        """Keeps a measurement and reports it."""
        self.measurements.append(Measurement(case, server, round, dict(figures)))
        shown = "  ".join(f"{name} {value:,.6g}" for name, value in figures.items())
        print(f"{round} {case:14s} {server:14s} {shown}", file=sys.stderr, flush=True)


def prepare(environment: Environment, events: int) -> Holdings:
    """Creates the databases that all measurements copy."""
    with environment.hub(environment.database(PREPARED)) as hub:
        client = Client(hub.port)
        receivers, key = client.gates(GATES), client.api_key()
    url = environment.database(FILLED, PREPARED)
    with environment.hub(url) as hub:
        ids = list(Client(hub.port).record(receivers, events))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(hand.TABLES)
        connection.execute("VACUUM (ANALYZE)")
    return Holdings(key, receivers, tuple(random.Random(1).sample(ids, min(_SAMPLE, len(ids)))))
