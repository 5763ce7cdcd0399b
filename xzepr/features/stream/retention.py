"""Retention: removes messages older than `stream.retention_hours` from the old end of the stream, without gaps.

The last removed message stays in the table as the mark of where the stream starts: its cursor is the oldest from which
a consumer can resume (see `docs/adr/0028-retention-takes-the-old-end.md`). Events are never removed.
"""

import asyncio
import time
from datetime import timedelta

import structlog

from xzepr.core.errors import Overloaded
from xzepr.features.stream import retention_store as store
from xzepr.features.stream.retention_store import Bounds
from xzepr.infra.db import Connection, Database

_BATCH_MESSAGES = 2_000  # of one transaction, which takes about ten milliseconds
_PAUSE_SECONDS = 0.01
_ROUND_SECONDS = 20.0  # of one call; the next one continues
_log = structlog.stdlib.get_logger(__name__)


class Retention:
    """Removes old messages, except those that the relay still needs."""

    def __init__(self, db: Database, keep: timedelta | None, route: str | None) -> None:
        """`keep`: None keeps everything. `route`: the route that the relay is configured for; None without brokers."""
        self._db = db
        self._keep = keep
        self._route = route
        self._blocker = ""

    async def enforce(self) -> None:
        """Removes old messages, for at most 20 s. If several processes call it at once, one of them does the work."""
        if self._keep is None:
            return
        end = time.monotonic() + _ROUND_SECONDS
        try:
            while time.monotonic() < end:
                if not await self._remove_batch(self._keep):
                    return
                await asyncio.sleep(_PAUSE_SECONDS)
        except Overloaded:
            _log.info("retention.postponed", reason="another session reads or locks the messages")

    async def _remove_batch(self, keep: timedelta) -> bool:
        """Runs one transaction, without locks that writers need. Returns whether it removed anything."""
        async with self._db.write() as connection:
            if not await store.try_lock(connection):
                return False
            bounds = await store.bounds(connection, self._route, keep)
            if await _drop_oldest_partition(connection, bounds.lowest, keep):
                return True
            if await store.remove(connection, bounds.lowest, keep, _BATCH_MESSAGES):
                return True
            self._log_blocker(bounds, await store.is_old(connection, bounds.lowest + 1, keep))
            return False

    def _log_blocker(self, bounds: Bounds, is_blocked: bool) -> None:
        """Logs once what keeps messages that are old enough to be removed."""
        blocker = "" if not is_blocked else "the relay" if bounds.lowest == bounds.published else "a dead letter"
        if blocker != self._blocker and blocker:
            _log.warning("retention.held", by=blocker, position=bounds.lowest)
        self._blocker = blocker


async def _drop_oldest_partition(connection: Connection, last: int, keep: timedelta) -> bool:
    """Drops the oldest partition as a whole, if the message after it may become the mark."""
    oldest = await store.oldest_partition(connection)
    if oldest.end > last or not await store.is_old(connection, oldest.end, keep):
        return False
    await store.drop_partition(connection, oldest.name)
    _log.info("retention.partition_dropped", partition=oldest.name)
    return True
