"""Receivers and groups as they were at an earlier time, in types that caches keep apart from the current objects."""

from datetime import datetime

import strawberry

from xzepr.api.graphql.scalars import JSON
from xzepr.features.groups.model import Group
from xzepr.features.receivers.model import Receiver

_ID = "Identifies this state: the id of the object and its `resourceVersion`. Equal ids mean equal fields."
_VERSION = "The number of the state: 1 at first, and one higher after each change."


def _state_id(root: Receiver | Group) -> strawberry.ID:
    return strawberry.ID(f"{root.id}@{root.resource_version}")


@strawberry.type(description="A receiver as it was at an earlier time.")
class EventReceiverSnapshot:
    """Resolved from `receivers.model.Receiver`."""

    @strawberry.field(description=_ID)
    @staticmethod
    def id(root: strawberry.Parent[Receiver]) -> strawberry.ID:
        return _state_id(root)

    @strawberry.field(description="The id of the receiver.")
    @staticmethod
    def event_receiver_id(root: strawberry.Parent[Receiver]) -> strawberry.ID:
        return strawberry.ID(root.id)

    name: str = strawberry.field(description="The name of the receiver.")
    type: str = strawberry.field(description="The type of the receiver.")
    version: str = strawberry.field(description="The version of the receiver.")
    description: str = strawberry.field(description="What the receiver is for, as text for people.")
    schema: JSON = strawberry.field(description="The JSON Schema of its payloads.")
    schema_digest: str = strawberry.field(description="SHA-256 of the schema as compact JSON.")
    revision: int = strawberry.field(description="The revision of the schema.")
    fingerprint: str = strawberry.field(description="SHA-256 of type, description, name and version.")
    enabled: bool = strawberry.field(description="Whether the receiver accepted events.")
    owner_id: strawberry.ID = strawberry.field(description="The id of the user that created it.")
    resource_version: int = strawberry.field(description=_VERSION)
    created_at: datetime = strawberry.field(description="When the receiver was created.")
    updated_at: datetime = strawberry.field(description="When the receiver was last changed before that time.")


@strawberry.type(description="A group of receivers as it was at an earlier time.")
class EventReceiverGroupSnapshot:
    """Resolved from `groups.model.Group`."""

    @strawberry.field(description=_ID)
    @staticmethod
    def id(root: strawberry.Parent[Group]) -> strawberry.ID:
        return _state_id(root)

    @strawberry.field(description="The id of the group.")
    @staticmethod
    def event_receiver_group_id(root: strawberry.Parent[Group]) -> strawberry.ID:
        return strawberry.ID(root.id)

    name: str = strawberry.field(description="The name of the group.")
    type: str = strawberry.field(description="The type of the group.")
    version: str = strawberry.field(description="The version of the group.")
    description: str = strawberry.field(description="What the group is for, as text for people.")
    enabled: bool = strawberry.field(description="Whether the group was a gate.")
    owner_id: strawberry.ID = strawberry.field(description="The id of the user that created it.")
    resource_version: int = strawberry.field(description=_VERSION)
    created_at: datetime = strawberry.field(description="When the group was created.")
    updated_at: datetime = strawberry.field(description="When the group was last changed before that time.")

    @strawberry.field(description="The ids of its members, in the order in which they were set.")
    @staticmethod
    def event_receiver_ids(root: strawberry.Parent[Group]) -> list[strawberry.ID]:
        return [strawberry.ID(id) for id in root.receiver_ids]
