"""Settings of PostgreSQL and of the shared cache."""

from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator

from xzepr.settings.types import MAX_COUNT, Count, Later, Number, PostgresUrl, Seconds, Section, contradiction


class DatabaseSettings(Section):
    """PostgreSQL: an external server, or the embedded one in `data_dir`."""

    url: PostgresUrl | None = Field(
        default=None,
        description="URL of a PostgreSQL 15 or newer. By default, the hub runs an embedded PostgreSQL in `data_dir`.",
    )
    max_connections: Count = Field(default=10, description="Maximum number of connections in the pool of one process.")
    min_connections: Annotated[Number, Field(ge=0, le=MAX_COUNT)] = Field(
        default=2, description="Number of connections that stay open when idle."
    )
    connection_timeout_seconds: Seconds = Field(default=5, description="Seconds to wait for a connection.")
    statement_timeout_seconds: Seconds = Field(
        default=30, description="Seconds after which PostgreSQL cancels a statement."
    )
    lock_timeout_seconds: Seconds = Field(
        default=10, description="Seconds to wait for a lock, such as the writer lock."
    )
    idle_in_transaction_timeout_seconds: Seconds = Field(
        default=10, description="Seconds after which PostgreSQL terminates an idle transaction."
    )

    @model_validator(mode="after")
    def _check_pool_size(self) -> Self:
        if self.min_connections > self.max_connections:
            raise contradiction("the minimum is larger than the maximum", "min_connections", "max_connections")
        return self


class RedisSettings(Section):
    """A cache shared by several hub processes."""

    url: Annotated[SecretStr | None, Later("the hub has no shared cache; each process has its own")] = Field(
        default=None, description="redis:// address."
    )
