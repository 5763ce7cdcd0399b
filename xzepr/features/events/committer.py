"""Commits the batches of the recorder, one after another, on their own connection."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xzepr.features.events import batch_store, catalog
from xzepr.features.events.batch import Batch
from xzepr.features.events.queue import Pending
from xzepr.features.stream import service as stream_service
from xzepr.features.stream.service import Stream
from xzepr.infra.db import ConnectionLost, Database
from xzepr.infra.pipeline import Pipeline, failure_of
from xzepr.settings import EventSettings

_STATEMENTS = (*stream_service.STATEMENTS, *catalog.STATEMENTS, *batch_store.STATEMENTS)


@dataclass(frozen=True, slots=True)
class FailedBatch:
    """A batch whose transaction failed, or whose outcome is unknown if the error is ConnectionLost."""

    batch: Batch
    error: Exception


class Committer:
    """Commits batches, one at a time. The recorder decides what to do about one that fails."""

    def __init__(
        self,
        db: Database,
        stream: Stream,
        limits: EventSettings,
        *,
        timeout_seconds: float,
        committed: Callable[[Batch, float], None],
    ) -> None:
        """`committed(batch, seconds)` is called after each COMMIT, in this order.

        A transaction without a response for `timeout_seconds` fails with ConnectionLost.
        """
        self._db = db
        self._stream = stream
        self._limits = limits
        self._timeout_seconds = timeout_seconds
        self._committed = committed
        self._catalog = catalog.KnownCatalog()
        self._pipeline: Pipeline | None = None

    async def commit(self, pendings: Sequence[Pending]) -> FailedBatch | None:
        """Commits events in one transaction. Returns the batch if that fails.

        A connection that is known to be lost is replaced first. A cancellation closes it: the outcome is unknown then.
        """
        batch = Batch(pendings, self._stream.process_id, self._limits)
        began = time.monotonic()
        try:
            if self._pipeline is None or self._pipeline.is_lost:
                self.disconnect()
                self._pipeline = await Pipeline.open(self._db, "recorder", _STATEMENTS)
            self._pipeline.limit(self._timeout_seconds)
            await batch.record(self._pipeline, self._catalog)
        except Exception as error:
            return FailedBatch(batch, _failure(batch, error))
        except BaseException:
            self.disconnect()
            raise
        self._pipeline.unlimit()
        self._committed(batch, time.monotonic() - began)
        return None

    def disconnect(self) -> None:
        """Closes the connection."""
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline = None


def _failure(batch: Batch, error: Exception) -> Exception:
    """Returns the error of a failed batch. Once COMMIT was sent, only the database can say that it failed."""
    if (failure := failure_of(error)) is not None:
        return failure
    if batch.is_committing:
        return ConnectionLost(f"the recorder failed during COMMIT: {error!r}")
    return error
