"""The relay: one loop a hub that copies the stream to Kafka, exactly once for consumers that read committed.

Each transaction also writes its position to a compacted topic (as Kafka Connect does it, KIP-618). A relay that starts
first fences its predecessor, then reads that position: whatever the predecessor had under way is decided by then. Only
the process that holds a lock in the database runs it; fencing covers a holder that was cut off without noticing.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import structlog

from xzepr.core.backoff import Backoff
from xzepr.core.clock import now
from xzepr.core.errors import Problem
from xzepr.features.relay import dead_letter_store, store
from xzepr.features.relay.delivery import Delivery
from xzepr.features.relay.leadership import Leadership, leadership
from xzepr.features.relay.model import (
    AT_LEAST_ONCE,
    Published,
    RelayState,
    RelayStatus,
    RelayStopped,
    messages_removed,
    position_lost,
    split_brain,
    state_unreadable,
    stream_diverged,
)
from xzepr.features.relay.route import OpenProducer, Route, RouteWriter, TopicLimits
from xzepr.features.relay.store import RouteRow
from xzepr.features.stream.model import Cursor, Message
from xzepr.features.stream.reader import StreamReader
from xzepr.features.stream.service import Stream
from xzepr.infra.kafka.cluster import BrokerError, CompetingProducerError, RejectedError, TopicError
from xzepr.infra.kafka.producer import Producer
from xzepr.settings import KafkaSettings

_RECHECK_SECONDS = 10.0
"""How often a stopped relay looks whether the reason is gone."""
_PROBE_SECONDS = 5.0
"""How often an idle relay asks whether there still are brokers."""
_MAX_REJECTED = 100
"""Dead letters in a row after which the topic is at fault, and no longer the messages."""
_MAX_READ = 200
"""Messages of one read: at 512 KiB a payload they are 100 MiB, however small those before them were."""
_STABLE_LEAD_SECONDS = 60.0
"""A relay that has led for so long had no rival then."""
_PAUSE_SECONDS = (0.2, 10.0)  # between tries: the first pause and the longest
_log = structlog.stdlib.get_logger(__name__)


class Relay:
    """Copies the stream to Kafka while this process leads the route."""

    def __init__(
        self,
        stream: Stream,
        settings: KafkaSettings,
        *,
        wait_beyond: Callable[[int], Awaitable[None]],
        poll_seconds: float = 1.0,
        max_rejected: int = _MAX_REJECTED,
        open_producer: OpenProducer = Producer.open,
    ) -> None:
        """`wait_beyond` returns once there may be something after a position; called anew every `poll_seconds`. After
        `most_refused` dead letters in a row the relay stops."""
        self._stream = stream
        self._route = Route(settings, stream.hub_id)
        self._wait_beyond = wait_beyond
        self._poll_seconds = poll_seconds
        self._open_producer = open_producer
        self._guarantee = "" if settings.transactions else AT_LEAST_ONCE
        self._delivery = Delivery(
            self._route.name, settings.max_transaction_messages, max_rejected=max_rejected, poll_seconds=poll_seconds
        )
        self._attempted_resume_id: str | None = None
        self._empty_reads = 0
        self._saved: Published | None = None
        self._saved_at = -math.inf
        self._brokers_answered_at = -math.inf
        self.status = RelayStatus(self._route.name, RelayState.STANDBY, "starting", now(), None)
        """What it is doing now."""

    async def run(self) -> None:
        """Relays until cancelled. Nothing that happens to brokers or database ends it."""
        if not self._route.settings.enabled:
            self._set_status(RelayState.STANDBY, "kafka.enabled is off: this process never relays")
            await asyncio.Event().wait()
        if not self._route.settings.brokers:
            self._set_status(RelayState.WAITING_FOR_BROKERS, "kafka.brokers is not set: history follows once it is")
            await asyncio.Event().wait()
        if self._guarantee:
            _log.warning("relay.promise", route=self._route.name, detail=self._guarantee)
        pause, yielding = Backoff(*_PAUSE_SECONDS, jitter=0.5), Backoff(*_PAUSE_SECONDS, jitter=0.5)
        while True:
            leading_since = time.monotonic()
            try:
                async with leadership(self._stream.db, self._route.name) as leader:
                    await self._wait_for_leadership(leader)
                    pause.reset()
                    leading_since = time.monotonic()
                    await self._lead(leader)
            except CompetingProducerError:
                self._set_status(RelayState.STANDBY, split_brain(self._route.name))
                if time.monotonic() - leading_since > _STABLE_LEAD_SECONDS:
                    yielding.reset()
                await yielding.sleep()
            except Problem as problem:
                self._set_status(RelayState.STANDBY, problem.message)
            except Exception as error:
                self._set_status(RelayState.STANDBY, f"{type(error).__name__}: {error}")
                _log.exception("relay.failed", route=self._route.name)
            await pause.sleep()

    async def _wait_for_leadership(self, leader: Leadership) -> None:
        while not await leader.try_acquire():
            self._set_status(RelayState.STANDBY, "another process relays")
            await asyncio.sleep(self._poll_seconds)

    async def _lead(self, leader: Leadership) -> None:
        """Holds the seat and relays, until the seat is lost."""
        await self._save_status(leader, RelayState.WAITING_FOR_BROKERS, "connecting")
        self.status = replace(self.status, leads=True)
        pause = Backoff(*_PAUSE_SECONDS, jitter=0.5)
        while True:
            try:
                # Also after being fenced: that may only mean that a transaction took too long. The seat decides.
                await leader.check()
                try:
                    await self._follow(leader, pause)
                except RejectedError as refusal:
                    await self._delivery.isolate_rejected(leader, refusal.reason)
            except CompetingProducerError:
                await self._save_status(leader, RelayState.WAITING_FOR_BROKERS, split_brain(self._route.name))
                raise
            except BrokerError as error:
                await self._save_status(leader, RelayState.WAITING_FOR_BROKERS, str(error))
                await pause.sleep()
            except (RelayStopped, TopicError) as error:
                self.status = replace(self.status, position=None)
                first = (await leader.read(StreamReader.origin)).position + 1
                detail = error.with_choices(first) if isinstance(error, RelayStopped) else str(error)
                await self._save_status(leader, RelayState.STOPPED, detail)
                await self._wait_for_resume(leader)

    async def _wait_for_resume(self, leader: Leadership) -> None:
        """Returns for one that was not tried yet, or when it is time to see whether the reason is gone."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_RECHECK_SECONDS):
                while True:
                    if (await self._route_row(leader)).resume_id not in (None, self._attempted_resume_id):
                        return
                    await asyncio.sleep(self._poll_seconds)

    async def _follow(self, leader: Leadership, pause: Backoff) -> None:
        """Opens the route and moves messages for as long as that works."""
        self.status = replace(self.status, position=None)
        row = await self._route_row(leader)
        self._attempted_resume_id = row.resume_id
        writer = await RouteWriter.open(self._route, await self._topic_limits(row), self._open_producer)
        try:
            await self._find_position(leader, writer, row)
            await self._save_status(leader, RelayState.FOLLOWING, self._guarantee)
            if (await self._route_row(leader)).resume_id not in (None, self._attempted_resume_id):
                return  # it came while the route was stopped, and is obeyed now or would be much later
            while True:
                await self._publish_next(leader, writer)
                pause.reset()
        finally:
            await writer.close()

    async def _route_row(self, leader: Leadership) -> RouteRow:
        row = await leader.run(store.row, leader.route)
        assert row is not None, "the leader describes its route first"
        return row

    async def _topic_limits(self, row: RouteRow) -> TopicLimits:
        """What the topic takes. It must be there if anything was published, unless that is to be done again."""
        return await self._route.prepare(row.published_position if row.resume_id is None else 0)

    async def _reload_limits(self, leader: Leadership) -> TopicLimits:
        return await self._topic_limits(await self._route_row(leader))

    async def _find_position(self, leader: Leadership, writer: RouteWriter, row: RouteRow) -> None:
        """Finds where to go on: as instructed, else where Kafka says, if the database agrees. Raises StoppedError."""
        published = writer.published
        if published is not None and published.retry_id is not None:
            await leader.run(dead_letter_store.delete_retried, published.retry_id)
        if row.resume_id is not None and row.resume_after is not None:
            if published is None or published.resume_id != row.resume_id:
                await self._apply_resume(leader, writer, row.resume_id, row.resume_after)
        elif writer.state_error:
            raise state_unreadable(self._route.name, row.published_position, writer.state_error)
        elif published is None:
            if row.published_position:
                raise position_lost(self._route.name, row.published_position)
            await writer.start_after(await leader.read(StreamReader.origin))
        else:
            await self._verify_stream(leader, published)
            await writer.verify_offsets(published)
        published = writer.published_so_far
        self._delivery.skipped = await leader.run(dead_letter_store.positions_after, leader.route, published.position)
        self.status = replace(self.status, position=published.position)
        await self._save_published(leader, published)
        if row.resume_id is not None:
            # Not earlier: retention must be able to see from where messages are published again.
            await leader.run(store.acknowledge_resume, leader.route, row.resume_id)

    async def _apply_resume(self, leader: Leadership, writer: RouteWriter, resume_id: str, after: int) -> None:
        id = await leader.read(StreamReader.id_at, after)
        if id is None:
            raise messages_removed(self._route.name, after + 1)
        # With the instruction's id: should we die before the database forgets it, it is not obeyed again.
        await writer.publish((), Published(after, id, resume_id))
        _log.warning("relay.resumed", route=self._route.name, after=after)

    async def _verify_stream(self, leader: Leadership, published: Published) -> None:
        stream_id = await leader.read(StreamReader.id_at, published.position)
        if stream_id != published.id:
            head, recorded_position = (
                await leader.read(StreamReader.head),
                (await self._route_row(leader)).published_position,
            )
            if stream_id is None and published.position < head.position:
                raise messages_removed(self._route.name, published.position + 1)
            raise stream_diverged(self._route.name, published, head.position, stream_id, recorded_position)

    async def _publish_next(self, leader: Leadership, writer: RouteWriter) -> None:
        """Publishes what there is, or waits until there may be something."""
        retried = await self._delivery.retry_dead_letter(leader, writer, lambda: self._reload_limits(leader))
        published = writer.published_so_far
        messages = await self._read_batch(leader, published.cursor)
        if not messages and not retried:
            await self._verify_stream(leader, published)
            await self._check_idle(leader, writer, published)
            await self._wait_for_messages(published.position)
        if not messages:
            return
        self._empty_reads = 0
        last = messages[-1]
        await self._delivery.send(writer, messages, replace(published, position=last.position, id=last.id))
        self._brokers_answered_at = time.monotonic()
        self.status = replace(self.status, position=last.position)
        if not published.position or time.monotonic() - self._saved_at > self._poll_seconds:
            await self._save_published(leader, writer.published_so_far)

    async def _wait_for_messages(self, position: int) -> None:
        """Returns when there may be something after a position. Where there is said to be, again and again, and is not,
        it waits all the same: the feed may not know yet that the database was restored."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._poll_seconds):
                await self._wait_beyond(position)
                self._empty_reads += 1
                if self._empty_reads > 1:
                    await asyncio.sleep(self._poll_seconds)

    async def _read_batch(self, leader: Leadership, after: Cursor) -> Sequence[Message]:
        """The next portion. It is read in parts, since the messages to come may be larger than those before."""
        messages = await leader.read(StreamReader.after_cursor, after, min(self._delivery.batch_size, _MAX_READ))
        chunk = messages
        while len(chunk) == _MAX_READ and not self._delivery.is_full(messages):
            limit = min(self._delivery.batch_size - len(messages), _MAX_READ)
            chunk = await leader.read(StreamReader.after_cursor, chunk[-1].cursor, limit)
            messages += chunk
        return messages

    async def _check_idle(self, leader: Leadership, writer: RouteWriter, published: Published) -> None:
        """While there is nothing to move: notices that the seat is lost or the brokers are gone."""
        await (leader.check() if self._saved == published else self._save_published(leader, published))
        if time.monotonic() - self._brokers_answered_at > _PROBE_SECONDS:
            await writer.check()
            self._brokers_answered_at = time.monotonic()

    async def _save_published(self, leader: Leadership, published: Published) -> None:
        await leader.run(store.save_published, leader.route, published.position, published.id)
        self._saved, self._saved_at = published, time.monotonic()

    async def _save_status(self, leader: Leadership, state: RelayState, detail: str) -> None:
        await leader.run(store.save_status, leader.route, state.value, detail)
        self._set_status(state, detail)

    def _set_status(self, state: RelayState, detail: str) -> None:
        previous = self.status
        if (previous.state, previous.detail) == (state, detail):
            return
        since = previous.since if previous.state is state else now()
        leads = previous.leads and state is not RelayState.STANDBY
        self.status = replace(previous, state=state, detail=detail, since=since, leads=leads)
        log = _log.error if state is RelayState.STOPPED else _log.info
        log("relay.state", route=self._route.name, state=state.value, detail=detail)
