"""Dead letters in the schema: listing, retrying and dropping messages that Kafka rejected."""

from collections.abc import Sequence
from datetime import datetime

import strawberry

from xzepr.api.graphql.context import Info
from xzepr.api.graphql.paging import Connection, ConnectionData, page_request, to_connection
from xzepr.api.graphql.permissions import requires
from xzepr.api.graphql.scalars import Position
from xzepr.core.actor import Permission
from xzepr.core.errors import InvalidInput
from xzepr.features.relay import dead_letters
from xzepr.features.relay.dead_letters import DeadLetterState

DeadLetterStateType = strawberry.enum(
    DeadLetterState,
    name="DeadLetterState",
    description="What happens to a message that Kafka rejected. WAITING: an administrator must decide. RETRYING: the "
    "relay is about to send it again. DROPPED: an administrator does not want it in Kafka.",
)


@strawberry.type(description="A message that the brokers of a route rejected and that the relay skipped.")
class DeadLetter:
    """Resolved from `dead_letters.DeadLetter`."""

    route: str
    position: Position = strawberry.field(description="The message's position in the stream, which keeps the message.")
    message_id: strawberry.ID
    reason: str = strawberry.field(description="Why it was rejected most recently.")
    attempts: int = strawberry.field(description="How often it has become a dead letter.")
    refused_at: datetime = strawberry.field(description="When it was rejected most recently.")
    state: DeadLetterStateType  # pyright: ignore[reportInvalidTypeForm] an enum, as Strawberry wraps it
    by: str | None = strawberry.field(
        description="The name of the user that dropped or retried it; null if no one did."
    )


@strawberry.input(description="The dead letters to send again: set either `positions` or `all: true`.")
class RetryDeadLettersInput:
    """The dead letters of a route to send again."""

    route: str
    positions: list[Position] | None = strawberry.field(default=None, description="1 to 1,000 positions.")
    all: bool = strawberry.field(default=False, description="All dead letters except dropped ones.")


@strawberry.type(description="The instruction is stored, and the relay applies it within a second or two.")
class RetryDeadLettersPayload:
    """The number of dead letters that will be sent."""

    count: int


@strawberry.input(description="The dead letters to drop: set either `positions` or `all: true`.")
class DropDeadLettersInput:
    """The dead letters of a route to drop."""

    route: str
    positions: list[Position] | None = strawberry.field(default=None, description="1 to 1,000 positions.")
    all: bool = strawberry.field(
        default=False, description="All dead letters except those that are about to be sent again."
    )


@strawberry.type(description="The dead letters were dropped. The stream keeps their messages.")
class DropDeadLettersPayload:
    """The number of dead letters that were dropped."""

    count: int


@strawberry.type
class DeadLetterQueries:
    """Queries for dead letters."""

    @strawberry.field(
        graphql_type=Connection[DeadLetter] | None,
        description="The dead letters of a route, newest first. With `dropped: true`, only those that were dropped; "
        "otherwise only the others.",
        directives=requires(Permission.STREAM_ADMIN),
    )
    @staticmethod
    async def dead_letters(
        info: Info, route: str, dropped: bool = False, first: int = 50, after: str | None = None
    ) -> ConnectionData[dead_letters.DeadLetter]:
        request = page_request(first, after)
        page = await dead_letters.page(info.context.hub.db, info.context.actor, route, request, dropped=dropped)
        return to_connection(page, request)


@strawberry.type
class DeadLetterMutations:
    """Mutations of dead letters."""

    @strawberry.mutation(
        description="Makes the relay send dead letters again, including dropped ones, within a second or two. Each is "
        "sent once, after everything that was sent in between.",
        directives=requires(Permission.STREAM_ADMIN),
    )
    @staticmethod
    async def retry_dead_letters(info: Info, input: RetryDeadLettersInput) -> RetryDeadLettersPayload | None:
        context = info.context
        count = await dead_letters.retry(context.hub.db, context.actor, input.route, _positions(input))
        return RetryDeadLettersPayload(count=count)

    @strawberry.mutation(
        description="Drops dead letters. The stream keeps their messages, and they can still be sent again.",
        directives=requires(Permission.STREAM_ADMIN),
    )
    @staticmethod
    async def drop_dead_letters(info: Info, input: DropDeadLettersInput) -> DropDeadLettersPayload | None:
        context = info.context
        count = await dead_letters.drop(context.hub.db, context.actor, input.route, _positions(input))
        return DropDeadLettersPayload(count=count)


def _positions(input: RetryDeadLettersInput | DropDeadLettersInput) -> Sequence[int] | None:
    """Returns the positions; None for all dead letters. Raises InvalidInput unless exactly one of the two is set."""
    if (input.positions is not None) == input.all:
        raise InvalidInput.one("positions", "give either positions or all: true")
    return input.positions
