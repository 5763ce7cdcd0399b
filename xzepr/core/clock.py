"""Time as the hub writes it: aware, in UTC."""

from datetime import UTC, datetime


def now() -> datetime:
    """The present, in UTC. For what the stream orders the database's clock counts, not this one."""
    return datetime.now(UTC)
