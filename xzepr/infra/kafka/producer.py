"""A producer whose every call ends: after any exception it is closed, and another one takes over."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

from aiokafka import AIOKafkaProducer

from xzepr.infra.concurrency import retrieve_exception
from xzepr.infra.kafka.cluster import (
    REJECTIONS,
    BrokerError,
    Cluster,
    CompetingProducerError,
    FencedError,
    MessagesLostError,
    call,
    rejection,
)

_BATCH_BYTES = 262_144
"""aiokafka's own default of 16 KiB means many small requests: with this it sent 22,000 messages/s instead."""

_MIN_REQUEST_BYTES = 65_536
"""More than any message has without its data."""

_CALLS_PER_TRANSACTION = 2
"""A transaction may take as long as so many calls; then the brokers end it."""

_CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Record:
    """One Kafka message to be."""

    topic: str
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()

    @property
    def size(self) -> int:
        """Its bytes in a batch of its own, rounded up: what a topic's `max.message.bytes` is compared with."""
        headers = sum(len(name) * 2 + len(value) + 10 for name, value in self.headers)
        return len(self.key) + len(self.value) + headers + 128


class Producer:
    """One producer of one transactional id. Opening it ends whatever a predecessor left open.

    Without a transactional id it is only idempotent: what it sends arrives once and in order as long as it lives, at
    once, and for good; to begin and to commit means nothing then."""

    def __init__(self, cluster: Cluster, transactional_id: str | None, max_message_bytes: int) -> None:
        """Takes what `open` takes; opens nothing."""
        self._cluster = cluster
        self._transactional = transactional_id is not None
        self._began_at = 0.0
        self._sent: list[tuple[str, asyncio.Future[Any]]] = []
        self.acknowledged: dict[tuple[str, int], int] = {}
        """For topics and their partitions, the offset of the newest message of ours that has arrived."""
        self._client: Any = AIOKafkaProducer(
            **cluster.options(),
            client_id=transactional_id or "xzepr-relay",
            transactional_id=transactional_id,
            transaction_timeout_ms=_CALLS_PER_TRANSACTION * cluster.timeout_ms,
            enable_idempotence=True,
            acks="all",
            max_batch_size=min(_BATCH_BYTES, max_message_bytes),
            # The broker judges, not an estimate: its refusal names one message, which is then left out.
            max_request_size=max(_MIN_REQUEST_BYTES, max_message_bytes),
            retry_backoff_ms=10,
        )

    @classmethod
    async def open(cls, cluster: Cluster, transactional_id: str | None, max_message_bytes: int) -> Self:
        """A producer that has fenced its predecessor: the predecessor's last transaction is decided and visible when
        this returns, so read the state after it and never before. Raises BrokerError."""
        producer = cls(cluster, transactional_id, max_message_bytes)
        try:
            async with call(cluster, "start the producer"):
                await producer._client.start()
        except BaseException:
            await producer.close()
            raise
        return producer

    async def begin(self) -> None:
        """Begins a transaction."""
        if not self._transactional:
            return
        self._began_at = time.monotonic()
        async with call(self._cluster, "begin a transaction"):
            await self._client.begin_transaction()

    async def send(self, record: Record) -> None:
        """Hands a message over; `settle` tells whether it arrived."""
        async with self._call("send"):
            try:
                sent: asyncio.Future[Any] = await self._client.send(
                    record.topic, value=record.value, key=record.key, headers=list(record.headers)
                )
            except REJECTIONS as error:
                raise rejection(record.topic, error) from error
        sent.add_done_callback(retrieve_exception)  # its transaction may be abandoned before it fails
        self._sent.append((record.topic, sent))

    async def flush(self) -> None:
        """Waits until everything sent has arrived. A commit succeeds although a send failed, so never commit before.
        Raises RefusedError for what the brokers will never accept, and LostError when a topic has lost what had arrived
        there before; then nothing of the transaction may be committed."""
        sent, self._sent = self._sent, []
        newest: dict[tuple[str, int], int] = {}
        vague = set[tuple[str, int]]()
        async with self._call("send"):
            for topic, future in sent:
                try:
                    there = await future
                except REJECTIONS as error:
                    raise rejection(topic, error) from error
                place = (topic, there.partition)
                if there.offset < 0:  # of what a try that was not answered had delivered brokers do not say where,
                    vague.add(place)  # and the client counts on from that
                if place in vague:
                    continue
                newest[place] = max(there.offset, newest.get(place, 0))
                if there.offset <= self.acknowledged.get(place, -1):
                    raise MessagesLostError(*place, self.acknowledged[place])
        self.acknowledged.update((place, offset) for place, offset in newest.items() if place not in vague)

    async def commit(self) -> None:
        """Commits. After a BrokerError nobody knows whether it did: the next producer will read it in the state."""
        if self._sent:
            raise BrokerError("commit: something was sent whose arrival was not awaited")
        if not self._transactional:
            return
        async with self._call("commit"):
            await self._client.commit_transaction()

    @asynccontextmanager
    async def _call(self, action: str) -> AsyncGenerator[None]:
        """A call in the transaction. Brokers end one that takes too long, and say what they say to who has a rival; but
        they do not before it is as old as that, and it cannot be older there than it is here."""
        limit = _CALLS_PER_TRANSACTION * self._cluster.timeout_seconds
        try:
            async with call(self._cluster, action):
                yield
        except FencedError as error:
            if time.monotonic() - self._began_at < limit:
                raise CompetingProducerError(f"{action}: another producer took over the transactional id") from error
            raise FencedError(f"{action}: the transaction took longer than {limit:g} seconds") from error

    async def check(self) -> None:
        """Asks a broker something, for a producer that has nothing to send and would not notice that all are gone."""
        async with call(self._cluster, "reach the brokers"):
            # Of the topics that it sends to: of all, a large cluster's answer takes a tenth of a second to read.
            if not await self._client.client.force_metadata_update():
                raise BrokerError("reach the brokers: none answers")

    async def close(self) -> None:
        """Lets go of everything within seconds, whatever state brokers and transaction are in; an open transaction is
        aborted by whoever opens the next producer."""
        # `stop()` would first deliver what is pending, and wait for ever for a broker that is down. So the sender goes
        # first and what waits for it is failed; then there is nothing left to wait for.
        sender: asyncio.Task[Any] | None = self._client._sender.sender_task
        if sender is not None:
            sender.cancel()
        self._client._message_accumulator.fail_all(BrokerError("the producer was closed"))
        self._retrieve_exceptions()
        with suppress(BrokerError):
            async with call(self._cluster, "close connections", _CLOSE_SECONDS):
                await self._client.client.close()
        with suppress(BrokerError):
            async with call(self._cluster, "stop", _CLOSE_SECONDS):
                await self._client.stop()

    def _retrieve_exceptions(self) -> None:
        """What failed inside the client, and nobody waits for, must not end as 'exception was never retrieved'."""
        accumulator = self._client._message_accumulator
        batches = [*accumulator._pending_batches, *(one for queue in accumulator._batches.values() for one in queue)]
        for future in (self._client._txn_manager._transaction_waiter, *(batch._drain_waiter for batch in batches)):
            if future is not None and future.done():
                retrieve_exception(future)
