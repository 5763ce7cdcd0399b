"""What brokers say of where something arrived, and what the producer makes of it."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from xzepr.infra.kafka.cluster import Cluster, LostError
from xzepr.infra.kafka.producer import Producer, Record


class Client:
    """Answers each message with the next of these offsets, of partition 0."""

    def __init__(self) -> None:
        self.offsets: list[int] = []

    async def send(self, topic: str, **_: Any) -> "asyncio.Future[Any]":
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        answer.set_result(SimpleNamespace(partition=0, offset=self.offsets.pop(0)))
        return answer


class Answered(Producer):
    """A producer whose brokers say what a test wants."""

    def __init__(self) -> None:
        self._cluster = Cluster(("127.0.0.1:1",), 5)
        self._transactional = False
        self._began = 0.0
        self._sent = []
        self.arrived = {}
        self._client = self.client = Client()

    async def arrive(self, *offsets: int) -> None:
        """So many messages are sent, and arrive there."""
        self.client.offsets = list(offsets)
        for _ in offsets:
            await self.send(Record("t", b"k", b"v"))
        await self.settle()


async def test_newest_offset_per_partition_is_recorded():
    producer = Answered()
    await producer.arrive(4, 5, 6)
    await producer.arrive(8)
    assert producer.arrived == {("t", 0): 8}


@pytest.mark.parametrize("offset", [8, 3, 0])
async def test_lower_offset_raises_lost_error(offset: int):
    producer = Answered()
    await producer.arrive(7, 8)
    with pytest.raises(LostError, match="ends before offset 8"):
        await producer.arrive(offset)
    assert producer.arrived == {("t", 0): 8}


async def test_batch_without_known_offset_is_ignored():
    producer = Answered()
    await producer.arrive(7, 8)
    await producer.arrive(-1, 0, 1)  # the client counts on from the offset that brokers do not say
    assert producer.arrived == {("t", 0): 8}
    await producer.arrive(12)
    assert producer.arrived == {("t", 0): 12}
