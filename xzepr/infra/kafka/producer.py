"""A transactional producer with a time limit on every call. After any error, it is closed and replaced."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.client import ConnectionGroup

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

# aiokafka's default of 16 KiB causes many small requests. With this size, it sent 22,000 messages/s.
_BATCH_BYTES = 262_144
_MIN_REQUEST_BYTES = 65_536  # more than any message without its data
_CALLS_PER_TRANSACTION = 2  # a transaction may take as long as this many calls; then the brokers abort it
_CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Record:
    """A Kafka message to send."""

    topic: str
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()

    @property
    def size(self) -> int:
        """Size in bytes as a batch of one message, rounded up. Brokers compare it with `max.message.bytes`."""
        headers = sum(len(name) * 2 + len(value) + 10 for name, value in self.headers)
        return len(self.key) + len(self.value) + headers + 128


class Producer:
    """The producer of a transactional id. Opening it ends the transaction that a predecessor left open.

    Without a transactional id it is only idempotent: its messages arrive once and in order, visible at once and for
    good. `begin` and `commit` then do nothing.
    """

    def __init__(self, cluster: Cluster, transactional_id: str | None, max_message_bytes: int) -> None:
        """Creates a producer that is not connected; use `open`."""
        self._cluster = cluster
        self._transactional = transactional_id is not None
        self._began_at = 0.0
        self._coordinator: object | None = None
        self._sent: list[tuple[str, asyncio.Future[Any]]] = []
        self.acknowledged: dict[tuple[str, int], int] = {}
        """For each topic and partition, the offset of this producer's newest acknowledged message."""
        self._client: Any = AIOKafkaProducer(
            **cluster.options(),
            client_id=transactional_id or "xzepr-relay",
            transactional_id=transactional_id,
            transaction_timeout_ms=_CALLS_PER_TRANSACTION * cluster.timeout_ms,
            enable_idempotence=True,
            acks="all",
            max_batch_size=min(_BATCH_BYTES, max_message_bytes),
            # The brokers check the size, not an estimate of the client: only what they reject becomes a dead letter.
            max_request_size=max(_MIN_REQUEST_BYTES, max_message_bytes),
            retry_backoff_ms=10,
        )

    @classmethod
    async def open(cls, cluster: Cluster, transactional_id: str | None, max_message_bytes: int) -> Self:
        """Opens a producer that has fenced its predecessor. Raises BrokerError.

        The predecessor's last transaction is decided and visible when this returns. Read the state only after it.
        """
        producer = cls(cluster, transactional_id, max_message_bytes)
        try:
            async with call(cluster, "start the producer"):
                await producer._client.start()
            producer._coordinator = producer._coordinator_connection()
        except BaseException:
            await producer.close()
            raise
        return producer

    async def begin(self) -> None:
        """Begins a transaction. Raises BrokerError if the coordinator was gone since the last one.

        A coordinator that was killed may have skipped markers of the last transaction. A new transaction could then end
        it with another outcome.
        """
        if not self._transactional:
            return
        self._check_coordinator("begin a transaction")
        self._began_at = time.monotonic()
        async with call(self._cluster, "begin a transaction"):
            await self._client.begin_transaction()

    async def send(self, record: Record) -> None:
        """Queues a message; `flush` waits until it has arrived."""
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
        """Waits until all messages have arrived. Call it before each commit, which succeeds even if a send failed.

        Raises RejectedError if the brokers will never accept a message, MessagesLostError if a topic lost earlier
        messages. The transaction must not be committed then.
        """
        sent, self._sent = self._sent, []
        newest: dict[tuple[str, int], int] = {}
        unknown = set[tuple[str, int]]()
        async with self._call("send"):
            for topic, future in sent:
                try:
                    metadata = await future
                except REJECTIONS as error:
                    raise rejection(topic, error) from error
                partition = (topic, metadata.partition)
                # Brokers return -1 for a batch that an unanswered attempt had delivered; the client counts from there.
                if metadata.offset < 0:
                    unknown.add(partition)
                if partition in unknown:
                    continue
                newest[partition] = max(metadata.offset, newest.get(partition, 0))
                if metadata.offset <= self.acknowledged.get(partition, -1):
                    raise MessagesLostError(*partition, self.acknowledged[partition])
        self.acknowledged.update(
            (partition, offset) for partition, offset in newest.items() if partition not in unknown
        )

    async def commit(self) -> None:
        """Commits. After a BrokerError the outcome is unknown; the next producer finds it in the state."""
        if self._sent:
            raise BrokerError("commit: messages were sent and not flushed")
        if not self._transactional:
            return
        async with self._call("commit"):
            await self._client.commit_transaction()
        self._check_coordinator("commit")

    def _check_coordinator(self, action: str) -> None:
        if self._coordinator_connection() is not self._coordinator:
            raise BrokerError(f"{action}: the connection to the transaction's coordinator was lost")

    def _coordinator_connection(self) -> object | None:
        """Returns the connection for requests about transactions; None if there is none."""
        for (_, group), connection in self._client.client._conns.items():
            if group == ConnectionGroup.COORDINATION and connection.connected():
                return connection
        return None

    async def end_hanging(self, partitions: Sequence[TopicPartition], *, commit: bool) -> None:
        """Ends what this transactional id left open in these partitions although its coordinator has ended it.

        Commits or aborts a transaction without records: the coordinator then writes a marker to each partition, which
        ends everything that this producer's id has open there. A partition without an open transaction ignores it.
        """
        await self.begin()
        async with self._call("end a hanging transaction"):
            for partition in partitions:
                self._client._txn_manager.maybe_add_partition_to_txn(partition)
            await (self._client.commit_transaction() if commit else self._client.abort_transaction())

    @asynccontextmanager
    async def _call(self, action: str) -> AsyncGenerator[None]:
        """A call within the transaction. Distinguishes a competing producer from a transaction that took too long.

        Brokers report the same error for both, but never abort a transaction before its time limit. To them, it cannot
        be older than to this process.
        """
        limit = _CALLS_PER_TRANSACTION * self._cluster.timeout_seconds
        try:
            async with call(self._cluster, action):
                yield
        except FencedError as error:
            if time.monotonic() - self._began_at < limit:
                raise CompetingProducerError(f"{action}: another producer took over the transactional id") from error
            raise FencedError(f"{action}: the transaction took longer than {limit:g} seconds") from error

    async def check(self) -> None:
        """Raises BrokerError if no broker responds, for a producer that has nothing to send."""
        async with call(self._cluster, "reach the brokers"):
            # Requests only the producer's topics: the metadata of a large cluster takes a tenth of a second to read.
            if not await self._client.client.force_metadata_update():
                raise BrokerError("reach the brokers: none responds")

    async def close(self) -> None:
        """Closes everything within seconds, whatever the state of brokers and transaction.

        The next producer aborts a transaction that is still open.
        """
        # `stop()` would first deliver pending messages, and wait indefinitely for a broker that is down. Therefore, the
        # sender is cancelled first and pending messages fail, so that `stop()` has nothing to wait for.
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
        """Retrieves the exceptions of futures inside the client, so that asyncio does not log them."""
        accumulator = self._client._message_accumulator
        batches = [
            *accumulator._pending_batches,
            *(batch for queue in accumulator._batches.values() for batch in queue),
        ]
        for future in (self._client._txn_manager._transaction_waiter, *(batch._drain_waiter for batch in batches)):
            if future is not None and future.done():
                retrieve_exception(future)
