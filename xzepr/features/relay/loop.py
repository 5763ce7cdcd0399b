"""The relay: the loop that publishes the stream to Kafka, exactly once for consumers in `read_committed` mode.

Each transaction also writes the published position to a compacted topic, as Kafka Connect does (KIP-618). A new leader
first fences its predecessor, whose last transaction is then committed or aborted, and only then reads that position.
The leader is the process that holds a lock in the database; fencing stops one that lost this lock without noticing.
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

_RECHECK_SECONDS = 10.0  # how often a stopped relay checks whether the cause is fixed
_PROBE_SECONDS = 5.0  # how often an idle relay checks that brokers respond
_MAX_REJECTED = 100  # dead letters in a row; after that, the topic is at fault and not the messages
_MAX_READ = 200  # messages of one read, up to 100 MiB: the next messages may be larger than earlier ones
_STABLE_LEAD_SECONDS = 60.0  # a relay that led for this long had no competing relay
_PAUSE_SECONDS = (0.2, 10.0)  # between tries: the first pause and the longest
_log = structlog.stdlib.get_logger(__name__)


class Relay:
    """Publishes the stream to Kafka while this process leads the route."""

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
        """`wait_beyond` returns once there may be messages after a position; it is cancelled after `poll_seconds`.

        The relay stops after `max_rejected` dead letters in a row.
        """
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
        self.status = RelayStatus(self._route.name, RelayState.STANDBY, "starting", since=now(), position=None)
        """The current status."""

    async def run(self) -> None:
        """Relays until cancelled. No failure of brokers or database ends it."""
        if not self._route.settings.enabled:
            self._set_status(RelayState.STANDBY, "kafka.enabled is off: this process never relays")
            await asyncio.Event().wait()
        if not self._route.settings.brokers:
            self._set_status(RelayState.WAITING_FOR_BROKERS, "kafka.brokers is not set: set it to publish all history")
            await asyncio.Event().wait()
        if self._guarantee:
            _log.warning("relay.guarantee", route=self._route.name, detail=self._guarantee)
        backoff, competing_backoff = Backoff(*_PAUSE_SECONDS, jitter=0.5), Backoff(*_PAUSE_SECONDS, jitter=0.5)
        while True:
            leading_since = time.monotonic()
            try:
                async with leadership(self._stream.db, self._route.name) as leader:
                    await self._wait_for_leadership(leader)
                    backoff.reset()
                    leading_since = time.monotonic()
                    await self._lead(leader)
            except CompetingProducerError:
                self._set_status(RelayState.STANDBY, split_brain(self._route.name))
                if time.monotonic() - leading_since > _STABLE_LEAD_SECONDS:
                    competing_backoff.reset()
                await competing_backoff.sleep()
            except Problem as problem:
                self._set_status(RelayState.STANDBY, problem.message)
            except Exception as error:
                self._set_status(RelayState.STANDBY, f"{type(error).__name__}: {error}")
                _log.exception("relay.failed", route=self._route.name)
            await backoff.sleep()

    async def _wait_for_leadership(self, leader: Leadership) -> None:
        while not await leader.try_acquire():
            self._set_status(RelayState.STANDBY, "another process relays")
            await asyncio.sleep(self._poll_seconds)

    async def _lead(self, leader: Leadership) -> None:
        """Relays until the leadership is lost, or another relay takes over."""
        await self._save_status(leader, RelayState.WAITING_FOR_BROKERS, "connecting")
        self.status = replace(self.status, leads=True)
        backoff = Backoff(*_PAUSE_SECONDS, jitter=0.5)
        while True:
            try:
                # Also after FencedError: a transaction may only have taken too long. The database decides who leads.
                await leader.check()
                try:
                    await self._follow(leader, backoff)
                except RejectedError as rejection:
                    await self._delivery.isolate_rejected(leader, rejection.reason)
            except CompetingProducerError:
                await self._save_status(leader, RelayState.WAITING_FOR_BROKERS, split_brain(self._route.name))
                raise
            except BrokerError as error:
                await self._save_status(leader, RelayState.WAITING_FOR_BROKERS, str(error))
                await backoff.sleep()
            except (RelayStopped, TopicError) as error:
                self.status = replace(self.status, position=None)
                oldest = (await leader.read(StreamReader.origin)).position + 1
                detail = error.with_choices(oldest) if isinstance(error, RelayStopped) else str(error)
                await self._save_status(leader, RelayState.STOPPED, detail)
                await self._wait_for_resume(leader)

    async def _wait_for_resume(self, leader: Leadership) -> None:
        """Returns on a new resume instruction, or when it is time to check whether the cause is fixed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_RECHECK_SECONDS):
                while True:
                    if await self._has_new_resume(leader):
                        return
                    await asyncio.sleep(self._poll_seconds)

    async def _has_new_resume(self, leader: Leadership) -> bool:
        return (await self._route_row(leader)).resume_id not in (None, self._attempted_resume_id)

    async def _follow(self, leader: Leadership, backoff: Backoff) -> None:
        """Opens the route and publishes messages until an error; returns if a new resume instruction has arrived."""
        self.status = replace(self.status, position=None)
        row = await self._route_row(leader)
        self._attempted_resume_id = row.resume_id
        writer = await RouteWriter.open(self._route, await self._topic_limits(row), self._open_producer)
        try:
            await self._find_position(leader, writer, row)
            await self._save_status(leader, RelayState.FOLLOWING, self._guarantee)
            if await self._has_new_resume(leader):
                return  # it arrived while the route was stopped: apply it now, not after the next error
            while True:
                await self._publish_next(leader, writer)
                backoff.reset()
        finally:
            await writer.close()

    async def _find_position(self, leader: Leadership, writer: RouteWriter, row: RouteRow) -> None:
        """Finds the position after which to continue: that of a resume instruction, else the one in Kafka.

        Raises RelayStopped if there is none, or if Kafka and the database disagree.
        """
        published = writer.published_or_none
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
        published = writer.published
        self._delivery.skipped = await leader.run(dead_letter_store.positions_after, leader.route, published.position)
        self.status = replace(self.status, position=published.position)
        await self._save_published(leader, published)
        if row.resume_id is not None:
            # Not earlier: until the position is saved, the instruction keeps retention from removing what follows it.
            await leader.run(store.acknowledge_resume, leader.route, row.resume_id)

    async def _apply_resume(self, leader: Leadership, writer: RouteWriter, resume_id: str, after: int) -> None:
        id = await leader.read(StreamReader.id_at, after)
        if id is None:
            raise messages_removed(self._route.name, after + 1)
        # The state has the instruction's id: if this process dies before it is acknowledged, it is not applied again.
        await writer.publish((), Published(after, id, resume_id))
        _log.warning("relay.resumed", route=self._route.name, after=after)

    async def _verify_stream(self, leader: Leadership, published: Published) -> None:
        """Raises RelayStopped unless the database has the last published message."""
        stream_id = await leader.read(StreamReader.id_at, published.position)
        if stream_id != published.id:
            head = await leader.read(StreamReader.head)
            recorded_position = (await self._route_row(leader)).published_position
            if stream_id is None and published.position < head.position:
                raise messages_removed(self._route.name, published.position + 1)
            raise stream_diverged(self._route.name, published, head.position, stream_id, recorded_position)

    async def _publish_next(self, leader: Leadership, writer: RouteWriter) -> None:
        """Publishes the next batch, or waits until there may be one."""
        retried = await self._delivery.retry_dead_letter(leader, writer, lambda: self._reload_limits(leader))
        published = writer.published
        messages = await self._read_batch(leader, published.cursor)
        if not messages:
            if not retried:
                await self._idle(leader, writer, published)
            return
        self._empty_reads = 0
        last = messages[-1]
        await self._delivery.send(writer, messages, replace(published, position=last.position, id=last.id))
        self._brokers_answered_at = time.monotonic()
        self.status = replace(self.status, position=last.position, published_messages=self._delivery.published_messages)
        if not published.position or time.monotonic() - self._saved_at > self._poll_seconds:
            await self._save_published(leader, writer.published)

    async def _read_batch(self, leader: Leadership, after: Cursor) -> Sequence[Message]:
        """Reads the next batch, in chunks, because its messages may be larger than those of earlier batches."""
        messages = await leader.read(StreamReader.after_cursor, after, min(self._delivery.batch_size, _MAX_READ))
        chunk = messages
        while len(chunk) == _MAX_READ and not self._delivery.is_full(messages):
            limit = min(self._delivery.batch_size - len(messages), _MAX_READ)
            chunk = await leader.read(StreamReader.after_cursor, chunk[-1].cursor, limit)
            messages += chunk
        return messages

    async def _idle(self, leader: Leadership, writer: RouteWriter, published: Published) -> None:
        """Checks database, leadership and brokers while there is nothing to publish, then waits for messages."""
        await self._verify_stream(leader, published)
        await (leader.check() if self._saved == published else self._save_published(leader, published))
        if time.monotonic() - self._brokers_answered_at > _PROBE_SECONDS:
            await writer.check()
            self._brokers_answered_at = time.monotonic()
        await self._wait_for_messages(published.position)

    async def _wait_for_messages(self, position: int) -> None:
        """Waits until there may be messages after a position.

        After repeated empty reads, waits `poll_seconds`: the feed may not know yet that the database was restored.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(self._poll_seconds):
                await self._wait_beyond(position)
                self._empty_reads += 1
                if self._empty_reads > 1:
                    await asyncio.sleep(self._poll_seconds)

    async def _route_row(self, leader: Leadership) -> RouteRow:
        row = await leader.run(store.row, leader.route)
        assert row is not None, "the leader saves its status first"
        return row

    async def _topic_limits(self, row: RouteRow) -> TopicLimits:
        """Returns the topic's limits. The topic must exist if the route was published, unless it is resumed."""
        return await self._route.prepare(row.published_position if row.resume_id is None else 0)

    async def _reload_limits(self, leader: Leadership) -> TopicLimits:
        return await self._topic_limits(await self._route_row(leader))

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
