"""The recorder: turns concurrent creates into one transaction at a time.

What queued while the last batch committed is the next batch: no timer, at most 512. The recorder is a task of its own
and callers await a future, so a client that hangs up cancels nothing. After a COMMIT with unknown outcome it looks the
ids up on a new connection, behind the lock, and answers the truth.
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

_GRACE_SECONDS = 2.0
"""How much later than PostgreSQL's own limit on a transaction its answer may arrive."""
_OUTCOME_TIMEOUT_SECONDS = 30.0
"""How long the recorder tries to learn the outcome of a COMMIT before it says that it does not know."""
_DISK_FULL_SECONDS = 30.0
_UNBLOCK_TIMEOUT_SECONDS = 5.0
_EVENTS_PER_SLICE = 50
"""Events of one call that are judged before others get their turn."""
_log = structlog.stdlib.get_logger(__name__)


class Recorder:
    """Records events: validated before the lock, judged and written under it, answered after COMMIT."""

    def __init__(
        self,
        db: Database,
        stream: Stream,
        admission: PayloadValidator,
        limits: EventSettings,
        settings: RecorderSettings,
        observe: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        """`observe(size, seconds)` is called after each COMMIT with the batch's size and how long it took."""
        self._db = db
        self._stream = stream
        self._validator = admission
        self._limits = limits
        self._settings = settings
        self._observe = observe
        self._queue = Queue(settings.queue_size)
        self._connection: Connection | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._disk_full_at: float | None = None

    @property
    def queue_length(self) -> int:
        """How many events wait for their turn."""
        return len(self._queue)

    @property
    def has_disk_space(self) -> bool:
        """Whether the disk under the database has taken what was recorded last; or may by now, after half a minute."""
        at = self._disk_full_at
        return at is None or time.monotonic() - at > _DISK_FULL_SECONDS

    async def record(self, actor: Actor, new: NewEvent) -> Recorded:
        """Records one event; returns after COMMIT. Raises InvalidInput, Conflict, Overloaded (nothing was recorded),
        or TimedOut (unknown; the same idempotency key tells)."""
        actor.must(Permission.EVENT_CREATE)
        pending = self._pending(actor, await self._validate(actor, new))
        self._queue.put([pending])
        return await asyncio.shield(pending.result)

    async def record_all(self, actor: Actor, new_events: Sequence[NewEvent]) -> list[Recorded | Problem]:
        """Records many, in order; each is answered by itself. Refused as a whole only when there are too many, or when
        not all of the valid ones find room to wait."""
        actor.must(Permission.EVENT_CREATE)
        if len(new_events) > self._limits.max_batch_items:
            raise InvalidInput.one("events", f"at most {self._limits.max_batch_items:,} events fit into one call")
        answers: list[Recorded | Problem | Pending] = []
        for index, new in enumerate(new_events):
            if index % _EVENTS_PER_SLICE == 0:
                await asyncio.sleep(0)
            try:
                answers.append(self._pending(actor, await self._validate(actor, new)))
            except Problem as problem:
                answers.append(problem)
        self._queue.put([answer for answer in answers if isinstance(answer, Pending)])
        return [await _result_of(answer) if isinstance(answer, Pending) else answer for answer in answers]

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
        """Whether the event's key was used before: then a receiver that has changed since has no say in the answer."""
        if (key := accepted.new.idempotency_key) is None:
            return False
        async with self._db.read() as connection:
            return await (await store.used_keys(connection, [actor.id], [key])).fetchone() is not None

    def _pending(self, actor: Actor, accepted: Accepted) -> Pending:
        return Pending(actor, accepted, asyncio.get_running_loop().time() + self._settings.max_wait_seconds)

    async def run(self) -> None:
        """Records until cancelled; then finishes the batch in hand and refuses what waits."""
        sweeper = asyncio.create_task(self._reject_late_events())
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
            sweeper.cancel()
            self._queue.close(Overloaded("the hub is stopping; the event was not recorded", retry_after=1))
            await self._disconnect()

    async def _reject_late_events(self) -> None:
        while True:
            await asyncio.sleep(self._settings.max_wait_seconds / 10)
            self._queue.reject_late(asyncio.get_running_loop().time())

    async def _commit(self, batch: Sequence[Pending]) -> None:
        began = time.perf_counter()
        outcomes: list[Outcome] = []
        try:
            async with translate_errors():
                tx = await self._run_transaction(batch, outcomes)
        except Exception as error:
            failure = error
        else:
            self._disk_full_at = None
            self._observe(len(batch), time.perf_counter() - began)
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
                # Leaving a pipeline can hide a statement's error behind "pipeline aborted"; asking for the answers
                # first does not.
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
        found = {event.position: (event, gates[event.position]) for event in events}
        for pending, position in repeats:
            event, its_gates = found[position]
            pending.resolve(Recorded(event, Cursor.of(event.position, event.id), its_gates, repeated=True))

    async def _retry_halves(self, batch: Sequence[Pending], error: Exception) -> None:
        if len(batch) == 1:
            _log.error("recorder.refused", event_id=batch[0].accepted.id, exc_info=error)
            batch[0].resolve(Problem("the hub could not record this event, which is its own fault; nothing was kept"))
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
            _fail_all(batch, TimedOut("whether the event was recorded is unknown: ask with its idempotency key"))
            return
        if committed:
            self._resolve(batch, outcomes)
        else:
            _fail_all(batch, Unavailable("the database went away; the event was not recorded", retry_after=1))

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
        """After a turn that did not come or went wrong: a writer that is stuck in its own is ended, if there is one."""
        try:
            async with asyncio.timeout(_UNBLOCK_TIMEOUT_SECONDS):
                ended = await self._stream.end_stuck_writers()
        except (Problem, TimeoutError):
            return
        if ended:
            _log.warning("recorder.ended_stuck_writer", sessions=ended)

    async def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(Exception):
                await self._connection.close()
            self._connection = None


def _fail_all(batch: Sequence[Pending], outcome: Exception) -> None:
    for pending in batch:
        pending.resolve(outcome)


async def _result_of(pending: Pending) -> Recorded | Problem:
    try:
        return await asyncio.shield(pending.result)
    except Problem as problem:
        return problem
