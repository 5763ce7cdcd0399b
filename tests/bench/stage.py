"""Servers on copies of one filled database, each started when it is first used."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import psycopg

from tests.bench import cases
from tests.bench.contest import Contestant, Stored
from tests.bench.environment import Served
from tests.bench.load import Target
from tests.bench.session import FILLED, Session
from tests.support.kafka import free_port

_HAND = {"hand": "single", "hand_group": "group"}  # the variant of each hand-written server


@dataclass(slots=True)
class Stage:
    """The hub with one and with two workers, and the hand-written servers."""

    _session: Session
    _stack: ExitStack
    _urls: dict[str, str] = field(default_factory=dict[str, str])
    _served: dict[str, Served] = field(default_factory=dict[str, Served])

    @property
    def databases(self) -> list[str]:
        """The names of the databases in use."""
        return list(self._urls)

    def contestant(self, server: str, case: str) -> Contestant:
        """Returns a server with the requests of a case."""
        served = self._serve(server)
        holdings = self._session.holdings
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {holdings.key}"}
        values = holdings.ids if case == "event" else ()
        target = Target(served.port, "/graphql", cases.body(case, holdings.receivers), headers, values)
        stored = stored_by(self.url(server), server in _HAND) if case in ("create", "batches") else None
        return Contestant(server, target, served.process, stored, cases.BATCH if case == "batches" else 1)

    def url(self, server: str) -> str:
        """Returns the URL of a server's database. The hand-written servers share one."""
        name = "hand" if server in _HAND else server
        if name not in self._urls:
            self._urls[name] = self._session.environment.database(name, FILLED)
        return self._urls[name]

    def _serve(self, server: str) -> Served:
        if server not in self._served:
            environment, url = self._session.environment, self.url(server)
            if server in _HAND:
                port = free_port()
                program = ["tests.bench.hand", _HAND[server], str(port), url]
                running = environment.child(program, port, "/", {})
            else:
                running = environment.hub(url, *(["--workers", "2"] if server == "hub_2" else []))
            self._served[server] = self._stack.enter_context(running)
        return self._served[server]


@contextmanager
def stage(session: Session) -> Generator[Stage]:
    """All servers end with the block, and their databases are dropped."""
    with ExitStack() as stack:
        running = Stage(session, stack)
        yield running
    for name in running.databases:
        session.environment.drop(name)


def stored_by(url: str, by_hand: bool = False) -> Stored:
    """Returns a function that counts the events in a database."""
    # Positions of a hub have no gaps, and no other messages are written here.
    query = "SELECT count(*) FROM hand.events" if by_hand else "SELECT coalesce(max(position), 0) FROM events"

    def count() -> int:
        with psycopg.connect(url) as connection:
            row = connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])

    return count
