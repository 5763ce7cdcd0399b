"""The stream's status in the schema: its ends, its routes into Kafka, and telling a stopped one how to go on."""

from datetime import datetime

import strawberry

from xzepr.api.graphql.context import Info
from xzepr.api.graphql.permissions import requires
from xzepr.api.graphql.scalars import Position
from xzepr.core.actor import Permission
from xzepr.features.processes import service as processes
from xzepr.features.relay import service as routes
from xzepr.features.relay.model import RelayState

RelayStateType = strawberry.enum(RelayState, name="RelayState", description="What a route's relay is doing.")


@strawberry.type(description="How far somebody who follows the stream is.")
class StreamProgress:
    """Resolved from `processes.Progress`."""

    position: Position
    lag: Position = strawberry.field(description="How many messages come after it.")
    lag_seconds: float = strawberry.field(
        description="Age of the oldest of them by the database's clock; 0 when there is none."
    )


@strawberry.type(description="Who is connected to a process.")
class ProcessClients:
    """Resolved from `processes.Clients`."""

    websockets: int
    event_streams: int
    subscriptions: int = strawberry.field(description="Over both.")


@strawberry.type(description="What a process's relay is doing.")
class ProcessRelay:
    """Resolved from `processes.ProcessRelay`."""

    route: str
    state: RelayStateType  # pyright: ignore[reportInvalidTypeForm] an enum, as Strawberry wraps it
    leads: bool = strawberry.field(description="Whether it is the one that relays now.")


@strawberry.type(description="A process of the hub. Each describes itself once a second.")
class HubProcess:
    """Resolved from `processes.ProcessStatus`."""

    id: strawberry.ID
    host: str
    pid: int
    role: str = strawberry.field(
        description="`serve`: it serves alone; `worker`: it is one of several that serve on one port; `work`: it "
        "relays and serves nothing."
    )
    version: str
    started_at: datetime
    seen_at: datetime = strawberry.field(description="When it last described itself.")
    silent_seconds: float = strawberry.field(
        description="How long ago that was. After ten seconds it is taken for gone."
    )
    feed: StreamProgress | None = strawberry.field(description="How much of the stream it has seen.")
    slowest_subscriber: StreamProgress | None = strawberry.field(
        description="The one of its subscribers that is most behind; null when it has none."
    )
    clients: ProcessClients
    recorder_queue: int = strawberry.field(description="Events that wait for their turn to be recorded.")
    relay: ProcessRelay | None = strawberry.field(description="Null in a process that does not relay.")


@strawberry.type(description="One route of the stream into Kafka, as its relay last described it.")
class RelayRoute:
    """Resolved from `routes.RouteStatus`."""

    route: str = strawberry.field(description="Its name: the topic that it writes to.")
    state: RelayStateType  # pyright: ignore[reportInvalidTypeForm] an enum, as Strawberry wraps it
    detail: str = strawberry.field(description="Why it is so, and for a stopped route what to do.")
    since: datetime = strawberry.field(description="Since when it is in this state.")
    published: Position = strawberry.field(description="Everything up to this position is in Kafka.")
    lag: Position = strawberry.field(description="How many messages come after it.")
    lag_seconds: float = strawberry.field(
        description="Age of the oldest of them by the database's clock; 0 when there is none."
    )
    led: bool = strawberry.field(description="Whether a process leads it now. If none does, state and detail are old.")
    leader: strawberry.ID | None = strawberry.field(
        description="Which process leads it; null also when that has not described itself for ten seconds."
    )
    updated_at: datetime
    dead_letters: int = strawberry.field(description="Messages that the brokers refused and nobody has dropped.")


@strawberry.type(description="How far the stream is, and how far it was carried.")
class StreamStatus:
    """The stream, its routes, and the processes of the hub."""

    position: Position = strawberry.field(description="Of the newest message; 0 while there is none.")
    cursor: str = strawberry.field(description="The cursor that has seen everything.")
    oldest_cursor: str = strawberry.field(
        description="The oldest cursor to go on from: everything after it is there. An older one has expired."
    )
    time: datetime | None = strawberry.field(description="When the newest message was announced.")
    routes: list[RelayRoute] = strawberry.field(
        description="Every route that a relay ever led, and those that processes have brokers for and none has led yet "
        "(`STANDBY`), by name."
    )
    dead_letters: int = strawberry.field(description="Messages that no one has dropped, of all routes.")
    processes: list[HubProcess] = strawberry.field(description="Those that run, oldest first.")


@strawberry.input(description="How a stopped route goes on: give either `at` or `republishFrom`.")
class ResumeRelayInput:
    """An instruction to a stopped route."""

    route: str
    at: Position | None = strawberry.field(
        default=None, description="This position and all before it count as published."
    )
    republish_from: Position | None = strawberry.field(
        default=None, description="Publish again from this position; consumers may see messages twice."
    )


@strawberry.type(description="The instruction is left for the relay, which follows it within a second or two.")
class ResumeRelayPayload:
    """What the route was told."""

    route: str
    after: Position = strawberry.field(description="The position after which it goes on.")


@strawberry.type
class RelayQueries:
    """Root fields about the relay."""

    @strawberry.field(description="How far the stream and its relay are.", directives=requires(Permission.STREAM_ADMIN))
    @staticmethod
    async def stream_status(info: Info) -> StreamStatus | None:
        hub = info.context.hub
        statuses = await routes.statuses(hub.db, info.context.actor)
        present = await processes.statuses(hub.db, info.context.actor)
        async with hub.stream.reader() as reader:
            head, origin = await reader.head(), await reader.origin()
            time = await reader.time_at(head.position)
        return StreamStatus(
            position=Position(head.position),
            cursor=str(head.cursor),
            oldest_cursor=str(origin.cursor),
            time=time,
            routes=statuses,  # pyright: ignore[reportArgumentType] resolved from RouteStatus
            dead_letters=sum(one.dead_letters for one in statuses),
            processes=present,  # pyright: ignore[reportArgumentType] resolved from ProcessStatus
        )


@strawberry.type
class RelayMutations:
    """Root fields that direct the relay."""

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
