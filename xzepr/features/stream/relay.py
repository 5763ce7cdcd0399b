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

from xzepr.core.clock import now
from xzepr.core.errors import Problem
from xzepr.features.stream.delivery import Delivery
from xzepr.features.stream.model import Cursor, Message
from xzepr.features.stream.pause import Pause
from xzepr.features.stream.published import (
    AT_LEAST_ONCE,
    Published,
    RelayState,
    RelayStatus,
    StoppedError,
    diverged,
    missing,
    rival,
    unreadable,
    wiped,
)
from xzepr.features.stream.relay_store import RouteRow
from xzepr.features.stream.route import Fit, OpenProducer, Passage, Route
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
_MOST_READ = 200
"""Messages of one read: at 512 KiB a payload they are 100 MiB, however small those before them were."""
_WELL_SECONDS = 60.0
"""A relay that has led for so long had no rival then."""
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
        self._open_producer = open_producer
        self._promise = "" if settings.transactions else AT_LEAST_ONCE
        self._delivery = Delivery(
            self._route.name, settings.max_transaction_messages, most_refused=most_refused, poll_seconds=poll_seconds
        )
        self._tried: str | None = None
        self._idle_looks = 0
        self._noted: Published | None = None
        self._noted_at = -math.inf
        self._answered_at = -math.inf
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
            led_at = time.monotonic()
            try:
                async with seat(self._stream.db, self._route.name) as ours:
                    await self._wait_for(ours)
                    pause.reset()
                    led_at = time.monotonic()
                    await self._lead(ours)
            except RivalError:
                self._tell(RelayState.STANDBY, rival(self._route.name))
                if time.monotonic() - led_at > _WELL_SECONDS:
                    yielding.reset()
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
                    await self._delivery.single_out(ours, refusal.reason)
            except RivalError:
                await self._describe(ours, RelayState.WAITING_FOR_BROKERS, rival(self._route.name))
                raise
            except BrokerError as error:
                await self._describe(ours, RelayState.WAITING_FOR_BROKERS, str(error))
                await pause()
            except (StoppedError, TopicError) as error:
                self.status = replace(self.status, position=None)
                first = (await ours.origin()).position + 1
                detail = error.told(first) if isinstance(error, StoppedError) else str(error)
                await self._describe(ours, RelayState.STOPPED, detail)
                await self._wait_for_instruction(ours)

    async def _wait_for_instruction(self, ours: Seat) -> None:
        """Returns for one that was not tried yet, or when it is time to see whether the reason is gone."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_RECHECK_SECONDS):
                while True:
                    if (await ours.row()).resume_id not in (None, self._tried):
                        return
                    await asyncio.sleep(self._poll_seconds)

    async def _follow(self, ours: Seat, pause: Pause) -> None:
        """Opens the route and moves messages for as long as that works."""
        self.status = replace(self.status, position=None)
        row = await ours.row()
        self._tried = row.resume_id
        passage = await Passage.open(self._route, await self._fit(row), self._open_producer)
        try:
            await self._place(ours, passage, row)
            await self._describe(ours, RelayState.FOLLOWING, self._promise)
            if (await ours.row()).resume_id not in (None, self._tried):
                return  # it came while the route was stopped, and is obeyed now or would be much later
            while True:
                await self._move(ours, passage)
                pause.reset()
        finally:
            await passage.close()

    async def _fit(self, row: RouteRow) -> Fit:
        """What the topic takes. It must be there if anything was published, unless that is to be done again."""
        return await self._route.prepare(row.published_position if row.resume_id is None else 0)

    async def _fit_now(self, ours: Seat) -> Fit:
        return await self._fit(await ours.row())

    async def _place(self, ours: Seat, passage: Passage, row: RouteRow) -> None:
        """Finds where to go on: as instructed, else where Kafka says, if the database agrees. Raises StoppedError."""
        published = passage.published
        if published is not None and published.retry_id is not None:
            await ours.arrived(published.retry_id)
        if row.resume_id is not None and row.resume_after is not None:
            if published is None or published.resume_id != row.resume_id:
                await self._obey(ours, passage, row.resume_id, row.resume_after)
        elif passage.unreadable:
            raise unreadable(self._route.name, row.published_position, passage.unreadable)
        elif published is None:
            if row.published_position:
                raise wiped(self._route.name, row.published_position)
            await passage.begin(await ours.origin())
        else:
            await self._verify(ours, published)
            await passage.must_hold(published)
        published = passage.so_far
        self._delivery.left_out = await ours.left_out(published.position)
        self.status = replace(self.status, position=published.position)
        await self._note(ours, published)
        if row.resume_id is not None:
            await ours.obeyed(row.resume_id)  # not before retention can see from where we publish again

    async def _obey(self, ours: Seat, passage: Passage, resume_id: str, after: int) -> None:
        id = await ours.id_at(after)
        if id is None:
            raise missing(self._route.name, after + 1)
        # With the instruction's id: should we die before the database forgets it, it is not obeyed again.
        await passage.publish((), Published(after, id, resume_id))
        _log.warning("relay.resumed", route=self._route.name, after=after)

    async def _verify(self, ours: Seat, published: Published) -> None:
        found = await ours.id_at(published.position)
        if found != published.id:
            head, noted = await ours.head(), (await ours.row()).published_position
            if found is None and published.position < head.position:
                raise missing(self._route.name, published.position + 1)
            raise diverged(self._route.name, published, head.position, found, noted)

    async def _move(self, ours: Seat, passage: Passage) -> None:
        """Publishes what there is, or waits until there may be something."""
        sent_again = await self._delivery.send_again(ours, passage, lambda: self._fit_now(ours))
        published = passage.so_far
        messages = await self._read(ours, published.cursor)
        if not messages and not sent_again:
            await self._verify(ours, published)
            await self._stay_sure(ours, passage, published)
            await self._wait(published.position)
        if not messages:
            return
        self._idle_looks = 0
        last = messages[-1]
        await self._delivery.send(passage, messages, replace(published, position=last.position, id=last.id))
        self._answered_at = time.monotonic()
        self.status = replace(self.status, position=last.position)
        if not published.position or time.monotonic() - self._noted_at > self._poll_seconds:
            await self._note(ours, passage.so_far)

    async def _wait(self, position: int) -> None:
        """Returns when there may be something after a position. Where there is said to be, again and again, and is not,
        it waits all the same: the feed may not know yet that the database was restored."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._poll_seconds):
                await self._wait_beyond(position)
                self._idle_looks += 1
                if self._idle_looks > 1:
                    await asyncio.sleep(self._poll_seconds)

    async def _read(self, ours: Seat, after: Cursor) -> Sequence[Message]:
        """The next portion. It is read in parts, since the messages to come may be larger than those before."""
        messages = await ours.following(after, min(self._delivery.most, _MOST_READ))
        part = messages
        while len(part) == _MOST_READ and not self._delivery.is_full(messages):
            part = await ours.following(part[-1].cursor, min(self._delivery.most - len(messages), _MOST_READ))
            messages += part
        return messages

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
