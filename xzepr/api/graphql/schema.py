"""The schema: what every feature adds to its three roots."""

from functools import cache

import strawberry
from strawberry.schema.config import StrawberryConfig

from xzepr.api.graphql.accounts import AccountMutations, AccountQueries
from xzepr.api.graphql.dead_letters import DeadLetterMutations, DeadLetterQueries
from xzepr.api.graphql.event_mutations import EventMutations
from xzepr.api.graphql.events import EventQueries
from xzepr.api.graphql.groups import GroupMutations, GroupQueries
from xzepr.api.graphql.receivers import ReceiverMutations, ReceiverQueries
from xzepr.api.graphql.scalars import SCALARS
from xzepr.api.graphql.status import RelayMutations, RelayQueries
from xzepr.api.graphql.stream import TYPES, Checkpoint, StreamQueries, StreamSubscription
from xzepr.api.graphql_server.execution import core_schema
from xzepr.api.graphql_server.resolvers import install

PUBLIC_MUTATIONS = frozenset({"login"})  # open to clients without credentials


@strawberry.type
class Query(
    AccountQueries, EventQueries, ReceiverQueries, GroupQueries, StreamQueries, RelayQueries, DeadLetterQueries
):
    """Reads."""


@strawberry.type
class Mutation(
    AccountMutations, EventMutations, ReceiverMutations, GroupMutations, RelayMutations, DeadLetterMutations
):
    """Changes. Each takes one `input` and returns a payload."""


@strawberry.type
class Subscription(StreamSubscription):
    """Follows."""


@cache
def build() -> strawberry.Schema:
    """The main schema, made to be executed fast; there is one in a process, and building it opens nothing."""
    schema = described()
    install(core_schema(schema))
    return schema


def described() -> strawberry.Schema:
    """The main schema as Strawberry makes it."""
    return strawberry.Schema(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        types=[Checkpoint, *TYPES.values()],
        config=StrawberryConfig(scalar_map=SCALARS),
    )


def printed() -> str:
    """The SDL as `schema.graphql` holds it."""
    return described().as_str() + "\n"
