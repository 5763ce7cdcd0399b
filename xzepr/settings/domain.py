"""Settings of events, groups, GraphQL documents and the stream: sizes, counts and waiting times."""

from typing import Annotated

from pydantic import Field

from xzepr.settings.types import Count, Number, Seconds, Section


class EventSettings(Section):
    """How large an event may be, and how long the texts of events, receivers and groups."""

    max_payload_bytes: Count = Field(default=512 * 1024, description="Largest payload, in bytes of compact JSON.")
    max_payload_depth: Annotated[Count, Field(le=500)] = Field(default=64, description="Deepest nesting of a payload.")
    max_name_chars: Annotated[Count, Field(le=600)] = Field(
        default=255,
        description="Longest name, version, release, platform or package of an event, and longest name, type or "
        "version of a receiver or group, in characters.",
    )
    max_description_chars: Count = Field(
        default=4000, description="Longest description of an event, receiver or group, in characters."
    )
    max_batch_items: Count = Field(default=1000, description="Most items of one `createEvents`.")
    idempotency_hours: Annotated[Number, Field(ge=24)] = Field(
        default=24, description="Hours that an idempotency key is remembered, at least."
    )


class RecorderSettings(Section):
    """The queue between those who create events and the one writer."""

    max_batch: Count = Field(default=512, description="Most events in one transaction.")
    queue_size: Count = Field(default=10_000, description="Most events that wait; past it callers are told OVERLOADED.")
    max_wait_seconds: Seconds = Field(default=5, description="Seconds an event waits for its turn before OVERLOADED.")


class GroupSettings(Section):
    """How large groups of receivers may grow."""

    max_members: Count = Field(default=100, description="Most receivers in one group.")
    max_groups_per_receiver: Count = Field(default=1000, description="Most enabled groups that hold one receiver.")


class GraphQLSettings(Section):
    """How large a GraphQL document may be; generous, since these are bounds against abuse."""

    max_document_chars: Count = Field(default=100_000, description="Longest document, in characters.")
    max_tokens: Count = Field(default=10_000, description="Most tokens of a document.")
    max_depth: Count = Field(default=30, description="Deepest nesting of fields, fragments followed.")
    max_aliases: Count = Field(default=500, description="Most aliases, fragments counted where they are used.")
    document_cache_size: Annotated[Number, Field(ge=0)] = Field(
        default=1000, description="Checked documents that are kept, by their text."
    )


class StreamSettings(Section):
    """The stream and those who follow it."""

    partition_size: Annotated[Number, Field(ge=1_000_000)] = Field(
        default=10_000_000, description="Positions in one partition of the stream's table."
    )
    retention_hours: Count | None = Field(
        default=None,
        description="Hours that messages are kept; without, for ever. What the relay has yet to publish or may have to "
        "send again stays longer; events are never removed.",
    )
    ring_size: Count = Field(default=10_000, description="Newest messages that a process keeps at hand.")
    checkpoint_seconds: Seconds = Field(default=10, description="Seconds of silence after which a checkpoint is sent.")
    poll_seconds: Seconds = Field(default=1, description="Seconds between looks at the stream when no notice arrives.")
    max_frame_bytes: Count = Field(default=1024**2, description="Largest WebSocket frame from a client, in bytes.")
    connection_init_timeout_seconds: Seconds = Field(
        default=3, description="Seconds a WebSocket has to send `connection_init`."
    )
    ping_seconds: Seconds = Field(
        default=12,
        description="Seconds between pings of a WebSocket, which is closed when nothing comes back until the next one; "
        "and seconds of silence after which an event stream gets a comment.",
    )
    stalled_seconds: Seconds = Field(
        default=300,
        description="Seconds that a WebSocket or event stream may leave unread what was sent to it, before it is "
        "closed.",
    )
    max_operations: Count = Field(default=100, description="Most operations at a time on one WebSocket.")
    max_connections: Count = Field(default=10_000, description="Most WebSockets and event streams of one process.")
    max_connections_per_actor: Count = Field(
        default=1_000,
        description="Most WebSockets and event streams of one user in one process; who comes without credentials "
        "counts as one user.",
    )
    max_subscriptions: Count = Field(default=20_000, description="Most subscriptions in one process.")
    max_subscriptions_per_actor: Count = Field(
        default=1_000, description="Most subscriptions of one user in one process, whichever tokens and keys they use."
    )
