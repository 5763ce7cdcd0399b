"""The hub's processes: each reports its status to the database once a second, and administrators list them."""

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

# Roles of processes.
SERVE = "serve"  # the only serving process of its command
WORKER = "worker"  # one of several processes that serve on one port
WORK = "work"  # relays, and serves no requests

_REMOVE_AFTER_SECONDS = 60.0  # without a report
_REPORT_TIMEOUT_SECONDS = 5.0
_REMOVE_TIMEOUT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a consumer of the stream has got."""

    position: int
    lag: int
    """Number of messages after that position."""
    lag_seconds: float
    """Age of the oldest message after that position; 0 if there is none."""


@dataclass(frozen=True, slots=True)
class Clients:
    """Counts of the clients that are connected to a process."""

    websockets: int = 0
    event_streams: int = 0
    subscriptions: int = 0


@dataclass(frozen=True, slots=True)
class ProcessRelay:
    """The state of a process's relay."""

    route: str
    state: RelayState
    leads: bool
    """Whether this process is the route's leader."""


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """A process according to its last report."""

    id: str
    host: str
    pid: int
    role: str
    version: str
    started_at: datetime
    seen_at: datetime
    silent_seconds: float
    """Seconds since the last report."""
    feed: Progress | None
    """None until the process knows the head of the stream."""
    slowest_subscriber: Progress | None
    clients: Clients
    recorder_queue: int
    """Events that wait to be recorded."""
    relay: ProcessRelay | None


@dataclass(frozen=True, slots=True)
class Lags:
    """How far consumers are behind the stream, as one process measured it."""

    feed: Progress | None = None
    slowest_subscriber: Progress | None = None
    relay: Progress | None = None
    """Lag of the route that this process would lead; None if no process ever led it and none has brokers."""
    dead_letters: int = 0
    """Messages of that route that the brokers rejected and that were not dropped."""


class ThisProcess:
    """This process: its id, and the lags that it last measured."""

    def __init__(self) -> None:
        self.id = new_id()
        self.clients: Callable[[], Clients] = Clients
        """Returns the current counts of clients; the application replaces it."""
        self.lags = Lags()
        """The lags at the time of the last report."""
        self._started_at = time.monotonic()

    async def report(
        self,
        db: Database,
        role: str,
        *,
        feed_position: int | None,
        slowest_position: int | None,
        relay: RelayStatus | None,
        recorder_queue: int,
    ) -> None:
        """Writes a report of this process to the database and refreshes `lags`.

        `slowest_position` is that of the slowest subscriber, None if there is none. `relay` is None if this process
        neither relays nor has brokers. Raises Problem or TimeoutError if the database does not accept the report within
        5 seconds; nothing depends on a single report.
        """
        async with asyncio.timeout(_REPORT_TIMEOUT_SECONDS), db.read() as connection:
            clients = self.clients()
            report = ProcessReport(
                id=self.id,
                host=platform.node(),
                pid=os.getpid(),
                role=role,
                version=__version__,
                up_seconds=time.monotonic() - self._started_at,  # measured now, after waiting for a connection
                feed_position=feed_position,
                slowest_position=slowest_position,
                relay_route=relay and relay.route,
                relay_state=relay and relay.state.value,
                relay_leads=relay is not None and relay.leads,
                relay_position=relay.position if relay is not None and relay.leads else None,
                websockets=clients.websockets,
                event_streams=clients.event_streams,
                subscriptions=clients.subscriptions,
                recorder_queue=recorder_queue,
            )
            row = await process_store.save_report(connection, report)
            lags = await routes.lags(connection)
        lag = next((lag for lag in lags if lag.route == report.relay_route), None)
        if lag is None:
            self.lags = Lags(_feed(row), _slowest(row))
        else:
            progress = Progress(lag.position, lag.lag, lag.lag_seconds)
            self.lags = Lags(_feed(row), _slowest(row), progress, lag.dead_letters)

    async def remove_report(self, db: Database) -> None:
        """Removes the report, because this process ends. Raises Problem or TimeoutError, as `report` does."""
        async with asyncio.timeout(_REMOVE_TIMEOUT_SECONDS), db.read() as connection:
            await process_store.remove(connection, self.id)


async def statuses(db: Database, actor: Actor) -> list[ProcessStatus]:
    """Returns the running processes of the hub, oldest first. Needs stream:admin."""
    actor.must(Permission.STREAM_ADMIN)
    async with db.read() as connection:
        rows = await process_store.rows(connection, LEADER_SILENT_SECONDS)
    return [_status(row) for row in rows]


async def remove_silent(db: Database) -> None:
    """Removes the reports of processes that ended without removing their own."""
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
