"""The relay in the schema: how far each route into Kafka is, and telling a stopped one how to go on."""

from datetime import datetime

import strawberry

from xzepr.api.graphql.context import Info
from xzepr.api.graphql.guards import requires
from xzepr.api.graphql.scalars import Position
from xzepr.core.actor import Permission
from xzepr.features.stream import routes
from xzepr.features.stream.published import RelayState

RelayStateType = strawberry.enum(RelayState, name="RelayState", description="What a route's relay is doing.")


@strawberry.type(description="One route of the stream into Kafka, as its relay last described it.")
class RelayRoute:
    """Resolved from `routes.RouteStatus`."""

    route: str = strawberry.field(description="Its name: the topic that it writes to.")
    state: RelayStateType  # pyright: ignore[reportInvalidTypeForm] an enum, as Strawberry wraps it
    detail: str = strawberry.field(description="Why it is so, and for a stopped route what to do.")
    since: datetime = strawberry.field(description="Since when it is in this state.")
    published: Position = strawberry.field(description="Everything up to this position is in Kafka.")
    lag: Position = strawberry.field(description="How many messages come after it.")
    updated_at: datetime
    dead_letters: int = strawberry.field(description="Messages that the brokers refused and nobody has dropped.")


@strawberry.type(description="How far the stream is, and how far it was carried.")
class StreamStatus:
    """The head and the routes."""

    position: Position = strawberry.field(description="Of the newest message; 0 while there is none.")
    cursor: str = strawberry.field(description="The cursor that has seen everything.")
    routes: list[RelayRoute] = strawberry.field(description="Every route that a relay ever led, by name.")


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
        head = await hub.stream.head()
        return StreamStatus(
            position=Position(head.position),
            cursor=str(head.cursor),
            routes=statuses,  # pyright: ignore[reportArgumentType] resolved from RouteStatus
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
