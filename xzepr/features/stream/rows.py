"""The columns of an event, for every store that selects from `events AS e`."""

from typing import LiteralString

# The fields of `Event`, in their order. In a cursor with `binary=True`, the payload is bytes.
EVENT_COLUMNS: LiteralString = """
    e.position, e.id, e.unit_id, e.name, e.version, e.release, e.platform_id, e.package, e.description,
    e.payload, e.success, e.receiver_id, e.receiver_revision, e.owner_id, e.created_at, e.recorded_at
"""
