"""Event receivers in the schema."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry

from xzepr.api.graphql.context import Info
from xzepr.api.graphql.events import Event
from xzepr.api.graphql.paging import Connection, ConnectionData, page_request, to_connection
from xzepr.api.graphql.permissions import requires
from xzepr.api.graphql.scalars import JSON
from xzepr.api.graphql_server.plans.resolvers import BATCH
from xzepr.core.actor import Permission
from xzepr.features.groups.model import Group
from xzepr.features.receivers.model import Receiver, ReceiverFilter
from xzepr.features.stream import model as stream

if TYPE_CHECKING:
    from xzepr.api.graphql.groups import EventReceiverGroup

EventReceiverGroupType = Annotated["EventReceiverGroup", strawberry.lazy("xzepr.api.graphql.groups")]


@strawberry.type(description="A kind of event, with the JSON Schema that its payloads must match.")
class EventReceiver:
    """Resolved from `receivers.model.Receiver`."""

    id: strawberry.ID
    name: str
    type: str
    version: str
    description: str
    schema: JSON = strawberry.field(description="A JSON Schema; draft 2020-12 unless it names another.")
    schema_digest: str = strawberry.field(description="SHA-256 of the schema as compact JSON.")
    revision: int = strawberry.field(
        description="The revision of the schema: 1 at first, and one higher after each change."
    )
    fingerprint: str = strawberry.field(description="SHA-256 of type, description, name and version.")
    enabled: bool = strawberry.field(description="A disabled receiver rejects events.")
    owner_id: strawberry.ID = strawberry.field(description="The id of the user that created it.")
    resource_version: int = strawberry.field(
        description="Counts all changes. Pass it as `expectedVersion` to detect concurrent changes."
    )
    created_at: datetime
    updated_at: datetime

    @strawberry.field(
        graphql_type=list[EventReceiverGroupType] | None,
        description="The groups that the receiver belongs to, enabled or not.",
        directives=requires(Permission.GROUP_READ),
        metadata=BATCH,
    )
    @staticmethod
    async def event_receiver_groups(roots: strawberry.Parent[list[Receiver]], info: Info) -> list[list[Group]]:
        ids = [root.id for root in roots]
        groups = await info.context.hub.groups.of_receivers(info.context.actor, list(dict.fromkeys(ids)))
        return [groups[id] for id in ids]

    @strawberry.field(
        graphql_type=Connection[Event] | None,
        description="The receiver's events, newest first.",
        directives=requires(Permission.EVENT_READ),
        metadata=BATCH,
    )
    @staticmethod
    async def events(
        roots: strawberry.Parent[list[Receiver]], info: Info, first: int = 50, after: str | None = None
    ) -> list[ConnectionData[stream.Event]]:
        request = page_request(first, after)
        keys = [(root.id, request) for root in roots]
        pages = await info.context.hub.events.pages_of_receivers(info.context.actor, list(dict.fromkeys(keys)))
        return [to_connection(pages[key], request) for key in keys]


@strawberry.input(description="Every field that is set must be equal; null matches anything.")
class EventReceiverFilterInput:
    """The filter of a list of receivers."""

    name: str | None = None
    type: str | None = None
    version: str | None = None


@strawberry.type
class ReceiverQueries:
    """Queries for receivers."""

    @strawberry.field(graphql_type=EventReceiver | None, directives=requires(Permission.RECEIVER_READ))
    @staticmethod
    async def event_receiver(info: Info, id: strawberry.ID) -> Receiver:
        return await info.context.hub.receivers.get(info.context.actor, id)

    @strawberry.field(graphql_type=Connection[EventReceiver] | None, directives=requires(Permission.RECEIVER_READ))
    @staticmethod
    async def event_receivers(
        info: Info, filter: EventReceiverFilterInput | None = None, first: int = 50, after: str | None = None
    ) -> ConnectionData[Receiver]:
        receiver_filter = (
            ReceiverFilter() if filter is None else ReceiverFilter(filter.name, filter.type, filter.version)
        )
        request = page_request(first, after)
        page = await info.context.hub.receivers.page(info.context.actor, receiver_filter, request)
        return to_connection(page, request)
