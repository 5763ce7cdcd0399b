"""The context of a GraphQL operation, which its resolvers share."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import strawberry

from xzepr.api.graphql_server.plans.batches import Batches
from xzepr.core.actor import Actor
from xzepr.hub import Hub


@dataclass(frozen=True, slots=True)
class Context:
    """The context of one operation, or of one message of a subscription."""

    hub: Hub
    actor: Actor
    request_id: str
    last_event_id: str | None
    """The cursor after which an SSE client resumes. It takes precedence over the argument `after`."""
    extensions: Mapping[str, object]
    """The `extensions` of the request, over any transport."""
    batches: Batches = field(default_factory=Batches)
    """The batches of fields that graphql-core resolves."""

    @classmethod
    def new(
        cls, hub: Hub, actor: Actor, request_id: str, extensions: Mapping[str, object], last_event_id: str | None
    ) -> "Context":
        """Creates a context with its own batches."""
        return cls(
            hub=hub,
            actor=actor,
            request_id=request_id,
            last_event_id=last_event_id,
            extensions=extensions,
        )


Info = strawberry.Info[Context, None]
