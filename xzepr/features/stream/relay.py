"""The relay: one loop a hub that copies the stream to Kafka, exactly once for consumers that read committed.

Each transaction also writes its position to a compacted topic (as Kafka Connect does it, KIP-618). A relay that starts
first fences its predecessor, then reads that position: whatever the predecessor had under way is decided by then. Only
the process that holds a lock in the database runs it; fencing covers a holder that was cut off without noticing.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import structlog

from xzepr.core.clock import now
from xzepr.core.errors import Problem
from xzepr.features.stream import store
from xzepr.features.stream.model import Message
from xzepr.features.stream.pause import Pause
from xzepr.features.stream.portion import Portion
from xzepr.features.stream.published import (
    AT_LEAST_ONCE,
    Published,
    RelayState,
    RelayStatus,
    StoppedError,
    diverged,
    missing,
    refuses_everything,
    rival,
    wiped,
)
from xzepr.features.stream.relay_store import RouteRow
from xzepr.features.stream.route import OpenProducer, Passage, Route
from xzepr.features.stream.seat import Seat, seat
from xzepr.features.stream.service import Stream
from xzepr.infra.kafka.cluster import BrokerError, RefusedError, RivalError, TopicError
from xzepr.infra.kafka.producer import Producer
from xzepr.settings import KafkaSettings

_RECHECK_SECONDS = 10.0
"""How often a stopped relay looks whether the reason is gone."""
_PROBE_SECONDS = 5.0
"""How often an idle relay asks whether there still are brokers."""
_MOST_REFUSED = 100
"""Dead letters in a row after which the topic is at fault, and no longer the messages."""
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
        most_refused: int = _MOST_REFUSED,
        open_producer: OpenProducer = Producer.open,
    ) -> None:
        """`wait_beyond` returns once there may be something after a position; called anew every `poll_seconds`. After
        `most_refused` dead letters in a row the relay stops."""
        self._stream = stream
        self._route = Route(settings, stream.hub_id)
        self._wait_beyond = wait_beyond
        self._poll_seconds = poll_seconds
        self._most_refused = most_refused
        self._open_producer = open_producer
        self._promise = "" if settings.transactions else AT_LEAST_ONCE
        self._portion = Portion(settings.max_transaction_messages)
        self._sent: Sequence[Message] = ()
        self._left_out: set[int] = set()
        self._suspect = 0
        self._refused_in_a_row = 0
        self._asked_at = 0.0
        self._noted: Published | None = None
        self._noted_at = 0.0
        self._answered_at = 0.0
        self.status = RelayStatus(self._route.name, RelayState.STANDBY, "starting", now(), None)
        """What it is doing now."""

    async def run(self) -> None:
        """Relays until cancelled. Nothing that happens to brokers or database ends it."""
        if not self._route.settings.enabled:
            self._tell(RelayState.STANDBY, "kafka.enabled is off: this process never relays")
            await asyncio.Event().wait()
        if not self._route.settings.brokers:
            self._tell(RelayState.WAITING_FOR_BROKERS, "kafka.brokers is not set: history follows once it is")
            await asyncio.Event().wait()
        if self._promise:
            _log.warning("relay.promise", route=self._route.name, detail=self._promise)
        pause, yielding = Pause(), Pause()
        while True:
            try:
                async with seat(self._stream.db, self._route.name) as ours:
                    await self._wait_for(ours)
                    pause.reset()
                    await self._lead(ours)
            except RivalError:
                self._tell(RelayState.STANDBY, rival(self._route.name))
                await yielding()
            except Problem as problem:
                self._tell(RelayState.STANDBY, problem.message)
            except Exception as error:
                self._tell(RelayState.STANDBY, f"{type(error).__name__}: {error}")
                _log.exception("relay.failed", route=self._route.name)
            await pause()

    async def _wait_for(self, ours: Seat) -> None:
        while not await ours.take():
            self._tell(RelayState.STANDBY, "another process relays")
            await asyncio.sleep(self._poll_seconds)

    async def _lead(self, ours: Seat) -> None:
        """Holds the seat and relays, until the seat is lost."""
        await self._describe(ours, RelayState.WAITING_FOR_BROKERS, "connecting")
        self.status = replace(self.status, leads=True)
        pause = Pause()
        while True:
            try:
                # Also after being fenced: that may only mean that a transaction took too long. The seat decides.
                await ours.check()
                try:
                    await self._follow(ours, pause)
                except RefusedError as refusal:
                    await self._single_out(ours, refusal.reason)
            except RivalError:
                await self._describe(ours, RelayState.WAITING_FOR_BROKERS, rival(self._route.name))
                raise
            except BrokerError as error:
                await self._describe(ours, RelayState.WAITING_FOR_BROKERS, str(error))
                await pause()
            except (StoppedError, TopicError) as error:
                first = (await self._stream.origin()).position + 1
                detail = error.told(first) if isinstance(error, StoppedError) else str(error)
                await self._describe(ours, RelayState.STOPPED, detail)
                await self._wait_for_instruction(ours)

    async def _wait_for_instruction(self, ours: Seat) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_RECHECK_SECONDS):
                while True:
                    if (await ours.row()).resume_id is not None:
                        return
                    await asyncio.sleep(self._poll_seconds)

    async def _follow(self, ours: Seat, pause: Pause) -> None:
        """Opens the route and moves messages for as long as that works."""
        row = await ours.row()
        passage = await Passage.open(self._route, await self._route.prepare(_must_be_there(row)), self._open_producer)
        try:
            await self._place(ours, passage, row)
            pause.reset()
            await self._describe(ours, RelayState.FOLLOWING, self._promise)
            while True:
                await self._move(ours, passage)
        finally:
            await passage.close()

    async def _place(self, ours: Seat, passage: Passage, row: RouteRow) -> None:
        """Finds where to go on: as instructed, else where Kafka says, if the database agrees. Raises StoppedError."""
        published = passage.published
        if published is not None and published.retry_id is not None:
            await ours.arrived(published.retry_id)
        if row.resume_id is not None and row.resume_after is not None:
            if published is None or published.resume_id != row.resume_id:
                await self._obey(passage, row.resume_id, row.resume_after)
        elif published is None:
            if row.published_position:
                raise wiped(self._route.name, row.published_position)
            await passage.begin(await self._stream.origin())
        else:
            await self._verify(ours, published)
        published = passage.so_far
        self._left_out = await ours.left_out(published.position)
        self.status = replace(self.status, position=published.position)
        await self._note(ours, published)
        if row.resume_id is not None:
            await ours.obeyed(row.resume_id)  # not before retention can see from where we publish again

    async def _obey(self, passage: Passage, resume_id: str, after: int) -> None:
        id = await self._id_at(after)
        if id is None:
            raise missing(self._route.name, after + 1)
        # With the instruction's id: should we die before the database forgets it, it is not obeyed again.
        await passage.publish((), Published(after, id, resume_id))
        _log.warning("relay.resumed", route=self._route.name, after=after)

    async def _verify(self, ours: Seat, published: Published) -> None:
        found = await self._id_at(published.position)
        if found != published.id:
            head, noted = await self._stream.head(), (await ours.row()).published_position
            if found is None and published.position < head.position:
                raise missing(self._route.name, published.position + 1)
            raise diverged(self._route.name, published, head.position, found, noted)

    async def _id_at(self, position: int) -> str | None:
        async with self._stream.db.read() as connection:
            return await store.id_at(connection, position)

    async def _move(self, ours: Seat, passage: Passage) -> None:
        """Publishes what there is, or waits until there may be something."""
        retried = await self._retry(ours, passage)
        published = passage.so_far
        messages = await self._stream.following(published.cursor, self._portion.size)
        if not messages and retried:
            return
        if not messages:
            await self._verify(ours, published)
            await self._stay_sure(ours, passage, published)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):
                    await self._wait_beyond(published.position)
            return
        last = messages[-1]
        after = replace(published, position=last.position, id=last.id)
        await self._publish(passage, [one for one in messages if one.position not in self._left_out], after)
        self.status = replace(self.status, position=last.position)
        self._portion.moved(messages)
        if not published.position or time.monotonic() - self._noted_at > self._poll_seconds:
            await self._note(ours, after)

    async def _publish(self, passage: Passage, messages: Sequence[Message], after: Published) -> None:
        self._sent = messages
        await passage.publish(messages, after)
        self._answered_at = time.monotonic()
        if messages:
            self._refused_in_a_row = 0

    async def _single_out(self, ours: Seat, reason: str) -> None:
        """Of what was refused together, sends less next time; a message that is refused alone, twice, becomes a dead
        letter. It is written down before the position passes it, so that a successor leaves out the same."""
        if len(self._sent) > 1:
            self._portion.refused(self._sent)
            return
        [culprit] = self._sent
        if culprit.position != self._suspect:
            self._suspect = culprit.position  # the topic's limit may be new: it is read again before the second try
            return
        if culprit.position > (self.status.position or 0):
            if self._refused_in_a_row >= self._most_refused:
                raise refuses_everything(self._route.name, self._refused_in_a_row, reason)
            self._refused_in_a_row += 1
        self._portion.found()
        await ours.bury(culprit.position, culprit.id, reason)
        _log.error("relay.refused", route=self._route.name, position=culprit.position, id=culprit.id, reason=reason)

    async def _retry(self, ours: Seat, passage: Passage) -> bool:
        """Sends one dead letter again, if an administrator has asked for it. One at a time: the newest instruction in
        Kafka is then the only one that may be done there and not yet forgotten here."""
        if time.monotonic() - self._asked_at < self._poll_seconds:
            return False
        letters = await ours.dead_letters(passage.so_far.position)
        self.status = replace(self.status, dead_letters=letters.count)
        if letters.position is None or letters.retry_id is None:
            self._asked_at = time.monotonic()
            return False
        messages = await self._stream.after(letters.position - 1, 1)
        if [one.id for one in messages] != [letters.message_id]:
            await ours.bury(letters.position, letters.message_id or "", "the stream no longer holds it")
            return True
        # Whoever asks has perhaps mended the topic, and the message now fits with its data.
        passage.allow(await self._route.prepare(_must_be_there(await ours.row())))
        await self._publish(passage, messages, replace(passage.so_far, retry_id=letters.retry_id))
        await ours.arrived(letters.retry_id)
        return True

    async def _stay_sure(self, ours: Seat, passage: Passage, published: Published) -> None:
        """While there is nothing to move: notices that the seat is lost or the brokers are gone."""
        await (ours.check() if self._noted == published else self._note(ours, published))
        if time.monotonic() - self._answered_at > _PROBE_SECONDS:
            await passage.check()
            self._answered_at = time.monotonic()

    async def _note(self, ours: Seat, published: Published) -> None:
        await ours.remember(published)
        self._noted, self._noted_at = published, time.monotonic()

    async def _describe(self, ours: Seat, state: RelayState, detail: str) -> None:
        await ours.describe(state, detail)
        self._tell(state, detail)

    def _tell(self, state: RelayState, detail: str) -> None:
        was = self.status
        if (was.state, was.detail) == (state, detail):
            return
        since = was.since if was.state is state else now()
        leads = was.leads and state is not RelayState.STANDBY
        self.status = replace(was, state=state, detail=detail, since=since, leads=leads)
        log = _log.error if state is RelayState.STOPPED else _log.info
        log("relay.state", route=self._route.name, state=state.value, detail=detail)


def _must_be_there(row: RouteRow) -> int:
    """The position up to which the topics were filled; 0 when they may be absent and are then made."""
    return row.published_position if row.resume_id is None else 0
