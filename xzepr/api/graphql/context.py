"""What a resolver knows of the operation that it works for."""

from collections.abc import Mapping
from dataclasses import dataclass

import strawberry

from xzepr.api.graphql.loaders import Loaders
from xzepr.core.actor import Actor
from xzepr.hub import Hub


@dataclass(frozen=True, slots=True)
class Context:
    """One operation, or one message of a subscription."""

    hub: Hub
    actor: Actor
    request_id: str
    last_event_id: str | None
    """The cursor from which an SSE client resumes; it outranks the argument `after`."""
    extensions: Mapping[str, object]
    """What the client sent as the request's `extensions`, over whichever transport."""
    loaders: Loaders

    @classmethod
    def new(
        cls, hub: Hub, actor: Actor, request_id: str, extensions: Mapping[str, object], last_event_id: str | None
    ) -> "Context":
        """A context with loaders of its own."""
        return cls(hub, actor, request_id, last_event_id, extensions, Loaders(hub, actor))


Info = strawberry.Info[Context, None]
