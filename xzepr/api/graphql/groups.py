"""Receiver groups and gates in the schema."""

from datetime import datetime
from itertools import chain

import strawberry

from xzepr.api.graphql.context import Info
from xzepr.api.graphql.events import Event, Unit, UnitInput, receivers_by_id
from xzepr.api.graphql.paging import Connection, ConnectionData, page_request, to_connection
from xzepr.api.graphql.permissions import guard, requires
from xzepr.api.graphql.receivers import EventReceiver
from xzepr.api.graphql_server.plans.resolvers import BATCH
from xzepr.core.actor import Permission
from xzepr.core.errors import NotFound
from xzepr.features.groups import model as groups
from xzepr.features.receivers.model import Receiver
from xzepr.features.stream import model as stream


@strawberry.type(
    description="A named set of receivers. While it is enabled, it is a gate for every unit they report on."
)
class EventReceiverGroup:
    """Resolved from `groups.model.Group`."""

    id: strawberry.ID
    name: str
    type: str
    version: str
    description: str
    enabled: bool
    owner_id: strawberry.ID = strawberry.field(description="The id of the user that created it.")
    resource_version: int = strawberry.field(
        description="Counts all changes. Pass it as `expectedVersion` to detect concurrent changes."
    )
    created_at: datetime
    updated_at: datetime

    @strawberry.field(description="The ids of its members, in the order in which they were set.")
    @staticmethod
    def event_receiver_ids(root: strawberry.Parent[groups.Group]) -> list[strawberry.ID]:
        return [strawberry.ID(id) for id in root.receiver_ids]

    @strawberry.field(
        graphql_type=list[EventReceiver] | None,
        description="Its members, in the order in which they were set.",
        directives=requires(Permission.RECEIVER_READ),
        metadata=BATCH,
    )
    @staticmethod
    async def event_receivers(roots: strawberry.Parent[list[groups.Group]], info: Info) -> list[list[Receiver]]:
        ids = dict.fromkeys(chain.from_iterable(root.receiver_ids for root in roots))
        receivers = await info.context.hub.receivers.by_ids(info.context.actor, ids)
        return [[receivers[id] for id in root.receiver_ids if id in receivers] for root in roots]


strawberry.enum(
    groups.MemberState,
    name="GateMemberState",
    description="The receiver's latest event for the unit. PASSED: a success. FAILED: a failure. MISSING: none yet.",
)


@strawberry.type(description="A member of a gate: a receiver and its latest event for the unit.")
class GateMember:
    """Resolved from `groups.model.GateMember`."""

    state: groups.MemberState

    @strawberry.field(graphql_type=EventReceiver | None, directives=requires(Permission.RECEIVER_READ), metadata=BATCH)
    @staticmethod
    async def event_receiver(
        roots: strawberry.Parent[list[groups.GateMember]], info: Info
    ) -> list[Receiver | NotFound]:
        return await receivers_by_id(info, [root.receiver_id for root in roots])

    @strawberry.field(description="The id of the receiver.")
    @staticmethod
    def event_receiver_id(root: strawberry.Parent[groups.GateMember]) -> strawberry.ID:
        return strawberry.ID(root.receiver_id)

    @strawberry.field(
        graphql_type=Event | None,
        description="The receiver's latest event for the unit; null if there is none.",
        directives=requires(Permission.EVENT_READ),
        metadata=BATCH,
    )
    @staticmethod
    async def event(roots: strawberry.Parent[list[groups.GateMember]], info: Info) -> list[stream.Event | None]:
        positions = [root.event_position for root in roots]
        wanted = list(dict.fromkeys(position for position in positions if position is not None))
        if not wanted:
            return [None] * len(positions)
        events = await info.context.hub.events.by_positions(info.context.actor, wanted)
        return [None if position is None else events.get(position) for position in positions]


@strawberry.type(
    description="A group's state for one unit. It is complete if every member's latest event is a success."
)
class Gate:
    """Resolved from `groups.model.Gate`."""

    complete: bool
    since: datetime | None = strawberry.field(
        description="All members have passed since this time: the start of the current run of successes that began "
        "last. Null while the gate is incomplete."
    )

    @strawberry.field(graphql_type=EventReceiverGroup, description="The group.")
    @staticmethod
    def event_receiver_group(root: strawberry.Parent[groups.Gate]) -> groups.Group:
        return root.group

    @strawberry.field(description="The id of the unit.")
    @staticmethod
    def unit_id(root: strawberry.Parent[groups.Gate]) -> strawberry.ID:
        return strawberry.ID(root.unit.id.hex())

    @strawberry.field(
        graphql_type=Unit | None,
        description="The unit.",
        directives=requires(Permission.EVENT_READ),
        metadata=guard(Permission.EVENT_READ),
    )
    @staticmethod
    def unit(root: strawberry.Parent[groups.Gate]) -> groups.Unit:
        return root.unit

    @strawberry.field(graphql_type=list[GateMember])
    @staticmethod
    def members(root: strawberry.Parent[groups.Gate]) -> list[groups.GateMember]:
        return list(root.members)


@strawberry.input(description="Every field that is set must be equal; null matches anything.")
class EventReceiverGroupFilterInput:
    """The filter of a list of groups."""

    name: str | None = None
    type: str | None = None
    version: str | None = None
    enabled: bool | None = None
    event_receiver_id: strawberry.ID | None = strawberry.field(
        default=None, description="Groups that have this member."
    )

    def filter(self) -> groups.GroupFilter:
        """Returns the filter as the groups feature defines it."""
        return groups.GroupFilter(
            name=self.name,
            type=self.type,
            version=self.version,
            enabled=self.enabled,
            receiver_id=self.event_receiver_id,
        )


@strawberry.type
class GroupQueries:
    """Queries for groups and gates."""

    @strawberry.field(graphql_type=EventReceiverGroup | None, directives=requires(Permission.GROUP_READ))
    @staticmethod
    async def event_receiver_group(info: Info, id: strawberry.ID) -> groups.Group:
        return await info.context.hub.groups.get(info.context.actor, id)

    @strawberry.field(graphql_type=Connection[EventReceiverGroup] | None, directives=requires(Permission.GROUP_READ))
    @staticmethod
    async def event_receiver_groups(
        info: Info, filter: EventReceiverGroupFilterInput | None = None, first: int = 50, after: str | None = None
    ) -> ConnectionData[groups.Group]:
        group_filter = groups.GroupFilter() if filter is None else filter.filter()
        request = page_request(first, after)
        page = await info.context.hub.groups.page(info.context.actor, group_filter, request)
        return to_connection(page, request)

    @strawberry.field(
        graphql_type=Gate | None,
        description="Whether an artifact version passes the gate of a group, and what is missing if it does not.",
        directives=requires(Permission.GROUP_READ),
    )
    @staticmethod
    async def gate(info: Info, event_receiver_group_id: strawberry.ID, unit: UnitInput) -> groups.Gate:
        return await info.context.hub.groups.gate(info.context.actor, event_receiver_group_id, unit.unit())
