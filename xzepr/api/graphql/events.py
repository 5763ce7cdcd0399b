"""Events and units in the schema, as they are read."""

from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry

from xzepr.api.graphql.context import Info
from xzepr.api.graphql.paging import Connection, Listed, page_request, to_connection
from xzepr.api.graphql.permissions import requires
from xzepr.api.graphql.scalars import JSON
from xzepr.core.actor import Permission
from xzepr.core.errors import NotFound
from xzepr.core.paging import NOTHING
from xzepr.core.text import must_be_askable
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


@strawberry.type(description="Something that finished. Never changed, never deleted.")
class Event:
    """Resolved from `stream.model.Event`."""

    id: strawberry.ID
    name: str
    version: str
    release: str
    platform_id: str
    package: str
    description: str
    payload: JSON | None = strawberry.field(description="What its receiver's schema accepted; null is a value too.")
    success: bool
    created_at: datetime = strawberry.field(description="When it happened, as its reporter says.")
    recorded_at: datetime = strawberry.field(description="When the hub recorded it; never decreases along the stream.")
    receiver_revision: int = strawberry.field(description="The revision of its receiver's schema that judged it.")

    @strawberry.field(description="What kind of event it is.", name="eventReceiverId")
    @staticmethod
    def receiver_id(root: strawberry.Parent[stream.Event]) -> strawberry.ID:
        return strawberry.ID(root.receiver_id)

    @strawberry.field(graphql_type=EventReceiverType | None, directives=requires(Permission.RECEIVER_READ))
    @staticmethod
    async def event_receiver(root: strawberry.Parent[stream.Event], info: Info) -> Receiver:
        receiver = await info.context.loaders.receivers.load(root.receiver_id)
        if receiver is None:
            raise NotFound("event receiver", root.receiver_id)
        return receiver

    @strawberry.field(graphql_type="Unit", description="What it is about.")
    @staticmethod
    def unit(root: strawberry.Parent[stream.Event]) -> groups.Unit:
        return unit_of(root)

    @strawberry.field(description="Where it stands in the stream.")
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

    @strawberry.field(description="SHA-256 of the five strings; the key of its messages in Kafka.")
    @staticmethod
    def id(root: strawberry.Parent[groups.Unit]) -> strawberry.ID:
        return strawberry.ID(root.id.hex())

    @strawberry.field(
        graphql_type=Connection[Event] | None,
        description="Its timeline, newest first.",
        directives=requires(Permission.EVENT_READ),
    )
    @staticmethod
    async def events(
        root: strawberry.Parent[groups.Unit], info: Info, first: int = 50, after: str | None = None
    ) -> Listed[stream.Event]:
        request = page_request(first, after)
        page = await info.context.loaders.events_of_unit.load((root.id, request))
        return to_connection(page or NOTHING, lambda event: event.position, request)

    @strawberry.field(
        graphql_type=list[GateType] | None,
        description="The gates that any of its events counts for, enabled or not, oldest group first.",
        directives=requires(Permission.GROUP_READ),
    )
    @staticmethod
    async def gates(root: strawberry.Parent[groups.Unit], info: Info) -> list[groups.Gate]:
        return await info.context.loaders.gates_of_unit.load(root) or []


@strawberry.input(description="One exact artifact version: exactly these five strings.")
class UnitInput:
    """The key of a unit."""

    name: str
    version: str
    release: str
    platform_id: str
    package: str

    def unit(self) -> groups.Unit:
        """The unit that it names; InvalidInput for a text that no unit can have."""
        must_be_askable({field.name: getattr(self, field.name) for field in fields(self)})
        return groups.Unit(self.name, self.version, self.release, self.platform_id, self.package)


@strawberry.input(description="Every given field must match; null asks for nothing.")
class EventFilterInput:
    """Which events a list shows."""

    event_receiver_id: strawberry.ID | None = None
    unit: UnitInput | None = None
    name: str | None = None
    version: str | None = None
    release: str | None = None
    platform_id: str | None = None
    package: str | None = None
    success: bool | None = None
    recorded_from: datetime | None = strawberry.field(default=None, description="Recorded then or later.")
    recorded_before: datetime | None = strawberry.field(default=None, description="Recorded before then.")

    def filter(self) -> EventFilter:
        """The filter of the feature."""
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


async def _listed(info: Info, wanted: EventFilter, first: int, after: str | None) -> Listed[stream.Event]:
    request = page_request(first, after)
    page = await info.context.hub.events.page(info.context.actor, wanted, request)
    return to_connection(page, lambda event: event.position, request)


@strawberry.type
class EventQueries:
    """Root fields about events and units."""

    @strawberry.field(graphql_type=Event | None, directives=requires(Permission.EVENT_READ))
    @staticmethod
    async def event(info: Info, id: strawberry.ID) -> stream.Event:
        return await info.context.hub.events.get(info.context.actor, id)

    @strawberry.field(graphql_type=Connection[Event] | None, directives=requires(Permission.EVENT_READ))
    @staticmethod
    async def events(
        info: Info, filter: EventFilterInput | None = None, first: int = 50, after: str | None = None
    ) -> Listed[stream.Event]:
        return await _listed(info, EventFilter() if filter is None else filter.filter(), first, after)

    @strawberry.field(
        graphql_type=Unit | None,
        description="An artifact version, whether or not anything was reported on it.",
        directives=requires(Permission.EVENT_READ),
    )
    @staticmethod
    def unit(info: Info, key: UnitInput) -> groups.Unit:
        info.context.actor.must(Permission.EVENT_READ)
        return key.unit()
