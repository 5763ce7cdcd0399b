"""Dead letters in the schema: what Kafka refused and why, sending it again, and giving it up."""

from collections.abc import Sequence
from datetime import datetime

import strawberry

from xzepr.api.graphql.context import Info
from xzepr.api.graphql.paging import Connection, Listed, page_request, to_connection
from xzepr.api.graphql.permissions import requires
from xzepr.api.graphql.scalars import Position
from xzepr.core.actor import Permission
from xzepr.core.errors import InvalidInput
from xzepr.features.relay import dead_letters
from xzepr.features.relay.dead_letters import DeadLetterState

DeadLetterStateType = strawberry.enum(
    DeadLetterState, name="DeadLetterState", description="What becomes of a message that Kafka refused."
)


@strawberry.type(description="A message of the stream that the brokers of a route refused, and that was left out.")
class DeadLetter:
    """Resolved from `dead_letters.DeadLetter`."""

    route: str
    position: Position = strawberry.field(description="Of the message in the stream, which keeps it.")
    message_id: strawberry.ID
    reason: str = strawberry.field(description="Why it was refused last.")
    attempts: int
    refused_at: datetime = strawberry.field(description="When it was refused last.")
    state: DeadLetterStateType  # pyright: ignore[reportInvalidTypeForm] an enum, as Strawberry wraps it
    by: str | None = strawberry.field(description="Who dropped it or had it sent again.")


@strawberry.input(description="Dead letters to be sent again: give either `positions` or `all: true`.")
class RetryDeadLettersInput:
    """Which of a route's dead letters to send again."""

    route: str
    positions: list[Position] | None = strawberry.field(default=None, description="1 to 1000 of them.")
    all: bool = strawberry.field(default=False, description="All that were not dropped.")


@strawberry.type(description="The instruction is left for the relay, which follows it within a second or two.")
class RetryDeadLettersPayload:
    """How many will be sent."""

    count: int


@strawberry.input(description="Dead letters to be given up: give either `positions` or `all: true`.")
class DropDeadLettersInput:
    """Which of a route's dead letters to give up."""

    route: str
    positions: list[Position] | None = strawberry.field(default=None, description="1 to 1000 of them.")
    all: bool = strawberry.field(default=False, description="All that are not about to be sent again.")


@strawberry.type(description="They are given up; the stream keeps them.")
class DropDeadLettersPayload:
    """How many were given up."""

    count: int


@strawberry.type
class DeadLetterQueries:
    """Root fields about dead letters."""

    @strawberry.field(
        graphql_type=Connection[DeadLetter] | None,
        description="What a route left out: what is still open, or what was dropped. Newest first.",
        directives=requires(Permission.STREAM_ADMIN),
    )
    @staticmethod
    async def dead_letters(
        info: Info, route: str, dropped: bool = False, first: int = 50, after: str | None = None
    ) -> Listed[dead_letters.DeadLetter]:
        request = page_request(first, after)
        page = await dead_letters.page(info.context.hub.db, info.context.actor, route, request, dropped=dropped)
        return to_connection(page, lambda letter: letter.position, request)


@strawberry.type
class DeadLetterMutations:
    """Root fields that decide what becomes of dead letters."""

    @strawberry.mutation(
        description="Have the relay send them again, dropped ones too, within a second or two: each once, behind what "
        "was sent meanwhile.",
        directives=requires(Permission.STREAM_ADMIN),
    )
    @staticmethod
    async def retry_dead_letters(info: Info, input: RetryDeadLettersInput) -> RetryDeadLettersPayload | None:
        context = info.context
        count = await dead_letters.retry(context.hub.db, context.actor, input.route, _chosen(input))
        return RetryDeadLettersPayload(count=count)

    @strawberry.mutation(
        description="Give them up. The stream keeps them, and they can still be sent again.",
        directives=requires(Permission.STREAM_ADMIN),
    )
    @staticmethod
    async def drop_dead_letters(info: Info, input: DropDeadLettersInput) -> DropDeadLettersPayload | None:
        context = info.context
        count = await dead_letters.drop(context.hub.db, context.actor, input.route, _chosen(input))
        return DropDeadLettersPayload(count=count)


def _chosen(input: RetryDeadLettersInput | DropDeadLettersInput) -> Sequence[int] | None:
    """Their positions; None for all of them."""
    if (input.positions is not None) == input.all:
        raise InvalidInput.one("positions", "give either positions or all: true")
    return input.positions
