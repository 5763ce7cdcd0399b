"""The thread of the recorder, which commits batches one after another on its own connection."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from xzepr.features.events import batch_store, catalog
from xzepr.features.events.batch import Batch
from xzepr.features.events.queue import Pending, Queue
from xzepr.features.stream import service as stream_service
from xzepr.features.stream.service import Stream
from xzepr.infra.db import ConnectionLost, Database, StatementError
from xzepr.infra.pipeline import Pipeline, failure_of
from xzepr.infra.threads import call_on_loop, run_in_thread

_STATEMENTS = (*stream_service.STATEMENTS, *catalog.STATEMENTS, *batch_store.STATEMENTS)


@dataclass(frozen=True, slots=True)
class FailedBatch:
    """A batch whose transaction failed, or whose outcome is unknown if the error is ConnectionLost."""

    batch: Batch
    error: Exception


class Committer:
    """Commits batches on a thread, which runs until one fails. Then the event loop decides what to do.

    While the thread runs, the connection and the catalog belong to it.
    """

    def __init__(
        self, db: Database, stream: Stream, *, timeout_seconds: float, committed: Callable[[Batch, float], None]
    ) -> None:
        """`committed(batch, seconds)` is called on the event loop after each COMMIT, in this order.

        A transaction without a response for `timeout_seconds` fails with ConnectionLost.
        """
        self._db = db
        self._stream = stream
        self._timeout_seconds = timeout_seconds
        self._committed = committed
        self._catalog = catalog.KnownCatalog()
        self._pipeline: Pipeline | None = None
        self._thread: asyncio.Future[FailedBatch | None] | None = None

    async def commit_all(self, queue: Queue, max_batch: int) -> FailedBatch | None:
        """Commits the events of the queue, until it is stopped or a batch fails. Returns that batch."""
        return await self._run(lambda loop: self._commit_queue(loop, queue, max_batch))

    async def commit(self, pendings: Sequence[Pending]) -> FailedBatch | None:
        """Commits events in one transaction. Returns the batch if that fails."""
        return await self._run(lambda loop: self._commit(loop, pendings))

    def disconnect(self) -> None:
        """Closes the connection. A thread that was not awaited to its end cannot use it any longer."""
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is None:
            return
        if self._thread is not None and self._thread.cancelled():
            pipeline.hang_up()
        else:
            pipeline.close()

    async def _run(self, work: Callable[[asyncio.AbstractEventLoop], FailedBatch | None]) -> FailedBatch | None:
        self._thread = run_in_thread("recorder", partial(work, asyncio.get_running_loop()))
        return await self._thread

    def _commit_queue(self, loop: asyncio.AbstractEventLoop, queue: Queue, max_batch: int) -> FailedBatch | None:
        while pendings := queue.take(max_batch):
            if (failed := self._commit(loop, pendings)) is not None:
                return failed
        return None

    def _commit(self, loop: asyncio.AbstractEventLoop, pendings: Sequence[Pending]) -> FailedBatch | None:
        batch = Batch(pendings, self._stream.process_id)
        began = time.monotonic()
        try:
            if self._pipeline is None:
                self._pipeline = Pipeline.open(self._db, "recorder", _STATEMENTS)
            self._pipeline.deadline = time.monotonic() + self._timeout_seconds
            batch.record(self._pipeline, self._catalog)
        except BaseException as error:
            return FailedBatch(batch, _failure(batch, error))
        call_on_loop(loop, self._committed, batch, time.monotonic() - began)
        return None


def _failure(batch: Batch, error: BaseException) -> Exception:
    """Returns the error of a failed batch. Once COMMIT was sent, only the database can say that it failed."""
    if (failure := failure_of(error)) is not None:
        return failure
    if batch.is_committing:
        return ConnectionLost(f"the recorder failed during COMMIT: {error!r}")
    return error if isinstance(error, Exception) else StatementError(repr(error))
