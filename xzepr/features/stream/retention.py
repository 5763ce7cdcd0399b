"""Retention: messages that are older than the stream is kept go, from its old end only, so that no gap appears.

The last message that goes stays in the table as the mark of where the stream begins: its cursor is the oldest that a
consumer can go on from (see `docs/adr/0028-retention-takes-the-old-end.md`). Events are no messages, and stay.
"""

import asyncio
import time
from datetime import timedelta

import structlog

from xzepr.core.errors import Overloaded
from xzepr.features.stream import retention_store as store
from xzepr.features.stream.retention_store import Bounds
from xzepr.infra.db import Connection, Database

_PORTION = 2_000
"""Messages in one transaction: some ten milliseconds."""
_BREATH_SECONDS = 0.01
_ROUND_SECONDS = 20.0
"""How long one round may take; the next one goes on."""
_log = structlog.stdlib.get_logger(__name__)


class Retention:
    """Removes what is older than the stream is kept, unless somebody still needs it."""

    def __init__(self, db: Database, keep: timedelta | None, route: str | None) -> None:
        """`keep` None: everything, for ever. `route` is the route that the relay is configured for, if it is."""
        self._db = db
        self._keep = keep
        self._route = route
        self._held = ""

    async def enforce(self) -> None:
        """Removes old messages, for 20 s at most. Several processes may do it at once: one does."""
        if self._keep is None:
            return
        end = time.monotonic() + _ROUND_SECONDS
        try:
            while time.monotonic() < end:
                if not await self._take(self._keep):
                    return
                await asyncio.sleep(_BREATH_SECONDS)
        except Overloaded:
            _log.info("retention.postponed", reason="somebody else holds what is to go")

    async def _take(self, keep: timedelta) -> bool:
        """One transaction, which locks nothing that writers need; whether it took something."""
        async with self._db.write() as connection:
            if not await store.try_turn(connection):
                return False
            bounds = await store.bounds(connection, self._route, keep)
            if await _take_partition(connection, bounds.lowest, keep):
                return True
            if await store.remove(connection, bounds.lowest, keep, _PORTION):
                return True
            self._say_what_holds(bounds, await store.is_old(connection, bounds.lowest + 1, keep))
            return False

    def _say_what_holds(self, bounds: Bounds, held: bool) -> None:
        """Logs once that messages stay which are old enough to go."""
        what = "" if not held else "the relay" if bounds.lowest == bounds.published else "a dead letter"
        if what != self._held and what:
            _log.warning("retention.held", by=what, position=bounds.lowest)
        self._held = what


async def _take_partition(connection: Connection, last: int, keep: timedelta) -> bool:
    """Drops the oldest partition as a whole, if the message that follows on it may be the mark."""
    oldest = await store.oldest_partition(connection)
    if oldest.end > last or not await store.is_old(connection, oldest.end, keep):
        return False
    await store.drop_partition(connection, oldest.name)
    _log.info("retention.partition_dropped", partition=oldest.name)
    return True
