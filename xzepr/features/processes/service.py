"""The processes of a hub as administrators see them: each describes itself in the database once a second."""

import asyncio
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from xzepr import __version__
from xzepr.core.actor import Actor, Permission
from xzepr.core.ids import new_id
from xzepr.features.processes import store as process_store
from xzepr.features.processes.store import ProcessReport, ProcessRow
from xzepr.features.relay import service as routes
from xzepr.features.relay.model import LEADER_SILENT_SECONDS, RelayState, RelayStatus
from xzepr.infra.db import Database

SERVE = "serve"
"""The role of a process that serves, and is the only one of its command."""
WORKER = "worker"
"""One of several that serve on one port."""
WORK = "work"
"""One that relays and serves nothing."""

_REMOVE_AFTER_SECONDS = 60.0
_DESCRIBE_TIMEOUT_SECONDS = 5.0
_LEAVE_TIMEOUT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far somebody who follows the stream is."""

    position: int
    lag: int
    """Messages after it."""
    lag_seconds: float
    """Age of the oldest of them; 0 when there is none."""


@dataclass(frozen=True, slots=True)
class Clients:
    """Who is connected to a process."""

    websockets: int = 0
    event_streams: int = 0
    subscriptions: int = 0


@dataclass(frozen=True, slots=True)
class ProcessRelay:
    """What a process's relay is doing."""

    route: str
    state: RelayState
    leads: bool
    """Whether it is the one that relays now."""


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """A process as it last described itself."""

    id: str
    host: str
    pid: int
    role: str
    version: str
    started_at: datetime
    seen_at: datetime
    silent_seconds: float
    """How long ago that was."""
    feed: Progress | None
    """None while it does not know the stream yet."""
    slowest_subscriber: Progress | None
    clients: Clients
    recorder_queue: int
    """Events that wait for their turn."""
    relay: ProcessRelay | None


@dataclass(frozen=True, slots=True)
class Lags:
    """How far behind things are, as one process measured it."""

    feed: Progress | None = None
    slowest_subscriber: Progress | None = None
    relay: Progress | None = None
    """Of the route that this process would lead, whoever leads it; None while none ever did and none has brokers."""
    dead_letters: int = 0
    """Messages of that route that the brokers refused and nobody has dropped."""


class ThisProcess:
    """The process that this is: what it is called, and what it last measured."""

    def __init__(self) -> None:
        self.id = new_id()
        self.clients: Callable[[], Clients] = Clients
        """Who is connected now; whoever takes connections says so."""
        self.lags = Lags()
        """As they were when it last described itself."""
        self._started_at = time.monotonic()

    async def describe(
        self, db: Database, role: str, *, feed: int | None, slowest: int | None, relay: RelayStatus | None, queue: int
    ) -> None:
        """Writes how things are here, and measures `lags`; positions are None where there is none, and `relay` is where
        this process neither relays nor knows brokers. Raises Problem or TimeoutError when the database does not take it
        within a few seconds: nothing depends on it."""
        async with asyncio.timeout(_DESCRIBE_TIMEOUT_SECONDS), db.read() as connection:
            clients = self.clients()
            report = ProcessReport(
                id=self.id,
                host=platform.node(),
                pid=os.getpid(),
                role=role,
                version=__version__,
                up_seconds=time.monotonic() - self._started_at,  # now: waiting for a connection is no part of it
                feed_position=feed,
                slowest_position=slowest,
                relay_route=relay and relay.route,
                relay_state=relay and relay.state.value,
                relay_leads=relay is not None and relay.leads,
                relay_position=relay.position if relay is not None and relay.leads else None,
                websockets=clients.websockets,
                event_streams=clients.event_streams,
                subscriptions=clients.subscriptions,
                recorder_queue=queue,
            )
            row = await process_store.describe(connection, report)
            lags = await routes.lags(connection)
        ours = next((one for one in lags if one.route == report.relay_route), None)
        if ours is None:
            self.lags = Lags(_feed(row), _slowest(row))
        else:
            progress = Progress(ours.position, ours.lag, ours.lag_seconds)
            self.lags = Lags(_feed(row), _slowest(row), progress, ours.dead_letters)

    async def leave(self, db: Database) -> None:
        """Removes what was written, because this process ends. Raises as `describe` does."""
        async with asyncio.timeout(_LEAVE_TIMEOUT_SECONDS), db.read() as connection:
            await process_store.remove(connection, self.id)


async def statuses(db: Database, actor: Actor) -> list[ProcessStatus]:
    """The processes of the hub that run, oldest first. Needs stream:admin."""
    actor.must(Permission.STREAM_ADMIN)
    async with db.read() as connection:
        rows = await process_store.rows(connection, LEADER_SILENT_SECONDS)
    return [_status(row) for row in rows]


async def remove_silent(db: Database) -> None:
    """Removes what processes have left that ended without saying so."""
    async with db.read() as connection:
        await process_store.remove_silent(connection, _REMOVE_AFTER_SECONDS)


def _feed(row: ProcessRow) -> Progress | None:
    return _progress(row, row.feed_position, row.feed_waiting_since)


def _slowest(row: ProcessRow) -> Progress | None:
    return _progress(row, row.slowest_position, row.slowest_waiting_since)


def _progress(row: ProcessRow, position: int | None, waiting_since: datetime | None) -> Progress | None:
    if position is None:
        return None
    seconds = 0.0 if waiting_since is None else (row.seen_at - waiting_since).total_seconds()
    return Progress(position, max(0, row.head_position - position), max(0.0, seconds))


def _status(row: ProcessRow) -> ProcessStatus:
    relay = None
    if row.relay_route is not None and row.relay_state is not None:
        relay = ProcessRelay(row.relay_route, RelayState(row.relay_state), row.relay_leads)
    return ProcessStatus(
        id=row.id,
        host=row.host,
        pid=row.pid,
        role=row.role,
        version=row.version,
        started_at=row.started_at,
        seen_at=row.seen_at,
        silent_seconds=row.silent_seconds,
        feed=_feed(row),
        slowest_subscriber=_slowest(row),
        clients=Clients(row.websockets, row.event_streams, row.subscriptions),
        recorder_queue=row.recorder_queue,
        relay=relay,
    )
