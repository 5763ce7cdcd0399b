"""The recorder: writes concurrently reported events, one transaction at a time.

The events that queue up during a transaction are the next batch: up to `max_batch` of them, without a timer. One task
runs the transactions on its own connection, and callers await a future, so a client that disconnects cancels nothing.
No batch begins while a failure is handled. If the outcome of a COMMIT is unknown, the recorder looks up the ids on a
new connection under the writer lock.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

import structlog

from xzepr.core.actor import SYSTEM, Actor, Permission
from xzepr.core.errors import InvalidInput, Overloaded, Problem, StorageFull, TimedOut, Unavailable
from xzepr.features.events import batch_store, rules, store
from xzepr.features.events.batch import Batch, Repeat
from xzepr.features.events.committer import Committer, FailedBatch
from xzepr.features.events.model import Accepted, NewEvent, Recorded
from xzepr.features.events.queue import Call, Pending, Queue
from xzepr.features.groups.gates import current_gates
from xzepr.features.receivers.payload_validation import PayloadValidator
from xzepr.features.stream.service import Stream
from xzepr.infra.db import ConnectionLost, Database, hang_up_after, translate_errors
from xzepr.settings import EventSettings, RecorderSettings

_GRACE_SECONDS = 2.0  # after PostgreSQL's time limit for the transaction, until its response must have arrived
_OUTCOME_TIMEOUT_SECONDS = 30.0  # for learning the outcome of a COMMIT; then it is reported as unknown
_DISK_FULL_SECONDS = 30.0  # the time for which a full disk is assumed to be still full
_UNBLOCK_TIMEOUT_SECONDS = 5.0
_EVENTS_PER_SLICE = 50  # events of one call that are validated before other tasks run
_UNKNOWN_OUTCOME = "it is unknown whether the event was recorded: send it again with the same idempotency key"
_log = structlog.stdlib.get_logger(__name__)


class Recorder:
    """Records events: validates them before the writer lock, writes them under it, and returns after COMMIT."""

    def __init__(
        self,
        db: Database,
        stream: Stream,
        validator: PayloadValidator,
        *,
        limits: EventSettings,
        settings: RecorderSettings,
        observe: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        """`observe(size, seconds)` is called after each COMMIT with the size and the duration of the batch."""
        self._db = db
        self._stream = stream
        self._validator = validator
        self._limits = limits
        self._settings = settings
        self._observe = observe
        self._queue = Queue(settings.queue_size)
        self._committer = Committer(
            db, stream, limits, timeout_seconds=db.max_transaction_seconds + _GRACE_SECONDS, committed=self._committed
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._disk_full_at: float | None = None

    @property
    def queue_length(self) -> int:
        """The number of events that wait in the queue."""
        return len(self._queue)

    @property
    def has_disk_space(self) -> bool:
        """Whether the database's disk has space: False for 30 s after a batch that found it full."""
        full_at = self._disk_full_at
        return full_at is None or time.monotonic() - full_at > _DISK_FULL_SECONDS

    async def record(self, actor: Actor, new: NewEvent) -> Recorded:
        """Records one event and returns after COMMIT.

        Raises InvalidInput, NotFound, Conflict, Overloaded or Unavailable if it was not recorded, and TimedOut if that
        is unknown: a call with the same idempotency key then returns the event or records it.
        """
        actor.must(Permission.EVENT_CREATE)
        accepted = rules.accept(new, self._limits)
        revision = self._validator.known_revision(new.receiver_id, new.payload)
        if revision is None:
            revision = await self._validate(actor, accepted)
        call = Call([None])
        self._put(actor, call, [(accepted, revision)])
        await call.finished
        result = call.results[0]
        if isinstance(result, Recorded):
            return result
        assert result is not None, "the call is finished"
        raise result

    async def record_all(self, actor: Actor, new_events: Sequence[NewEvent]) -> list[Recorded | Problem]:
        """Records several events in order, and returns a result or a problem for each.

        Raises InvalidInput if there are too many, and Overloaded if the queue has no space for all the valid ones.
        """
        actor.must(Permission.EVENT_CREATE)
        if len(new_events) > self._limits.max_batch_items:
            raise InvalidInput.one("events", f"at most {self._limits.max_batch_items:,} events are allowed in one call")
        checked: list[tuple[Accepted, int] | Problem] = []
        for index, new in enumerate(new_events):
            if index % _EVENTS_PER_SLICE == 0:
                await asyncio.sleep(0)
            checked.append(await self._check(actor, new))
        call = Call([result if isinstance(result, Problem) else None for result in checked])
        self._put(actor, call, checked)
        await call.finished
        return [_expected(result) for result in call.results]

    async def _check(self, actor: Actor, new: NewEvent) -> tuple[Accepted, int] | Problem:
        """Returns a valid event, and the revision of the schema that accepts its payload."""
        try:
            accepted = rules.accept(new, self._limits)
            revision = self._validator.known_revision(new.receiver_id, new.payload)
            return accepted, await self._validate(actor, accepted) if revision is None else revision
        except Problem as problem:
            return problem

    async def _validate(self, actor: Actor, accepted: Accepted) -> int:
        """Returns the revision of the schema that accepts the payload; 0 for a repeat that no schema accepts.

        A repeat does not depend on how its receiver has changed since.
        """
        new = accepted.new
        try:
            return await self._validator.validate(new.receiver_id, new.payload)
        except Problem:
            if new.idempotency_key is None:
                raise
            async with self._db.read() as connection:
                if await store.is_key_used(connection, actor.id, new.idempotency_key):
                    return 0
            raise

    def _put(self, actor: Actor, call: Call, checked: Sequence[tuple[Accepted, int] | Problem]) -> None:
        deadline = asyncio.get_running_loop().time() + self._settings.max_wait_seconds
        actor_columns = batch_store.actor_columns(actor)
        pendings: list[Pending] = []
        for index, result in enumerate(checked):
            if not isinstance(result, Problem):
                accepted, revision = result
                row = batch_store.row_of(accepted, actor_columns)
                pendings.append(Pending(actor, accepted, revision, row, deadline, call, index))
        self._queue.put(pendings)

    async def run(self) -> None:
        """Records events until cancelled; then finishes the current batch and rejects the events in the queue."""
        rejecter = asyncio.create_task(self._reject_late_events())
        self._queue.open()
        recording = asyncio.create_task(self._record_queue())
        try:
            await asyncio.shield(recording)
        except asyncio.CancelledError:
            self._queue.stop()
            await recording
            raise
        finally:
            rejecter.cancel()
            self._queue.close(Overloaded("the hub is shutting down; the event was not recorded", retry_after=1))
            self._committer.disconnect()

    async def _record_queue(self) -> None:
        """Records events until the queue is stopped."""
        while pendings := await self._queue.take(self._settings.max_batch):
            try:
                if (failed := await self._committer.commit(pendings)) is not None:
                    await self._recover(failed)
            except BaseException:
                _fail_all(pendings, TimedOut(_UNKNOWN_OUTCOME))
                raise

    def _committed(self, batch: Batch, seconds: float) -> None:
        self._disk_full_at = None
        self._resolve(batch)
        self._observe(len(batch.pendings), seconds)
        self._publish(batch)

    def _publish(self, batch: Batch) -> None:
        try:
            self._stream.publish_locally(batch.committed)
        except Exception:  # the feed reads the messages at its next look
            _log.exception("recorder.listener_failed", events=len(batch.pendings))

    async def _reject_late_events(self) -> None:
        while True:
            await asyncio.sleep(self._settings.max_wait_seconds / 10)
            self._queue.reject_late(asyncio.get_running_loop().time())

    async def _recover(self, failed: FailedBatch) -> None:
        """Resolves the events of a failed batch. Nothing is committed during that."""
        self._committer.disconnect()
        pendings = failed.batch.pendings
        match failed.error:
            case ConnectionLost():
                await self._resolve_unknown_outcome(failed.batch)
            case StorageFull() as problem:
                self._disk_full_at = time.monotonic()
                _fail_all(pendings, problem)
            case Problem() as problem:
                await self._end_stuck_writers()
                _fail_all(pendings, Overloaded(f"{problem.message}; the event was not recorded", retry_after=1))
            case _:
                await self._retry_halves(failed)

    def _resolve(self, batch: Batch) -> None:
        repeats: list[tuple[Pending, int]] = []
        for pending, outcome in zip(batch.pendings, batch.outcomes, strict=True):
            if isinstance(outcome, Repeat):
                repeats.append((pending, outcome.position))
            else:
                pending.resolve(outcome)
        if repeats:
            task = asyncio.create_task(self._resolve_repeats(repeats))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _resolve_repeats(self, repeats: Sequence[tuple[Pending, int]]) -> None:
        try:
            async with self._db.read() as connection:
                events = await store.by_positions(connection, [position for _, position in repeats])
                gates = await current_gates(connection, events)
            by_position = {event.position: Recorded(event, (), True, gates[event.position]) for event in events}
            for pending, position in repeats:
                pending.resolve(by_position[position])
        except Exception as error:
            _fail_all([pending for pending, _ in repeats], error)

    async def _retry_halves(self, failed: FailedBatch) -> None:
        pendings = failed.batch.pendings
        if len(pendings) == 1:
            _log.error("recorder.event_failed", event_id=pendings[0].accepted.id, exc_info=failed.error)
            pendings[0].resolve(Problem("internal error while recording this event; nothing was stored"))
            return
        middle = len(pendings) // 2
        for half in (pendings[:middle], pendings[middle:]):
            if (failed_half := await self._committer.commit(half)) is not None:
                await self._recover(failed_half)

    async def _resolve_unknown_outcome(self, batch: Batch) -> None:
        try:
            committed = batch.is_committing and await self._was_committed(batch)
        except Exception:
            _log.exception("recorder.outcome_unknown", events=len(batch.pendings))
            _fail_all(batch.pendings, TimedOut(_UNKNOWN_OUTCOME))
            return
        if committed:
            self._resolve(batch)
            self._publish(batch)
        else:
            message = "the connection to the database was lost; the event was not recorded"
            _fail_all(batch.pendings, Unavailable(message, retry_after=1))

    async def _was_committed(self, batch: Batch) -> bool:
        batch.finish()
        ids = [outcome.event.id for outcome in batch.outcomes if isinstance(outcome, Recorded)]
        return not ids or await self._were_recorded(ids)

    async def _were_recorded(self, ids: Sequence[str]) -> bool:
        deadline = time.monotonic() + _OUTCOME_TIMEOUT_SECONDS
        while True:
            try:
                connection = await self._db.connect("recorder settling")
                with hang_up_after(connection, self._db.lock_timeout_seconds + _GRACE_SECONDS):
                    async with (
                        translate_errors(),
                        connection,
                        connection.transaction(),
                        self._stream.writer_transaction(connection, SYSTEM),
                    ):
                        return bool(await store.existing(connection, ids))
            except Problem:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)

    async def _end_stuck_writers(self) -> None:
        """Ends a writer that is stuck in its transaction, because it may have blocked the batch that failed."""
        try:
            async with asyncio.timeout(_UNBLOCK_TIMEOUT_SECONDS):
                sessions = await self._stream.end_stuck_writers()
        except (Problem, TimeoutError):
            return
        if sessions:
            _log.warning("recorder.ended_stuck_writer", sessions=sessions)


def _fail_all(pendings: Sequence[Pending], error: Exception) -> None:
    for pending in pendings:
        pending.resolve(error)


def _expected(result: Recorded | Exception | None) -> Recorded | Problem:
    """Returns the result of an event. Raises an exception that is no Problem."""
    if isinstance(result, Recorded | Problem):
        return result
    assert result is not None, "the call is finished"
    raise result
