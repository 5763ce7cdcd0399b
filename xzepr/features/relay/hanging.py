"""Ends hanging transactions: the coordinator has ended them, but a partition never got their marker.

A broker that was killed during a commit and has no replica skips the markers when it starts (seen with Kafka 4.3.1: it
considers the partitions absent). No later producer or time limit ends such a transaction. The relay could not read its
state, and read-committed consumers would not get beyond it.
"""

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import orjson
import structlog

from xzepr.features.relay.model import Published
from xzepr.infra.kafka.cluster import BrokerError, Cluster, call
from xzepr.infra.kafka.latest import Partition, blocked_partitions, latest_value, records
from xzepr.infra.kafka.producer import Producer

# A marker is visible within milliseconds after its coordinator has written it. Transactions of other hubs that share
# the state topic also end within this time.
_GRACE_SECONDS = 2.0
_POLL_SECONDS = 0.1
_log = structlog.stdlib.get_logger(__name__)

Blocked = dict[Partition, int]


@dataclass(frozen=True, slots=True)
class RouteTopics:
    """The topics of a route, and what marks the route's own records in them."""

    cluster: Cluster
    topic: str
    partitions: int
    state_topic: str
    state_key: bytes
    source: str
    """The source of the route's CloudEvents."""

    @property
    def state_partition(self) -> Partition:
        """The only partition of the state topic."""
        return Partition(self.state_topic, 0)

    @property
    def all_partitions(self) -> list[Partition]:
        """The partitions to which the route's transactions write."""
        return [self.state_partition, *(Partition(self.topic, number) for number in range(self.partitions))]


async def end_hanging_transactions(topics: RouteTopics, producer: Producer) -> int | None:
    """Ends the route's own hanging transactions. Call it right after the producer was opened, and before any other use.

    Returns the offset of a transaction that is still open in the state topic, such as another hub's; None if there is
    none. Raises BrokerError.
    """
    blocked = await _blocked_for(topics, _GRACE_SECONDS)
    if not blocked:
        return None
    # While another hub's transaction hides the end of the state topic, the outcome of this hub's cannot be determined.
    if not await _state_is_readable(topics, blocked):
        return blocked[topics.state_partition]
    commit = await _was_committed(topics, blocked)
    await producer.end_hanging(topics.all_partitions, commit=commit)
    still_blocked = await _blocked_for(topics, _GRACE_SECONDS)
    ended = [f"{at.topic}-{at.partition}@{offset}" for at, offset in blocked.items() if still_blocked.get(at) != offset]
    if ended:
        _log.warning("relay.hanging_transaction_ended", route=topics.topic, at=ended, committed=commit)
    return still_blocked.get(topics.state_partition)


async def _blocked_for(topics: RouteTopics, seconds: float) -> Blocked:
    """Returns the partitions that the same open transaction blocks for this time."""
    blocked = await blocked_partitions(topics.cluster, topics.all_partitions)
    end = time.monotonic() + seconds
    while blocked and time.monotonic() < end:
        await asyncio.sleep(_POLL_SECONDS)
        now = await blocked_partitions(topics.cluster, list(blocked))
        blocked = {partition: offset for partition, offset in now.items() if offset == blocked[partition]}
    return blocked


async def _state_is_readable(topics: RouteTopics, blocked: Blocked) -> bool:
    """Whether no other hub's transaction precedes this hub's in the state topic."""
    at = topics.state_partition
    return at not in blocked or getattr(await _first_record(topics, at, blocked[at]), "key", None) == topics.state_key


async def _first_record(topics: RouteTopics, partition: Partition, offset: int) -> Any:
    """Returns the record at this offset, whether committed or not; None if there is none."""
    first = records(topics.cluster, partition, offset, offset + 1, "read_uncommitted")
    async with call(topics.cluster, "read an open transaction"), aclosing(first):
        return await anext(first, None)


async def _was_committed(topics: RouteTopics, blocked: Blocked) -> bool:
    """Whether another partition shows that the hanging transaction was committed.

    Without such evidence it is aborted in all partitions, and its messages are published again: nothing is lost.
    """
    value = await latest_value(
        topics.cluster, topics.state_topic, topics.state_key, end=blocked.get(topics.state_partition)
    )
    try:
        published = Published(0, "") if value is None else Published.decode(value)
    except ValueError as error:
        raise BrokerError(f"end a hanging transaction: {error}") from error
    for partition in topics.all_partitions[1:]:
        # A visible message after the visible state: the transaction was committed, and the state lacks its marker.
        if await _has_visible_message_after(topics, partition, published):
            return True
        # A hidden message that the visible state covers: the transaction was committed, and the message lacks it.
        if partition in blocked:
            record = await _first_record(topics, partition, blocked[partition])
            if record is not None and 0 < _position(topics, record) <= published.position:
                return True
    return False


async def _has_visible_message_after(topics: RouteTopics, partition: Partition, published: Published) -> bool:
    start = published.offsets.get(partition.partition, -1) + 1
    visible = records(topics.cluster, partition, start, None, "read_committed")
    async with call(topics.cluster, "find the outcome of a hanging transaction"), aclosing(visible):
        async for record in visible:
            if _position(topics, record) > published.position:
                return True
    return False


def _position(topics: RouteTopics, record: Any) -> int:
    """Returns the position of one of this route's messages; 0 for a record of another producer."""
    position = dict(record.headers).get("position", b"")
    try:
        is_own = orjson.loads(record.value or b"").get("source") == topics.source
    except (ValueError, AttributeError):
        return 0
    return int(position) if is_own and position.isdigit() else 0
