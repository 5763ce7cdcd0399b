"""Settings of events, groups, GraphQL documents and the stream: sizes, counts and time-outs."""

from typing import Annotated

from pydantic import Field

from xzepr.core.exact_json import MAX_WRITE_DEPTH
from xzepr.settings.types import MAX_COUNT, Count, Hours, Number, Seconds, Section, Skew


class EventSettings(Section):
    """Limits of events, and of the texts of events, receivers and groups."""

    max_payload_bytes: Count = Field(
        default=512 * 1024, description="Maximum size of a payload, in bytes of compact JSON."
    )
    max_payload_depth: Annotated[Count, Field(le=MAX_WRITE_DEPTH)] = Field(
        default=64, description="Maximum nesting depth of a payload."
    )
    max_name_chars: Annotated[Count, Field(le=600)] = Field(
        default=255,
        description="Maximum length, in characters, of the name, version, release, platform and package of an event, "
        "and of the name, type and version of a receiver or group.",
    )
    max_description_chars: Count = Field(
        default=4000, description="Maximum length of the description of an event, receiver or group, in characters."
    )
    max_clock_skew_seconds: Skew = Field(
        default=60,
        description="Maximum seconds by which the time that a client reports for an event may be ahead of the hub's "
        "clock. The time is kept as reported.",
    )
    max_batch_items: Count = Field(default=1000, description="Maximum number of events in one `createEvents`.")
    idempotency_hours: Annotated[Hours, Field(ge=24)] = Field(
        default=24, description="Minimum hours for which an idempotency key is kept."
    )


class RecorderSettings(Section):
    """The queue in which created events wait until they are recorded."""

    max_batch: Count = Field(default=512, description="Maximum number of events in one transaction.")
    queue_size: Count = Field(
        default=10_000, description="Maximum number of waiting events; above it, callers get OVERLOADED."
    )
    max_wait_seconds: Seconds = Field(
        default=5, description="Seconds that an event may wait before its caller gets OVERLOADED."
    )


class GroupSettings(Section):
    """Limits of groups of receivers."""

    max_members: Count = Field(default=100, description="Maximum number of receivers in one group.")
    max_groups_per_receiver: Count = Field(
        default=1000, description="Maximum number of enabled groups with the same receiver."
    )


class GraphQLSettings(Section):
    """Limits of GraphQL documents. They are generous, because they only protect against abuse."""

    max_document_chars: Count = Field(default=100_000, description="Maximum length of a document, in characters.")
    max_tokens: Count = Field(default=10_000, description="Maximum number of tokens in a document.")
    max_depth: Count = Field(default=30, description="Maximum nesting depth of fields, with fragments expanded.")
    max_aliases: Count = Field(default=500, description="Maximum number of aliases, with fragments expanded.")
    document_cache_size: Annotated[Number, Field(ge=0, le=MAX_COUNT)] = Field(
        default=1000, description="Maximum number of validated documents in the cache."
    )


class StreamSettings(Section):
    """The stream, its connections and its subscriptions."""

    partition_size: Annotated[Number, Field(ge=1_000_000, le=10**12)] = Field(
        default=10_000_000, description="Positions in one partition of the stream's table."
    )
    retention_hours: Hours | None = Field(
        default=None,
        description="Hours for which messages are kept; indefinitely if it is not set. Messages that the relay has yet "
        "to publish, or may have to retry, are kept longer. Events are never removed.",
    )
    ring_size: Count = Field(default=10_000, description="Number of newest messages that a process keeps in memory.")
    checkpoint_seconds: Seconds = Field(
        default=10, description="Seconds without a message after which a subscriber gets a checkpoint."
    )
    poll_seconds: Seconds = Field(
        default=1, description="Seconds between reads of the stream if no notification arrives."
    )
    max_frame_bytes: Count = Field(
        default=1024**2, description="Maximum size of a WebSocket frame from a client, in bytes."
    )
    connection_init_timeout_seconds: Seconds = Field(
        default=3, description="Seconds in which a WebSocket client must send `connection_init`."
    )
    ping_seconds: Seconds = Field(
        default=12,
        description="Seconds between pings of a WebSocket; it is closed if nothing is received before the next ping. "
        "Also the idle seconds after which an event stream gets a comment.",
    )
    stalled_seconds: Seconds = Field(
        default=300,
        description="Seconds for which the client of a WebSocket or event stream may leave data unread before the "
        "connection is closed.",
    )
    max_operations: Count = Field(default=100, description="Maximum number of concurrent operations on one WebSocket.")
    max_connections: Count = Field(
        default=10_000, description="Maximum number of WebSockets and event streams in one process."
    )
    max_connections_per_actor: Count = Field(
        default=1_000,
        description="Maximum number of WebSockets and event streams of one user in one process. All clients without "
        "credentials count as one user.",
    )
    max_subscriptions: Count = Field(default=20_000, description="Maximum number of subscriptions in one process.")
    max_subscriptions_per_actor: Count = Field(
        default=1_000,
        description="Maximum number of subscriptions of one user in one process, with all tokens and keys.",
    )
