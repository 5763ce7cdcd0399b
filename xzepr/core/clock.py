"""The current time as the hub uses it: with a time zone, in UTC."""

from datetime import UTC, datetime


def now() -> datetime:
    """Returns the current time in UTC. The order of the stream uses the database's clock, not this one."""
    return datetime.now(UTC)
