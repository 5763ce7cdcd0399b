"""The GraphQL schema: its three root types, assembled from the fields of each feature."""

from functools import cache
from operator import attrgetter

import strawberry
from strawberry.schema.config import StrawberryConfig

from xzepr.api.graphql.accounts import AccountMutations, AccountQueries
from xzepr.api.graphql.dead_letters import DeadLetterMutations, DeadLetterQueries
from xzepr.api.graphql.event_mutations import EventMutations
from xzepr.api.graphql.events import EventQueries
from xzepr.api.graphql.group_mutations import GroupMutations
from xzepr.api.graphql.groups import GroupQueries
from xzepr.api.graphql.messages import MESSAGE_TYPES, Checkpoint
from xzepr.api.graphql.receiver_mutations import ReceiverMutations
from xzepr.api.graphql.receivers import ReceiverQueries
from xzepr.api.graphql.scalars import SCALARS
from xzepr.api.graphql.status import RelayMutations, StatusQueries
from xzepr.api.graphql.stream import StreamQueries, StreamSubscription
from xzepr.api.graphql_server.plans.execution import core_schema
from xzepr.api.graphql_server.plans.resolvers import install

PUBLIC_MUTATIONS = frozenset({"login"})  # need no credentials
DURABLE_MUTATIONS = frozenset({"createEvent"})  # the recorder records an event although its caller is cancelled
IMMUTABLE_TYPES = {"Event": attrgetter("id")}  # whose objects never change, with the identity of an object


@strawberry.type
class Query(
    AccountQueries, EventQueries, ReceiverQueries, GroupQueries, StreamQueries, StatusQueries, DeadLetterQueries
):
    """All queries."""


@strawberry.type
class Mutation(
    AccountMutations, EventMutations, ReceiverMutations, GroupMutations, RelayMutations, DeadLetterMutations
):
    """All mutations. Each takes one `input` and returns a payload."""


@strawberry.type
class Subscription(StreamSubscription):
    """All subscriptions."""


@cache
def build() -> strawberry.Schema:
    """Returns the schema, prepared for fast execution. There is one per process; building it opens no connection."""
    schema = strawberry_schema()
    install(core_schema(schema))
    return schema


def strawberry_schema() -> strawberry.Schema:
    """Returns the schema as Strawberry builds it."""
    return strawberry.Schema(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        types=[Checkpoint, *MESSAGE_TYPES.values()],
        config=StrawberryConfig(scalar_map=SCALARS),
    )


def sdl() -> str:
    """Returns the schema as text, as in `schema.graphql`."""
    return strawberry_schema().as_str() + "\n"
