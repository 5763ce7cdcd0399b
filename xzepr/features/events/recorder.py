"""The recorder: writes concurrently reported events, one transaction at a time.

The events that queue up during a transaction are the next batch: up to `max_batch` of them, without a timer. The
recorder runs in a separate task and callers await a future, so a client that disconnects cancels nothing. If the
outcome of a COMMIT is unknown, the recorder looks up the ids on a new connection under the writer lock.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import structlog

from xzepr.core.actor import SYSTEM, Actor, Permission
from xzepr.core.errors import InvalidInput, Overloaded, Problem, StorageFull, TimedOut, Unavailable
from xzepr.features.events import rules, store
from xzepr.features.events.batch import Batch, Outcome, Repeat
from xzepr.features.events.model import Accepted, NewEvent, Recorded
from xzepr.features.events.queue import Pending, Queue
from xzepr.features.groups.gates import current_gates
from xzepr.features.receivers.payload_validation import PayloadValidator
from xzepr.features.stream.model import Cursor
from xzepr.features.stream.service import Stream, WriteTransaction
from xzepr.infra.db import Connection, ConnectionLost, Database, hang_up_after, translate_errors
from xzepr.settings import EventSettings, RecorderSettings

_GRACE_SECONDS = 2.0  # after PostgreSQL's time limit for the transaction, until its response must have arrived
_OUTCOME_TIMEOUT_SECONDS = 30.0  # for learning the outcome of a COMMIT; then it is reported as unknown
_DISK_FULL_SECONDS = 30.0  # the time for which a full disk is assumed to be still full
_UNBLOCK_TIMEOUT_SECONDS = 5.0
_EVENTS_PER_SLICE = 50  # events of one call that are validated before other tasks run
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
        self._connection: Connection | None = None
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
        pending = self._pending(actor, await self._validate(actor, new))
        self._queue.put([pending])
        return await asyncio.shield(pending.result)

    async def record_all(self, actor: Actor, new_events: Sequence[NewEvent]) -> list[Recorded | Problem]:
        """Records several events in order, and returns a result or a problem for each.

        Raises InvalidInput if there are too many, and Overloaded if the queue has no space for all the valid ones.
        """
        actor.must(Permission.EVENT_CREATE)
        if len(new_events) > self._limits.max_batch_items:
            raise InvalidInput.one("events", f"at most {self._limits.max_batch_items:,} events are allowed in one call")
        results: list[Problem | Pending] = []
        for index, new in enumerate(new_events):
            if index % _EVENTS_PER_SLICE == 0:
                await asyncio.sleep(0)
            try:
                results.append(self._pending(actor, await self._validate(actor, new)))
            except Problem as problem:
                results.append(problem)
        self._queue.put([result for result in results if isinstance(result, Pending)])
        return [await _result_of(result) if isinstance(result, Pending) else result for result in results]

    async def _validate(self, actor: Actor, new: NewEvent) -> Accepted:
        accepted = rules.accept(new, self._limits)
        try:
            revision = await self._validator.validate(new.receiver_id, new.payload)
        except Problem:
            if not await self._is_repeat(actor, accepted):
                raise
            return accepted
        return replace(accepted, receiver_revision=revision)

    async def _is_repeat(self, actor: Actor, accepted: Accepted) -> bool:
        """Returns whether the idempotency key was used before, so that a receiver changed since does not matter."""
        if (key := accepted.new.idempotency_key) is None:
            return False
        async with self._db.read() as connection:
            return await (await store.used_keys(connection, [actor.id], [key])).fetchone() is not None

    def _pending(self, actor: Actor, accepted: Accepted) -> Pending:
        return Pending(actor, accepted, asyncio.get_running_loop().time() + self._settings.max_wait_seconds)

    async def run(self) -> None:
        """Records events until cancelled; then finishes the current batch and rejects the events in the queue."""
        rejecter = asyncio.create_task(self._reject_late_events())
        self._queue.open()
        try:
            while True:
                batch = await self._queue.take(self._settings.max_batch)
                commit = asyncio.create_task(self._commit(batch))
                try:
                    await asyncio.shield(commit)
                except asyncio.CancelledError:
                    await commit
                    raise
        finally:
            rejecter.cancel()
            self._queue.close(Overloaded("the hub is shutting down; the event was not recorded", retry_after=1))
            await self._disconnect()

    async def _reject_late_events(self) -> None:
        while True:
            await asyncio.sleep(self._settings.max_wait_seconds / 10)
            self._queue.reject_late(asyncio.get_running_loop().time())

    async def _commit(self, batch: Sequence[Pending]) -> None:
        started = time.perf_counter()
        outcomes: list[Outcome] = []
        try:
            async with translate_errors():
                tx = await self._run_transaction(batch, outcomes)
        except Exception as error:
            failure = error
        else:
            self._disk_full_at = None
            self._observe(len(batch), time.perf_counter() - started)
            self._resolve(batch, outcomes)
            self._stream.publish_locally(tx)
            return
        await self._disconnect()
        match failure:
            case ConnectionLost():
                await self._resolve_unknown_outcome(batch, outcomes)
            case StorageFull():
                self._disk_full_at = time.monotonic()
                _fail_all(batch, failure)
            case Problem():
                await self._end_stuck_writers()
                _fail_all(batch, Overloaded(f"{failure.message}; the event was not recorded", retry_after=1))
            case _:
                await self._retry_halves(batch, failure)

    async def _run_transaction(self, batch: Sequence[Pending], outcomes: list[Outcome]) -> WriteTransaction:
        if self._connection is None or self._connection.closed:
            self._connection = await self._db.connect("recorder")
        connection = self._connection
        with hang_up_after(connection, self._db.max_transaction_seconds + _GRACE_SECONDS):
            async with connection.pipeline() as pipeline:
                async with connection.transaction(), self._stream.writer_transaction(connection, SYSTEM) as tx:
                    work = await Batch.read(tx, self._validator, batch)
                    outcomes.extend([await work.add(pending) for pending in batch])
                    await work.write(connection)
                # Leaving the pipeline can replace a statement's error by "pipeline aborted"; a sync before it does not.
                await pipeline.sync()
        return tx

    def _resolve(self, batch: Sequence[Pending], outcomes: Sequence[Outcome]) -> None:
        repeats: list[tuple[Pending, int]] = []
        for pending, outcome in zip(batch, outcomes, strict=True):
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
        except Exception as error:
            _fail_all([pending for pending, _ in repeats], error)
            return
        by_position = {event.position: (event, gates[event.position]) for event in events}
        for pending, position in repeats:
            event, event_gates = by_position[position]
            pending.resolve(Recorded(event, Cursor.of(event.position, event.id), event_gates, repeated=True))

    async def _retry_halves(self, batch: Sequence[Pending], error: Exception) -> None:
        if len(batch) == 1:
            _log.error("recorder.event_failed", event_id=batch[0].accepted.id, exc_info=error)
            batch[0].resolve(Problem("internal error while recording this event; nothing was stored"))
            return
        middle = len(batch) // 2
        await self._commit(batch[:middle])
        await self._commit(batch[middle:])

    async def _resolve_unknown_outcome(self, batch: Sequence[Pending], outcomes: Sequence[Outcome]) -> None:
        ids = [outcome.event.id for outcome in outcomes if isinstance(outcome, Recorded)]
        try:
            committed = len(outcomes) == len(batch) and (not ids or await self._were_recorded(ids))
        except Exception:
            _log.exception("recorder.outcome_unknown", events=len(batch))
            message = "it is unknown whether the event was recorded: send it again with the same idempotency key"
            _fail_all(batch, TimedOut(message))
            return
        if committed:
            self._resolve(batch, outcomes)
        else:
            message = "the connection to the database was lost; the event was not recorded"
            _fail_all(batch, Unavailable(message, retry_after=1))

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

    async def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(Exception):
                await self._connection.close()
            self._connection = None


def _fail_all(batch: Sequence[Pending], error: Exception) -> None:
    for pending in batch:
        pending.resolve(error)


async def _result_of(pending: Pending) -> Recorded | Problem:
    try:
        return await asyncio.shield(pending.result)
    except Problem as problem:
        return problem
