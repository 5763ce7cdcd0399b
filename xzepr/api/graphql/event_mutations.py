"""Mutations that record events."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry

from xzepr.api.graphql.context import Info
from xzepr.api.graphql.errors import ProblemFacts, problem_facts
from xzepr.api.graphql.events import Event
from xzepr.api.graphql.permissions import guard, requires
from xzepr.api.graphql.scalars import JSON
from xzepr.core.actor import Permission
from xzepr.core.errors import InvalidInput, Problem
from xzepr.features.events.model import NewEvent, Recorded
from xzepr.features.groups import model as groups
from xzepr.features.stream import model as stream

if TYPE_CHECKING:
    from xzepr.api.graphql.groups import Gate

GateType = Annotated["Gate", strawberry.lazy("xzepr.api.graphql.groups")]


@strawberry.input
class CreateEventInput:
    """An event to record."""

    name: str
    version: str
    release: str
    platform_id: str
    package: str
    description: str
    payload: JSON | None = strawberry.field(
        default=strawberry.UNSET,
        description="Any JSON value that the receiver's schema accepts, including null. Required.",
    )
    success: bool
    event_receiver_id: strawberry.ID
    occurred_at: datetime | None = strawberry.field(
        default=None, description="When it happened. Must not be in the future; null means now."
    )
    idempotency_key: str | None = strawberry.field(
        default=None,
        description="Makes retries safe: for at least 24 hours, the same key with the same content returns the first "
        "event, and with different content CONFLICT.",
    )

    def to_new_event(self, path_prefix: str = "") -> NewEvent:
        """Returns the new event as the feature defines it. Raises InvalidInput if the payload is missing.

        `path_prefix` is put before the field's name in the error.
        """
        if self.payload is strawberry.UNSET:
            raise InvalidInput.one(f"{path_prefix}payload", "payload is required: send null if it has no value")
        return NewEvent(
            name=self.name,
            version=self.version,
            release=self.release,
            platform_id=self.platform_id,
            package=self.package,
            description=self.description,
            payload=self.payload,
            success=self.success,
            receiver_id=self.event_receiver_id,
            created_at=self.occurred_at,
            idempotency_key=self.idempotency_key,
        )


@strawberry.input
class CreateEventsInput:
    """A batch of events to record in order."""

    events: list[CreateEventInput]


@strawberry.type(description="A recorded event. It is committed, and its effects on gates are known.")
class CreateEventPayload:
    """Resolved from `events.model.Recorded`."""

    repeated: bool = strawberry.field(
        description="True if the idempotency key was already used for this event; nothing new was recorded."
    )

    @strawberry.field(description="The id of the event.")
    @staticmethod
    def id(root: strawberry.Parent[Recorded]) -> strawberry.ID:
        return strawberry.ID(root.event.id)

    @strawberry.field(
        graphql_type=Event | None,
        description="The event.",
        directives=requires(Permission.EVENT_READ),
        metadata=guard(Permission.EVENT_READ),
    )
    @staticmethod
    def event(root: strawberry.Parent[Recorded]) -> stream.Event:
        return root.event

    @strawberry.field(description="The event's position in the stream: subscribe after it, or wait for it.")
    @staticmethod
    def cursor(root: strawberry.Parent[Recorded]) -> str:
        return str(root.cursor)

    @strawberry.field(
        graphql_type=list[GateType] | None,
        description="The gates of the receiver's enabled groups for the event's unit, as this event left them.",
        directives=requires(Permission.GROUP_READ),
        metadata=guard(Permission.GROUP_READ),
    )
    @staticmethod
    def gates(root: strawberry.Parent[Recorded]) -> list[groups.Gate]:
        return list(root.gates)


@strawberry.type(description="The result for one event of a batch: either `recorded` or `problems`.")
class CreateEventsResult:
    """The result for one event."""

    recorded: CreateEventPayload | None
    problems: list[ProblemFacts]


@strawberry.type
class CreateEventsPayload:
    """The results, in the order of the input."""

    results: list[CreateEventsResult]


@strawberry.type
class EventMutations:
    """Mutations that record events."""

    @strawberry.mutation(graphql_type=CreateEventPayload | None, directives=requires(Permission.EVENT_CREATE))
    @staticmethod
    async def create_event(info: Info, input: CreateEventInput) -> Recorded:
        return await info.context.hub.recorder.record(info.context.actor, input.to_new_event())

    @strawberry.mutation(
        description="Records up to 1,000 events in order, and returns a result for each.",
        directives=requires(Permission.EVENT_CREATE),
    )
    @staticmethod
    async def create_events(info: Info, input: CreateEventsInput) -> CreateEventsPayload | None:
        new_events = [item.to_new_event(f"events/{index}/") for index, item in enumerate(input.events)]
        outcomes = await info.context.hub.recorder.record_all(info.context.actor, new_events)
        return CreateEventsPayload(results=[_result(outcome) for outcome in outcomes])


def _result(outcome: Recorded | Problem) -> CreateEventsResult:
    if isinstance(outcome, Problem):
        return CreateEventsResult(recorded=None, problems=problem_facts(outcome))
    return CreateEventsResult(recorded=outcome, problems=[])  # pyright: ignore[reportArgumentType] resolved from Recorded
