"""The context of a GraphQL operation, which its resolvers share."""

from collections.abc import Mapping

import strawberry

from xzepr.api.graphql_server.plans.batches import Batches
from xzepr.core.actor import Actor
from xzepr.core.frozen import frozen
from xzepr.hub import Hub


@frozen
class Context:
    """The context of one operation, or of one message of a subscription."""

    hub: Hub
    actor: Actor
    request_id: str
    last_event_id: str | None
    """The cursor after which an SSE client resumes. It takes precedence over the argument `after`."""
    extensions: Mapping[str, object]
    """The `extensions` of the request, over any transport."""
    batches: Batches
    """The batches of fields that graphql-core resolves."""

    @classmethod
    def new(
        cls, hub: Hub, actor: Actor, request_id: str, extensions: Mapping[str, object], last_event_id: str | None
    ) -> "Context":
        """Creates a context with its own batches."""
        return cls(hub, actor, request_id, last_event_id, extensions, Batches())


Info = strawberry.Info[Context, None]
