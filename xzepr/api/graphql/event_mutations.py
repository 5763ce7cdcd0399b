"""Recording events, in the schema."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry

from xzepr.api.graphql.context import Info
from xzepr.api.graphql.errors import ProblemFacts, problem_facts
from xzepr.api.graphql.events import Event
from xzepr.api.graphql.permissions import requires
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
    """An event as it is reported."""

    name: str
    version: str
    release: str
    platform_id: str
    package: str
    description: str
    payload: JSON | None = strawberry.field(
        default=strawberry.UNSET,
        description="Any JSON that the receiver's schema accepts; null is a value too. Required.",
    )
    success: bool
    event_receiver_id: strawberry.ID
    created_at: datetime | None = strawberry.field(
        default=None, description="When it happened, not later than now; null means now."
    )
    idempotency_key: str | None = strawberry.field(
        default=None,
        description="The same key with the same content is the same event, for at least 24 hours; with other content "
        "it is a conflict.",
    )

    def to_new_event(self, place: str = "") -> NewEvent:
        """The feature's new event; raises InvalidInput without a payload. `place` goes before the field's name."""
        if self.payload is strawberry.UNSET:
            raise InvalidInput.one(f"{place}payload", "payload is required; send null where null is meant")
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
            created_at=self.created_at,
            idempotency_key=self.idempotency_key,
        )


@strawberry.input
class CreateEventsInput:
    """Many events, recorded in order."""

    events: list[CreateEventInput]


@strawberry.type(description="An event that is recorded: it is committed, and every gate it touches is known.")
class CreateEventPayload:
    """Resolved from `events.model.Recorded`."""

    repeated: bool = strawberry.field(
        description="The idempotency key had been used for this very event; nothing new was recorded."
    )

    @strawberry.field(graphql_type=Event)
    @staticmethod
    def event(root: strawberry.Parent[Recorded]) -> stream.Event:
        return root.event

    @strawberry.field(description="Where it stands in the stream: subscribe after it, or wait for it.")
    @staticmethod
    def cursor(root: strawberry.Parent[Recorded]) -> str:
        return str(root.cursor)

    @strawberry.field(
        graphql_type=list[GateType] | None,
        description="The gates of its receiver's enabled groups for its unit, as the event left them.",
        directives=requires(Permission.GROUP_READ),
    )
    @staticmethod
    def gates(root: strawberry.Parent[Recorded], info: Info) -> list[groups.Gate]:
        info.context.actor.must(Permission.GROUP_READ)
        return list(root.gates)


@strawberry.type(description="What became of one event of many: either it is recorded, or there are problems.")
class CreateEventsResult:
    """One item's answer."""

    recorded: CreateEventPayload | None
    problems: list[ProblemFacts]


@strawberry.type
class CreateEventsPayload:
    """The answers, in the order of the input."""

    results: list[CreateEventsResult]


@strawberry.type
class EventMutations:
    """Root fields that record events."""

    @strawberry.mutation(graphql_type=CreateEventPayload | None, directives=requires(Permission.EVENT_CREATE))
    @staticmethod
    async def create_event(info: Info, input: CreateEventInput) -> Recorded:
        return await info.context.hub.recorder.record(info.context.actor, input.to_new_event())

    @strawberry.mutation(
        description="Records up to 1,000 events in order; each is answered by itself.",
        directives=requires(Permission.EVENT_CREATE),
    )
    @staticmethod
    async def create_events(info: Info, input: CreateEventsInput) -> CreateEventsPayload | None:
        news = [item.to_new_event(f"events/{index}/") for index, item in enumerate(input.events)]
        answers = await info.context.hub.recorder.record_all(info.context.actor, news)
        return CreateEventsPayload(results=[_result(answer) for answer in answers])


def _result(answer: Recorded | Problem) -> CreateEventsResult:
    if isinstance(answer, Problem):
        return CreateEventsResult(recorded=None, problems=problem_facts(answer))
    return CreateEventsResult(recorded=answer, problems=[])  # pyright: ignore[reportArgumentType] resolved from Recorded
