"""Settings of the processes: where they listen, what one request may take, and how they are observed."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from xzepr.settings.types import LATER, Count, Host, HttpUrl, Number, Seconds, Section, Text, lower


class ServerSettings(Section):
    """Where the hub listens, and what it takes from one request."""

    host: Text = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 for all of them.")
    port: Annotated[Number, Field(ge=0, le=65535)] = Field(default=8042, description="TCP port; 0 takes a free one.")
    workers: Annotated[Count, Field(le=64)] = Field(
        default=1,
        description="Processes that `xzepr serve` serves with, all on this port; with more than 1 one more "
        "looks after them.",
    )
    enable_https: Annotated[bool, LATER] = Field(default=False, description="Serve TLS. End TLS in front of the hub.")
    allowed_hosts: tuple[Host, ...] = Field(
        default=(),
        description="Host names that requests may name besides the hub's own address and that of `public_url`.",
    )
    public_url: HttpUrl | None = Field(
        default=None, description="The address by which clients reach the hub, for links to it."
    )
    shutdown_timeout_seconds: Seconds = Field(
        default=20,
        description="Seconds in which the hub ends when it is told to stop; what clients have under way is given most "
        "of them.",
    )
    max_request_bytes: Count = Field(default=16 * 1024**2, description="Largest request body, in bytes.")
    request_timeout_seconds: Seconds = Field(default=30, description="Seconds after which a request is given up.")


class WorkSettings(Section):
    """`xzepr work`, a process that relays into Kafka and keeps house, and serves nobody."""

    port: Annotated[Number, Field(ge=0, le=65535)] | None = Field(
        default=None,
        description="TCP port at `server.host` where `xzepr work` answers `/health` and `/metrics`, 0 for a free one; "
        "without, it listens nowhere.",
    )


class TelemetrySettings(Section):
    """Logs, metrics and traces."""

    jaeger_endpoint: Annotated[Text | None, LATER] = Field(
        default=None, description="Jaeger's own protocol. Jaeger takes OTLP: set `telemetry.otlp_endpoint`."
    )
    otlp_endpoint: HttpUrl = Field(
        default="http://localhost:4318", description="Where traces go, as OTLP over HTTP, when `tracing_enabled`."
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lower)] = Field(
        default="info", description="Least level that is logged."
    )
    json_logs: bool | None = Field(default=None, description="Log lines as JSON; when not set, unless on a terminal.")
    metrics_enabled: bool = Field(default=True, description="Serve `/metrics`.")
    tracing_enabled: bool = Field(default=False, description="Trace requests; costs about 160 µs for each.")
    service_name: Text = Field(default="xzepr", description="The name of this service in traces.")
