"""What surrounds the hub: where it listens, its database, who signs in, and how it is seen from outside."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from xzepr.settings.types import (
    LATER,
    Count,
    Host,
    HttpUrl,
    Number,
    Origin,
    PostgresUrl,
    Seconds,
    Section,
    Text,
    contradiction,
    lower,
)


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


class DatabaseSettings(Section):
    """PostgreSQL: an address, or none for the embedded server in `data_dir`."""

    url: PostgresUrl | None = Field(
        default=None,
        description="PostgreSQL 15 or newer. Without it, the hub runs a PostgreSQL of its own in `data_dir`.",
    )
    max_connections: Count = Field(default=10, description="Most connections that one process holds in its pool.")
    min_connections: Annotated[Number, Field(ge=0)] = Field(default=2, description="Connections kept open when idle.")
    connection_timeout_seconds: Seconds = Field(default=5, description="Seconds to wait for a connection.")
    statement_timeout_seconds: Seconds = Field(
        default=30, description="Seconds after which PostgreSQL ends a statement."
    )
    lock_timeout_seconds: Seconds = Field(
        default=10, description="Seconds to wait for a lock, the writer's among them."
    )
    idle_in_transaction_timeout_seconds: Seconds = Field(
        default=10, description="Seconds after which PostgreSQL ends a transaction that has gone silent."
    )

    @model_validator(mode="after")
    def _pool_has_room(self) -> Self:
        if self.min_connections > self.max_connections:
            raise contradiction("the least is more than the most", "min_connections", "max_connections")
        return self


class JwtSettings(Section):
    """The access tokens that `login` gives."""

    private_key_path: Path | None = Field(
        default=None,
        description="RSA key that signs tokens, PEM. Needed with `database.url`: `xzepr keys init` makes a pair. "
        "Without `database.url`, the first start makes one in `data_dir`.",
    )
    public_key_path: Path | None = Field(default=None, description="Its public half, PEM.")
    issuer: Text = Field(default="xzepr", description="The `iss` that tokens carry and must carry.")
    audience: Text = Field(default="xzepr", description="The `aud` that tokens carry and must carry.")
    access_token_expiration: Count = Field(default=900, description="Seconds that an access token is valid.")
    refresh_token_expiration: Annotated[Count, LATER] = Field(
        default=86_400, description="Seconds that a refresh token is valid."
    )

    @model_validator(mode="after")
    def _keys_come_in_pairs(self) -> Self:
        if (self.private_key_path is None) != (self.public_key_path is None):
            raise contradiction("a key pair needs both of its files", "private_key_path", "public_key_path")
        return self


class AuthSettings(Section):
    """Signing in, and the first user."""

    admin_username: Annotated[str, Field(min_length=1, max_length=255)] = Field(
        default="admin", description="Name of the user that the first start makes."
    )
    admin_password: SecretStr | None = Field(
        default=None, description="Password of that user. Without it, the first start makes one up and shows it once."
    )
    login_failures_per_minute: Count = Field(
        default=10, description="Failed logins a minute for one user name, after which the next are refused unread."
    )
    password_min_length: Count = Field(default=12, description="Shortest password that is accepted, in characters.")

    @model_validator(mode="after")
    def _own_rule_is_kept(self) -> Self:
        password = self.admin_password
        if password is not None and len(password.get_secret_value()) < self.password_min_length:
            raise contradiction("the password is too short", "admin_password", "password_min_length")
        return self


class CorsSettings(Section):
    """Pages from other origins."""

    allowed_origins: tuple[Origin, ...] = Field(
        default=(), description="Origins, besides the hub's own, from which browsers may open a WebSocket."
    )
    allow_credentials: Annotated[bool, LATER] = Field(default=False, description="Let other origins send credentials.")
    max_age_seconds: Annotated[Number, Field(ge=0), LATER] = Field(
        default=600, description="Seconds that a browser may remember the answer to a preflight."
    )


class RateLimitSettings(Section):
    """Requests a minute."""

    anonymous_rpm: Annotated[Count, LATER] = Field(
        default=60, description="Requests a minute from one address, not signed in."
    )
    authenticated_rpm: Annotated[Count, LATER] = Field(default=600, description="Requests a minute from one user.")
    admin_rpm: Annotated[Count, LATER] = Field(default=6000, description="Requests a minute from one admin.")


class SecuritySettings(Section):
    """What is let in from elsewhere, and how often."""

    cors: CorsSettings = CorsSettings()
    rate_limit: RateLimitSettings = RateLimitSettings()


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


class RedisSettings(Section):
    """A cache that several hub processes share."""

    url: Annotated[SecretStr | None, LATER] = Field(default=None, description="redis:// address.")
