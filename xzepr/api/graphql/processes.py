"""The hub's processes in the schema, each as it last described itself."""

from datetime import datetime

import strawberry

from xzepr.api.graphql.scalars import Position
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
