"""Events and units in the schema: their types, filters and queries."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry

from xzepr.api.graphql.context import Info
from xzepr.api.graphql.paging import Connection, ConnectionData, page_request, to_connection
from xzepr.api.graphql.permissions import requires
from xzepr.api.graphql.scalars import JSON
from xzepr.api.graphql_server.plans.resolvers import BATCH
from xzepr.core.actor import Permission
from xzepr.core.errors import NotFound
from xzepr.core.text import check_queryable
from xzepr.features.events.model import EventFilter
from xzepr.features.groups import model as groups
from xzepr.features.groups.rules import unit_of
from xzepr.features.receivers.model import Receiver
from xzepr.features.stream import model as stream

if TYPE_CHECKING:
    from xzepr.api.graphql.groups import Gate
    from xzepr.api.graphql.receivers import EventReceiver

EventReceiverType = Annotated["EventReceiver", strawberry.lazy("xzepr.api.graphql.receivers")]
GateType = Annotated["Gate", strawberry.lazy("xzepr.api.graphql.groups")]


@strawberry.type(description="Something that finished. An event is never changed or deleted.")
class Event:
    """Resolved from `stream.model.Event`."""

    id: strawberry.ID
    name: str
    version: str
    release: str
    platform_id: str
    package: str
    description: str
    payload: JSON | None = strawberry.field(
        description="The JSON that the receiver's schema accepted; null is a valid value."
    )
    success: bool
    created_at: datetime = strawberry.field(
        name="occurredAt", description="When it happened, as reported by the client; by default, `recordedAt`."
    )
    recorded_at: datetime = strawberry.field(description="When the hub recorded it. Never decreases along the stream.")
    receiver_revision: int = strawberry.field(
        description="The revision of the receiver's schema that validated the payload."
    )

    @strawberry.field(description="The id of the receiver, which defines the kind of event.", name="eventReceiverId")
    @staticmethod
    def receiver_id(root: strawberry.Parent[stream.Event]) -> strawberry.ID:
        return strawberry.ID(root.receiver_id)

    @strawberry.field(
        graphql_type=EventReceiverType | None, directives=requires(Permission.RECEIVER_READ), metadata=BATCH
    )
    @staticmethod
    async def event_receiver(roots: strawberry.Parent[list[stream.Event]], info: Info) -> list[Receiver | NotFound]:
        return await receivers_by_id(info, [root.receiver_id for root in roots])

    @strawberry.field(graphql_type="Unit", description="The artifact version that the event is about.")
    @staticmethod
    def unit(root: strawberry.Parent[stream.Event]) -> groups.Unit:
        return unit_of(root)

    @strawberry.field(description="The event's position in the stream, as a cursor.")
    @staticmethod
    def cursor(root: strawberry.Parent[stream.Event]) -> str:
        return str(stream.Cursor.of(root.position, root.id))


@strawberry.type(description="What events are about: one exact artifact version.")
class Unit:
    """Resolved from `groups.model.Unit`."""

    name: str
    version: str
    release: str
    platform_id: str
    package: str

    @strawberry.field(description="SHA-256 of the five strings; also the key of the unit's messages in Kafka.")
    @staticmethod
    def id(root: strawberry.Parent[groups.Unit]) -> strawberry.ID:
        return strawberry.ID(root.id.hex())

    @strawberry.field(
        graphql_type=Connection[Event] | None,
        description="The unit's events, newest first.",
        directives=requires(Permission.EVENT_READ),
        metadata=BATCH,
    )
    @staticmethod
    async def events(
        roots: strawberry.Parent[list[groups.Unit]], info: Info, first: int = 50, after: str | None = None
    ) -> list[ConnectionData[stream.Event]]:
        request = page_request(first, after)
        keys = [(root.id, request) for root in roots]
        pages = await info.context.hub.events.pages_of_units(info.context.actor, list(dict.fromkeys(keys)))
        return [to_connection(pages[key], request) for key in keys]

    @strawberry.field(
        graphql_type=list[GateType] | None,
        description="The gates with a member that has reported on this unit, enabled or not, oldest group first.",
        directives=requires(Permission.GROUP_READ),
        metadata=BATCH,
    )
    @staticmethod
    async def gates(roots: strawberry.Parent[list[groups.Unit]], info: Info) -> list[list[groups.Gate]]:
        gates = await info.context.hub.groups.gates_of_units(info.context.actor, list(dict.fromkeys(roots)))
        return [gates[root] for root in roots]


@strawberry.input(description="One exact artifact version, identified by five strings that are compared exactly.")
class UnitInput:
    """The key of a unit."""

    name: str
    version: str
    release: str
    platform_id: str
    package: str

    def unit(self) -> groups.Unit:
        """Returns the unit. Raises InvalidInput if a string is not valid in any unit."""
        check_queryable({field.name: getattr(self, field.name) for field in fields(self)})
        return groups.Unit(self.name, self.version, self.release, self.platform_id, self.package)


@strawberry.input(
    description="Every field that is set must match; null matches anything. A page examines at most 20,000 events, so "
    "it may have fewer than `first`, or none, although `hasNextPage` is true."
)
class EventFilterInput:
    """The filter of a list of events."""

    event_receiver_id: strawberry.ID | None = None
    unit: UnitInput | None = None
    name: str | None = None
    version: str | None = None
    release: str | None = None
    platform_id: str | None = None
    package: str | None = None
    success: bool | None = None
    recorded_from: datetime | None = strawberry.field(default=None, description="Recorded at this time or later.")
    recorded_before: datetime | None = strawberry.field(default=None, description="Recorded before this time.")

    def filter(self) -> EventFilter:
        """Returns the filter as the events feature defines it."""
        return EventFilter(
            receiver_id=self.event_receiver_id,
            name=self.name,
            version=self.version,
            release=self.release,
            platform_id=self.platform_id,
            package=self.package,
            success=self.success,
            unit_id=None if self.unit is None else self.unit.unit().id,
            recorded_from=self.recorded_from,
            recorded_before=self.recorded_before,
        )


async def receivers_by_id(info: Info, ids: Sequence[str]) -> list[Receiver | NotFound]:
    """Returns the receiver of each id, for a batch edge; NotFound for an unknown id."""
    receivers = await info.context.hub.receivers.by_ids(info.context.actor, dict.fromkeys(ids))
    return [receivers.get(id) or NotFound("event receiver", id) for id in ids]


async def _page(info: Info, filter: EventFilter, first: int, after: str | None) -> ConnectionData[stream.Event]:
    request = page_request(first, after)
    page = await info.context.hub.events.page(info.context.actor, filter, request)
    return to_connection(page, request)


@strawberry.type
class EventQueries:
    """Queries for events and units."""

    @strawberry.field(graphql_type=Event | None, directives=requires(Permission.EVENT_READ))
    @staticmethod
    async def event(info: Info, id: strawberry.ID) -> stream.Event:
        return await info.context.hub.events.get(info.context.actor, id)

    @strawberry.field(graphql_type=Connection[Event] | None, directives=requires(Permission.EVENT_READ))
    @staticmethod
    async def events(
        info: Info, filter: EventFilterInput | None = None, first: int = 50, after: str | None = None
    ) -> ConnectionData[stream.Event]:
        return await _page(info, EventFilter() if filter is None else filter.filter(), first, after)

    @strawberry.field(
        graphql_type=Unit | None,
        description="An artifact version, whether or not any event was reported on it.",
        directives=requires(Permission.EVENT_READ),
    )
    @staticmethod
    def unit(info: Info, unit: UnitInput) -> groups.Unit:
        info.context.actor.must(Permission.EVENT_READ)
        return unit.unit()
