"""The context of a GraphQL operation, which its resolvers share."""

from collections.abc import Mapping
from dataclasses import dataclass

import strawberry

from xzepr.api.graphql.loaders import Loaders
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
    loaders: Loaders

    @classmethod
    def new(
        cls, hub: Hub, actor: Actor, request_id: str, extensions: Mapping[str, object], last_event_id: str | None
    ) -> "Context":
        """Creates a context with its own loaders."""
        return cls(
            hub=hub,
            actor=actor,
            request_id=request_id,
            last_event_id=last_event_id,
            extensions=extensions,
            loaders=Loaders(hub, actor),
        )


Info = strawberry.Info[Context, None]
