"""Reads the ends of topics, and the newest value of a key in a compacted topic of one partition."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from xzepr.infra.kafka.cluster import BrokerError, Cluster, call

Partition = TopicPartition
"""A partition of a topic."""

# How many of the newest entries are read first: the newest value of a key in use is nearly always among them.
_TAIL_OFFSETS = 2_000


async def end_offsets(cluster: Cluster, topic: str, partitions: int) -> dict[int, int]:
    """Returns the end offset (of the next message) of each of a topic's `partitions`. Raises BrokerError."""
    async with call(cluster, f"find the ends of topic {topic}"):
        consumer = _consumer(cluster, "read_uncommitted")
        try:
            await consumer.start()
            offsets = await consumer.end_offsets([TopicPartition(topic, number) for number in range(partitions)])
        finally:
            await _stop(cluster, consumer)
    return {partition.partition: offset for partition, offset in offsets.items()}


async def blocked_partitions(cluster: Cluster, partitions: Sequence[Partition]) -> dict[Partition, int]:
    """Returns the partitions in which a transaction is open, with the offset of its first record. Raises BrokerError.

    That offset is the partition's last stable offset: read-committed consumers do not get beyond it.
    """
    async with call(cluster, "find open transactions"):
        ends: list[dict[Partition, int]] = []
        for isolation in ("read_uncommitted", "read_committed"):  # in this order: what ends in between is not blocked
            async with _started(cluster, isolation) as consumer:
                ends.append(await consumer.end_offsets(partitions))
        return {partition: ends[1][partition] for partition in partitions if ends[1][partition] < ends[0][partition]}


async def records(
    cluster: Cluster, partition: Partition, start: int, end: int | None, isolation: str
) -> AsyncGenerator[Any]:
    """Yields a partition's records from `start` up to, but not including, `end`; None for the last stable offset."""
    async with _started(cluster, isolation) as consumer:
        if end is None:
            end = (await consumer.end_offsets([partition]))[partition]
        consumer.assign([partition])
        consumer.seek(partition, max(start, (await consumer.beginning_offsets([partition]))[partition]))
        while await consumer.position(partition) < end:
            for record in (await consumer.getmany(partition, timeout_ms=20)).get(partition, ()):
                if record.offset < end:
                    yield record


async def latest_value(
    cluster: Cluster, topic: str, key: bytes, *, end: int | None = None, open_at: int | None = None
) -> bytes | None:
    """Returns the newest committed value of the key before the offset `end`; None if it has none. Raises BrokerError.

    Reads up to the high watermark if `end` is None. A read-committed consumer alone would end before the first open
    transaction. If hubs share the topic, that may be another hub's, begun before this hub's newest entry; then this
    waits for it. `open_at` is where such a transaction was seen, for the error.
    """
    partition = TopicPartition(topic, 0)
    cause = "a transaction in it may still be open" if open_at is None else f"a transaction is open at offset {open_at}"
    async with call(cluster, f"read topic {topic} to its end ({cause})"):
        begin, high_watermark = await _bounds(cluster, partition)
        end = high_watermark if end is None else end
        committed = _consumer(cluster, "read_committed")
        try:
            await committed.start()
            committed.assign([partition])
            tail = max(begin, end - _TAIL_OFFSETS)
            found, value = await _read(committed, partition, tail, end, key)
            if not found and tail > begin:
                _, value = await _read(committed, partition, begin, tail, key)
            return value
        finally:
            await _stop(cluster, committed)


def _consumer(cluster: Cluster, isolation: str) -> Any:
    return AIOKafkaConsumer(
        **cluster.options(),
        client_id="xzepr-relay",
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level=isolation,
        retry_backoff_ms=20,
        fetch_max_wait_ms=100,
    )


@asynccontextmanager
async def _started(cluster: Cluster, isolation: str) -> AsyncGenerator[Any]:
    consumer = _consumer(cluster, isolation)
    try:
        await consumer.start()
        yield consumer
    finally:
        await _stop(cluster, consumer)


async def _bounds(cluster: Cluster, partition: TopicPartition) -> tuple[int, int]:
    consumer = _consumer(cluster, "read_uncommitted")
    try:
        await consumer.start()
        begin = await consumer.beginning_offsets([partition])
        end = await consumer.end_offsets([partition])
        return begin[partition], end[partition]
    finally:
        await _stop(cluster, consumer)


async def _stop(cluster: Cluster, consumer: Any) -> None:
    with suppress(BrokerError):
        async with call(cluster, "stop reading", 5.0):
            # Lets its tasks begin: cancelling a task that has not begun would make stop() raise CancelledError.
            await asyncio.sleep(0)
            await consumer.stop()


async def _read(
    consumer: Any, partition: TopicPartition, start: int, end: int, key: bytes
) -> tuple[bool, bytes | None]:
    """Reads the offsets from `start` up to, but not including, `end`.

    Returns whether the key is among them, and its newest value there (None if it was deleted).
    """
    found, value = False, None
    consumer.seek(partition, start)
    while await consumer.position(partition) < end:
        fetched = await consumer.getmany(partition, timeout_ms=20)
        for record in fetched.get(partition, ()):
            if record.key == key and record.offset < end:
                found, value = True, record.value
    return found, value
