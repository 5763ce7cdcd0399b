"""Mutations of receiver groups."""

import strawberry

from xzepr.api.graphql.context import Info
from xzepr.api.graphql.groups import EventReceiverGroup
from xzepr.api.graphql.permissions import guard, requires
from xzepr.api.graphql.snapshots import EventReceiverGroupSnapshot
from xzepr.api.graphql_server.plans.resolvers import ITSELF
from xzepr.core.actor import Permission
from xzepr.features.groups import model as groups

# The group of a payload, for callers that may read groups.
_GROUP = ITSELF | guard(Permission.GROUP_READ)


@strawberry.input
class CreateEventReceiverGroupInput:
    """A group to create."""

    name: str
    type: str
    version: str
    description: str
    event_receiver_ids: list[strawberry.ID]
    enabled: bool = True


@strawberry.input
class UpdateEventReceiverGroupInput:
    """Changes to a group. Fields that are left out keep their values."""

    id: strawberry.ID
    name: str | None = None
    type: str | None = None
    version: str | None = None
    description: str | None = None
    enabled: bool | None = None
    event_receiver_ids: list[strawberry.ID] | None = None
    expected_version: int | None = strawberry.field(
        default=None, description="Reject the change with CONFLICT unless the group's resourceVersion equals this."
    )


@strawberry.input
class SetEventReceiverGroupEnabledInput:
    """Enables or disables a group."""

    id: strawberry.ID
    enabled: bool
    expected_version: int | None = strawberry.field(
        default=None, description="Reject the change with CONFLICT unless the group's resourceVersion equals this."
    )


@strawberry.input
class DeleteEventReceiverGroupInput:
    """A group to delete."""

    id: strawberry.ID
    expected_version: int | None = strawberry.field(
        default=None, description="Reject the change with CONFLICT unless the group's resourceVersion equals this."
    )


@strawberry.type(description="The group that was created.")
class CreateEventReceiverGroupPayload:
    """Resolved from `groups.model.Group`."""

    id: strawberry.ID = strawberry.field(description="The id of the group.")
    event_receiver_group: EventReceiverGroup | None = strawberry.field(
        description="The group.", directives=requires(Permission.GROUP_READ), metadata=_GROUP
    )


@strawberry.type(description="The group that was updated.")
class UpdateEventReceiverGroupPayload:
    """Resolved from `groups.model.Group`."""

    id: strawberry.ID = strawberry.field(description="The id of the group.")
    event_receiver_group: EventReceiverGroup | None = strawberry.field(
        description="The group after the change.", directives=requires(Permission.GROUP_READ), metadata=_GROUP
    )


@strawberry.type(description="The group that was enabled or disabled.")
class SetEventReceiverGroupEnabledPayload:
    """Resolved from `groups.model.Group`."""

    id: strawberry.ID = strawberry.field(description="The id of the group.")
    event_receiver_group: EventReceiverGroup | None = strawberry.field(
        description="The group after the change.", directives=requires(Permission.GROUP_READ), metadata=_GROUP
    )


@strawberry.type(description="The group that was deleted.")
class DeleteEventReceiverGroupPayload:
    """Resolved from `groups.model.Group`."""

    id: strawberry.ID = strawberry.field(description="The id of the group.")
    event_receiver_group: EventReceiverGroupSnapshot | None = strawberry.field(
        description="The group before it was deleted.", directives=requires(Permission.GROUP_READ), metadata=_GROUP
    )


@strawberry.type
class GroupMutations:
    """Mutations of groups. Each publishes the change; no gate is evaluated."""

    @strawberry.mutation(
        graphql_type=CreateEventReceiverGroupPayload | None, directives=requires(Permission.GROUP_CREATE)
    )
    @staticmethod
    async def create_event_receiver_group(info: Info, input: CreateEventReceiverGroupInput) -> groups.Group:
        new = groups.NewGroup(
            name=input.name,
            type=input.type,
            version=input.version,
            description=input.description,
            receiver_ids=tuple(input.event_receiver_ids),
            enabled=input.enabled,
        )
        return await info.context.hub.groups.create(info.context.actor, new)

    @strawberry.mutation(
        graphql_type=UpdateEventReceiverGroupPayload | None, directives=requires(Permission.GROUP_UPDATE)
    )
    @staticmethod
    async def update_event_receiver_group(info: Info, input: UpdateEventReceiverGroupInput) -> groups.Group:
        change = groups.GroupChange(
            name=input.name,
            type=input.type,
            version=input.version,
            description=input.description,
            enabled=input.enabled,
            receiver_ids=None if input.event_receiver_ids is None else tuple(input.event_receiver_ids),
        )
        service = info.context.hub.groups
        return await service.update(info.context.actor, input.id, change, input.expected_version)

    @strawberry.mutation(
        graphql_type=SetEventReceiverGroupEnabledPayload | None, directives=requires(Permission.GROUP_UPDATE)
    )
    @staticmethod
    async def set_event_receiver_group_enabled(info: Info, input: SetEventReceiverGroupEnabledInput) -> groups.Group:
        service = info.context.hub.groups
        return await service.set_enabled(info.context.actor, input.id, input.enabled, input.expected_version)

    @strawberry.mutation(
        graphql_type=DeleteEventReceiverGroupPayload | None, directives=requires(Permission.GROUP_DELETE)
    )
    @staticmethod
    async def delete_event_receiver_group(info: Info, input: DeleteEventReceiverGroupInput) -> groups.Group:
        service = info.context.hub.groups
        return await service.delete(info.context.actor, input.id, input.expected_version)
