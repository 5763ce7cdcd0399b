"""Settings of PostgreSQL and of the shared cache."""

from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator

from xzepr.settings.types import LATER, Count, Number, PostgresUrl, Seconds, Section, contradiction


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


class RedisSettings(Section):
    """A cache that several hub processes share."""

    url: Annotated[SecretStr | None, LATER] = Field(default=None, description="redis:// address.")
