"""Settings of the processes: addresses, limits of requests, logs, metrics and traces."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from xzepr.settings.types import Count, Host, HttpUrl, Later, Number, Seconds, Section, Text, lower


class ServerSettings(Section):
    """Addresses of the hub, and limits of one request."""

    host: Text = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 for all interfaces.")
    port: Annotated[Number, Field(ge=0, le=65535)] = Field(default=8042, description="TCP port; 0 for any free port.")
    workers: Annotated[Count, Field(le=64)] = Field(
        default=1,
        description="Number of processes with which `xzepr serve` serves this port; if more than 1, another process "
        "supervises them.",
    )
    enable_https: Annotated[bool, Later("the hub serves plain HTTP; let a proxy in front of it serve TLS")] = Field(
        default=False, description="Serve TLS. Use a proxy in front of the hub instead."
    )
    allowed_hosts: tuple[Host, ...] = Field(
        default=(),
        description="Allowed `Host` names of requests, besides the hub's own address and that of `public_url`.",
    )
    public_url: HttpUrl | None = Field(
        default=None, description="URL by which clients reach the hub; requests may name its host."
    )
    shutdown_timeout_seconds: Seconds = Field(
        default=20,
        description="Seconds within which the hub ends after a stop signal; requests in flight get most of this time.",
    )
    max_request_bytes: Count = Field(default=16 * 1024**2, description="Maximum size of a request body, in bytes.")
    request_timeout_seconds: Seconds = Field(default=30, description="Seconds after which a request fails.")
    keep_alive_seconds: Count = Field(
        default=75,
        description="Seconds for which an idle connection stays open after a response. A proxy must close its idle "
        "connections sooner.",
    )


class WorkSettings(Section):
    """`xzepr work`, a process that runs the relay and housekeeping without serving clients."""

    port: Annotated[Number, Field(ge=0, le=65535)] | None = Field(
        default=None,
        description="TCP port at `server.host` on which `xzepr work` serves `/health` and `/metrics`; 0 for any free "
        "port. If it is not set, `xzepr work` does not listen.",
    )


class TelemetrySettings(Section):
    """Logs, metrics and traces."""

    jaeger_endpoint: Annotated[
        Text | None, Later("the hub sends traces as OTLP, which Jaeger accepts; set telemetry.otlp_endpoint")
    ] = Field(default=None, description="Jaeger's own protocol. Jaeger accepts OTLP: use `telemetry.otlp_endpoint`.")
    otlp_endpoint: HttpUrl = Field(
        default="http://localhost:4318",
        description="URL to which traces are sent, as OTLP over HTTP, if `tracing_enabled`.",
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lower)] = Field(
        default="info", description="Minimum level of logged messages."
    )
    json_logs: bool | None = Field(
        default=None, description="Log as JSON; by default, unless the log goes to a terminal."
    )
    metrics_enabled: bool = Field(default=True, description="Serve `/metrics`.")
    tracing_enabled: bool = Field(default=False, description="Trace requests; this costs about 160 µs per request.")
    service_name: Text = Field(default="xzepr", description="The name of this service in traces.")
