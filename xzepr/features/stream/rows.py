"""The columns of an event, for every store that selects from `events AS e`."""

from typing import Any, LiteralString

from xzepr.features.stream.model import Event

EVENT_COLUMNS: LiteralString = """
    e.position, e.id, e.unit_id, e.name, e.version, e.release, e.platform_id, e.package, e.description,
    e.payload::text, e.success, e.receiver_id, e.receiver_revision, e.owner_id, e.created_at, e.recorded_at
"""


def event_of_row(*columns: Any) -> Event:
    """Returns the event in a row of EVENT_COLUMNS."""
    values = list(columns)
    values[9] = values[9].encode()
    return Event(*values)
