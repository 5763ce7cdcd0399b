"""The stream's status in the schema: its ends, its routes into Kafka, the hub's processes, and resuming a route."""

from datetime import datetime

import strawberry

from xzepr.api.graphql.context import Info
from xzepr.api.graphql.permissions import requires
from xzepr.api.graphql.scalars import Position
from xzepr.core.actor import Permission
from xzepr.features.processes import service as processes
from xzepr.features.relay import service as routes
from xzepr.features.relay.model import RelayState

RelayStateType = strawberry.enum(
    RelayState,
    name="RelayState",
    description="The state of a relay. WAITING_FOR_BROKERS: no usable brokers; it keeps trying. FOLLOWING: it copies "
    "messages to Kafka. STANDBY: it does not lead, or the database is down. STOPPED: see the detail of its route.",
)


@strawberry.type(description="How far a process or a subscriber has read the stream, and how far behind it is.")
class StreamProgress:
    """Resolved from `processes.Progress`."""

    position: Position
    lag: Position = strawberry.field(description="The number of messages after this position.")
    lag_seconds: float = strawberry.field(
        description="Age of the oldest of these messages by the database's clock; 0 if there is none."
    )


@strawberry.type(description="The clients that are connected to a process.")
class ProcessClients:
    """Resolved from `processes.Clients`."""

    websockets: int
    event_streams: int
    subscriptions: int = strawberry.field(description="Over WebSockets and event streams together.")


@strawberry.type(description="The relay of a process.")
class ProcessRelay:
    """Resolved from `processes.ProcessRelay`."""

    route: str
    state: RelayStateType  # pyright: ignore[reportInvalidTypeForm] an enum, as Strawberry wraps it
    leads: bool = strawberry.field(description="Whether it is the leader, which copies messages to Kafka.")


@strawberry.type(description="A process of the hub. Each process writes its status once a second.")
class HubProcess:
    """Resolved from `processes.ProcessStatus`."""

    id: strawberry.ID
    host: str
    pid: int
    role: str = strawberry.field(
        description="`serve`: the only server process of its command; `worker`: one of several server processes that "
        "share a port; `work`: relays and serves no requests."
    )
    version: str
    started_at: datetime
    seen_at: datetime = strawberry.field(description="When the process last wrote its status.")
    silent_seconds: float = strawberry.field(
        description="Seconds since `seenAt`. After ten seconds the process counts as ended."
    )
    feed: StreamProgress | None = strawberry.field(
        description="How far the process has read the stream; null until it has begun."
    )
    slowest_subscriber: StreamProgress | None = strawberry.field(
        description="The subscriber that is furthest behind; null if there is none."
    )
    clients: ProcessClients
    recorder_queue: int = strawberry.field(description="The number of events that wait to be recorded.")
    relay: ProcessRelay | None = strawberry.field(description="Null if the process does not run a relay.")


@strawberry.type(description="A route of the stream into Kafka, as its relay last reported it.")
class RelayRoute:
    """Resolved from `routes.RouteStatus`."""

    route: str = strawberry.field(description="The name of the route, which is its topic.")
    state: RelayStateType  # pyright: ignore[reportInvalidTypeForm] an enum, as Strawberry wraps it
    detail: str = strawberry.field(description="The reason for the state and, if the route is stopped, what to do.")
    since: datetime = strawberry.field(description="Since when the route is in this state.")
    published: Position = strawberry.field(
        description="Everything up to this position is in Kafka or is a dead letter."
    )
    lag: Position = strawberry.field(description="The number of messages after `published`.")
    lag_seconds: float = strawberry.field(
        description="Age of the oldest of these messages by the database's clock; 0 if there is none."
    )
    led: bool = strawberry.field(description="Whether a process leads the route now. If not, state and detail are old.")
    leader: strawberry.ID | None = strawberry.field(
        description="The id of the leading process; null if there is none or it was silent for ten seconds."
    )
    updated_at: datetime
    dead_letters: int = strawberry.field(
        description="Messages that the brokers rejected and no administrator has dropped."
    )


@strawberry.type(description="The progress of the stream, of its routes into Kafka, and of the hub's processes.")
class StreamStatus:
    """The status of a hub."""

    position: Position = strawberry.field(description="The position of the newest message; 0 if there is none.")
    cursor: str = strawberry.field(
        description="The end of the stream as a cursor: a subscription after it receives only later messages."
    )
    oldest_cursor: str = strawberry.field(
        description="The oldest cursor to resume from: no message after it was removed. Older ones have expired."
    )
    time: datetime | None = strawberry.field(description="When the newest message was recorded.")
    routes: list[RelayRoute] = strawberry.field(
        description="By name: every route that a process has ever led, and (as `STANDBY`) those that have brokers "
        "but that no process has led yet."
    )
    dead_letters: int = strawberry.field(
        description="Messages of all routes that brokers rejected and no administrator has dropped."
    )
    processes: list[HubProcess] = strawberry.field(description="The processes that are running, oldest first.")


@strawberry.input(description="How to resume a stopped route: set either `at` or `republishFrom`.")
class ResumeRelayInput:
    """A resume instruction for a stopped route."""

    route: str
    at: Position | None = strawberry.field(
        default=None, description="Treat everything up to this position as published."
    )
    republish_from: Position | None = strawberry.field(
        default=None, description="Publish again from this position. Consumers may receive messages twice."
    )


@strawberry.type(description="The instruction is stored, and the relay applies it within a second or two.")
class ResumeRelayPayload:
    """The instruction that was stored."""

    route: str
    after: Position = strawberry.field(description="The position after which the route resumes.")


@strawberry.type
class StatusQueries:
    """Queries for the stream's status."""

    @strawberry.field(
        description="The progress of the stream, its routes and the hub's processes.",
        directives=requires(Permission.STREAM_ADMIN),
    )
    @staticmethod
    async def stream_status(info: Info) -> StreamStatus | None:
        hub = info.context.hub
        route_statuses = await routes.statuses(hub.db, info.context.actor)
        process_statuses = await processes.statuses(hub.db, info.context.actor)
        async with hub.stream.reader() as reader:
            head, origin = await reader.head(), await reader.origin()
            time = await reader.time_at(head.position)
        return StreamStatus(
            position=Position(head.position),
            cursor=str(head.cursor),
            oldest_cursor=str(origin.cursor),
            time=time,
            routes=route_statuses,  # pyright: ignore[reportArgumentType] resolved from RouteStatus
            dead_letters=sum(status.dead_letters for status in route_statuses),
            processes=process_statuses,  # pyright: ignore[reportArgumentType] resolved from ProcessStatus
        )


@strawberry.type
class RelayMutations:
    """Mutations of the relay."""

    @strawberry.mutation(directives=requires(Permission.STREAM_ADMIN))
    @staticmethod
    async def resume_relay(info: Info, input: ResumeRelayInput) -> ResumeRelayPayload | None:
        after = await routes.resume(
            info.context.hub.db,
            info.context.actor,
            input.route,
            at=input.at,
            republish_from=input.republish_from,
        )
        return ResumeRelayPayload(route=input.route, after=Position(after))
