"""Mutations of event receivers."""

from dataclasses import replace

import strawberry

from xzepr.api.graphql.context import Info
from xzepr.api.graphql.permissions import guard, requires
from xzepr.api.graphql.receivers import EventReceiver
from xzepr.api.graphql.scalars import JSON
from xzepr.api.graphql.snapshots import EventReceiverSnapshot
from xzepr.api.graphql_server.plans.resolvers import ITSELF
from xzepr.core.actor import Permission
from xzepr.features.receivers.model import NewReceiver, Receiver, ReceiverChange

# The receiver of a payload, for callers that may read receivers.
_RECEIVER = ITSELF | guard(Permission.RECEIVER_READ)


@strawberry.input
class CreateEventReceiverInput:
    """A receiver to create."""

    name: str
    type: str
    version: str
    description: str
    schema: JSON
    enabled: bool = True


@strawberry.input
class UpdateEventReceiverInput:
    """Changes to a receiver. Fields that are left out keep their values."""

    id: strawberry.ID
    name: str | None = None
    type: str | None = None
    version: str | None = None
    description: str | None = None
    schema: JSON | None = strawberry.UNSET
    enabled: bool | None = None
    expected_version: int | None = strawberry.field(
        default=None, description="Reject the change with CONFLICT unless the receiver's resourceVersion equals this."
    )


@strawberry.input
class DeleteEventReceiverInput:
    """A receiver to delete. No event and no group may refer to it."""

    id: strawberry.ID
    expected_version: int | None = strawberry.field(
        default=None, description="Reject the change with CONFLICT unless the receiver's resourceVersion equals this."
    )


@strawberry.type(description="The receiver that was created.")
class CreateEventReceiverPayload:
    """Resolved from `receivers.model.Receiver`."""

    id: strawberry.ID = strawberry.field(description="The id of the receiver.")
    event_receiver: EventReceiver | None = strawberry.field(
        description="The receiver.", directives=requires(Permission.RECEIVER_READ), metadata=_RECEIVER
    )


@strawberry.type(description="The receiver that was updated.")
class UpdateEventReceiverPayload:
    """Resolved from `receivers.model.Receiver`."""

    id: strawberry.ID = strawberry.field(description="The id of the receiver.")
    event_receiver: EventReceiver | None = strawberry.field(
        description="The receiver after the change.", directives=requires(Permission.RECEIVER_READ), metadata=_RECEIVER
    )


@strawberry.type(description="The receiver that was deleted.")
class DeleteEventReceiverPayload:
    """Resolved from `receivers.model.Receiver`."""

    id: strawberry.ID = strawberry.field(description="The id of the receiver.")
    event_receiver: EventReceiverSnapshot | None = strawberry.field(
        description="The receiver before it was deleted.",
        directives=requires(Permission.RECEIVER_READ),
        metadata=_RECEIVER,
    )


@strawberry.type
class ReceiverMutations:
    """Mutations of receivers."""

    @strawberry.mutation(
        graphql_type=CreateEventReceiverPayload | None, directives=requires(Permission.RECEIVER_CREATE)
    )
    @staticmethod
    async def create_event_receiver(info: Info, input: CreateEventReceiverInput) -> Receiver:
        new = NewReceiver(
            name=input.name,
            type=input.type,
            version=input.version,
            description=input.description,
            schema=input.schema,
            enabled=input.enabled,
        )
        return await info.context.hub.receivers.create(info.context.actor, new)

    @strawberry.mutation(
        graphql_type=UpdateEventReceiverPayload | None, directives=requires(Permission.RECEIVER_UPDATE)
    )
    @staticmethod
    async def update_event_receiver(info: Info, input: UpdateEventReceiverInput) -> Receiver:
        change = ReceiverChange(
            name=input.name,
            type=input.type,
            version=input.version,
            description=input.description,
            enabled=input.enabled,
        )
        if input.schema is not strawberry.UNSET:
            change = replace(change, schema=input.schema)
        receivers = info.context.hub.receivers
        return await receivers.update(info.context.actor, input.id, change, input.expected_version)

    @strawberry.mutation(
        graphql_type=DeleteEventReceiverPayload | None, directives=requires(Permission.RECEIVER_DELETE)
    )
    @staticmethod
    async def delete_event_receiver(info: Info, input: DeleteEventReceiverInput) -> Receiver:
        receivers = info.context.hub.receivers
        return await receivers.delete(info.context.actor, input.id, input.expected_version)
