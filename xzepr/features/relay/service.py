"""The service of routes: administrators see how far each route is, and resume a stopped one."""

from dataclasses import dataclass
from datetime import datetime

from xzepr.core.actor import Actor, Permission
from xzepr.core.errors import Conflict, InvalidInput, NotFound
from xzepr.core.ids import new_id
from xzepr.features.relay import store
from xzepr.features.relay.model import LEADER_SILENT_SECONDS, RelayState
from xzepr.features.relay.store import RouteLag, RouteRow
from xzepr.features.stream.reader import StreamReader
from xzepr.infra.db import Connection, Database

_NEVER_LED = "no process has led it yet: `xzepr work` does, or a server without --no-relay"


@dataclass(frozen=True, slots=True)
class RouteStatus:
    """A route as its leader last reported it to the database, up to a second ago."""

    route: str
    state: RelayState
    detail: str
    since: datetime
    published: int
    """Everything up to this position is in Kafka or a dead letter."""
    lag: int
    """Number of messages after the published position."""
    lag_seconds: float
    """Age of the oldest message after the published position, by the database's clock; 0 if there is none."""
    updated_at: datetime
    led: bool
    """Whether a process leads the route now; if not, the other fields are the last that were reported."""
    leader: str | None
    """Id of the process that leads the route; None if it has not reported lately."""
    dead_letters: int
    """Messages that the brokers rejected and that were not dropped."""


async def statuses(db: Database, actor: Actor) -> list[RouteStatus]:
    """Returns all routes, by name: those that a process ever led, and as standby those that wait for a first leader.

    A route waits for a leader if a process has brokers for it. Needs stream:admin.
    """
    actor.must(Permission.STREAM_ADMIN)
    async with db.read() as connection:
        routes = await lags(connection)
        rows = {row.route: row for row in await store.rows(connection)}
    return [_never_led(lag) if (row := rows.get(lag.route)) is None else _status(row, lag) for lag in routes]


async def lags(connection: Connection) -> list[RouteLag]:
    """Returns how far each route is behind the stream, by name, for callers that have a connection."""
    return await store.lags(connection, LEADER_SILENT_SECONDS)


def _status(row: RouteRow, lag: RouteLag) -> RouteStatus:
    return RouteStatus(
        route=row.route,
        state=RelayState(row.state),
        detail=row.detail,
        since=row.since,
        published=lag.position,
        lag=lag.lag,
        lag_seconds=lag.lag_seconds,
        updated_at=row.updated_at,
        led=row.led,
        leader=lag.leader if row.led else None,
        dead_letters=row.dead_letters,
    )


def _never_led(lag: RouteLag) -> RouteStatus:
    return RouteStatus(
        route=lag.route,
        state=RelayState.STANDBY,
        detail=_NEVER_LED,
        since=lag.awaited_since or lag.time,
        published=0,
        lag=lag.lag,
        lag_seconds=lag.lag_seconds,
        updated_at=lag.time,
        led=False,
        leader=None,
        dead_letters=0,
    )


async def resume(
    db: Database, actor: Actor, route: str, *, at: int | None = None, republish_from: int | None = None
) -> int:
    """Requests that a stopped route resumes; its leader does so within a second or two.

    `at` treats everything up to that position as published. `republish_from` publishes everything from that position
    again. Returns the position after which the route continues. Raises InvalidInput unless exactly one of them is
    given and the stream has it, NotFound if the route is unknown, Conflict if it is not stopped. Needs stream:admin.
    """
    actor.must(Permission.STREAM_ADMIN)
    if (at is None) == (republish_from is None):
        raise InvalidInput.one("at", "give either at or republishFrom")
    after = at if at is not None else (republish_from or 0) - 1
    async with db.write() as connection:
        reader = StreamReader(connection)
        head, origin = await reader.head(), await reader.origin()
        if not origin.position <= after <= head.position:
            raise InvalidInput.one(
                "at" if at is not None else "republishFrom",
                f"the stream has positions {origin.position + 1} to {head.position}; this would continue after {after}",
            )
        if await store.row(connection, route) is None:
            raise NotFound("route", route, field="route")
        if not await store.request_resume(connection, route, new_id(), after, actor.name):
            raise Conflict(f"the route {route} is not stopped: it continues by itself", field="route")
    return after
