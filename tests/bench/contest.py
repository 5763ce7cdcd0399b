"""Loads servers one after the other, round by round, and checks that every request succeeded."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from tests.bench import cases, load, wrk
from tests.bench.load import LoadError, Measured, NoResponseError, Target
from tests.bench.processors import family_seconds, machine_seconds
from tests.bench.session import Session

CONNECTIONS = 64
_SETTLE_SECONDS = 0.2  # until the last requests of a load that has ended are committed
_SIZE_TOLERANCE = 0.002  # of the mean size of the responses

Stored = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Contestant:
    """A server, and the requests that it gets."""

    server: str
    target: Target
    process: int
    stored: Stored | None = None
    """Counts the events in the server's database; None if the requests create none."""
    events: int = 1
    """Events of one request."""


def contest(
    session: Session, case: str, contestants: Sequence[Contestant], connections: int = CONNECTIONS, name: str = ""
) -> None:
    """Measures all contestants in each round. Raises LoadError if a request fails. `name`: of the measurements."""
    for round in session.rounds:
        for contestant in contestants:
            session.record(name or case, contestant.server, round, measure(session, case, contestant, connections))


def load_generator() -> str:
    """Returns the name of the load generator."""
    return wrk.version() or "tests/bench/load.py"


def _press(session: Session, target: Target, connections: int, seconds: float) -> Measured:
    # The processor time of a warm-up must not count, so that it is a separate load.
    press = wrk.press if wrk.version() else partial(load.press, warm_up_seconds=0)
    return press(target, connections, seconds, next(session.numbers))


def measure(
    session: Session, case: str, contestant: Contestant, connections: int, min_seconds: float = 0
) -> dict[str, float]:
    """Returns the figures of one server in one round. Raises LoadError if a request fails."""
    target, options = contestant.target, session.options
    response, size = load.response_of(target, next(session.numbers))
    cases.check(case, response)
    with suppress(NoResponseError):
        _press(session, target, connections, options.warm_up_seconds)
    time.sleep(_SETTLE_SECONDS)
    stored = contestant.stored() if contestant.stored else 0
    processes = (os.getpid(), contestant.process, session.environment.postgres_process)
    began, before = time.perf_counter(), (machine_seconds(), *map(family_seconds, processes))
    measured = _press(session, target, connections, max(options.seconds, min_seconds))
    took, after = time.perf_counter() - began, (machine_seconds(), *map(family_seconds, processes))
    _check_failures(contestant, measured, size, connections)
    if contestant.stored:
        time.sleep(_SETTLE_SECONDS)
        _check_stored(contestant, measured, contestant.stored() - stored)
    machine, own, server, database = (end - start for start, end in zip(before, after, strict=True))
    events = measured.requests * contestant.events
    return {
        "rate": measured.rate * contestant.events,
        "p50": measured.p50,
        "p99": measured.p99,
        "each": 1000 / (measured.rate * contestant.events),
        "requests": measured.requests,
        "server_ms": server * 1000 / events,
        "database_ms": database * 1000 / events,
        "generator": measured.cpu_seconds / measured.seconds,
        "others": max(0.0, machine - own) / (took * (os.cpu_count() or 1)),
    }


def _check_failures(contestant: Contestant, measured: Measured, size: int, connections: int) -> None:
    """Raises LoadError if a response was an error: by its status or, for `wrk`, by the mean size of the responses."""
    if measured.failures:
        raise LoadError(f"{contestant.server}: {measured.failures} of {measured.requests} requests failed")
    expected = measured.requests * size
    partial = connections * size  # of responses that were cut off at the end
    tolerance = expected * _SIZE_TOLERANCE
    if not expected - tolerance <= measured.received_bytes <= expected + partial + tolerance:
        mean = measured.received_bytes / measured.requests
        raise LoadError(f"{contestant.server}: responses have {mean:.0f} bytes on average, the first had {size}")


def _check_stored(contestant: Contestant, measured: Measured, stored: int) -> None:
    if stored < measured.requests * contestant.events:
        lost = f"{stored} events are stored after {measured.requests} successful requests"
        raise LoadError(f"{contestant.server}: {lost} of {contestant.events}")
