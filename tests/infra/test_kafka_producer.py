"""The producer tracks the offsets that brokers return, and detects lost messages by them."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from xzepr.infra.kafka.cluster import Cluster, MessagesLostError
from xzepr.infra.kafka.producer import Producer, Record


class Client:
    """A fake client that acknowledges each message with the next offset of `offsets`, in partition 0."""

    def __init__(self) -> None:
        self.offsets: list[int] = []

    async def send(self, topic: str, **_: Any) -> "asyncio.Future[Any]":
        acknowledgement: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        acknowledgement.set_result(SimpleNamespace(partition=0, offset=self.offsets.pop(0)))
        return acknowledgement


class ProducerWithFakeClient(Producer):
    """A producer whose brokers return the offsets that a test chooses."""

    def __init__(self) -> None:
        self._cluster = Cluster(("127.0.0.1:1",), 5)
        self._transactional = False
        self._began_at = 0.0
        self._sent = []
        self.acknowledged = {}
        self._client = self.client = Client()

    async def send_to(self, *offsets: int) -> None:
        """Sends one message per offset. The brokers return these offsets."""
        self.client.offsets = list(offsets)
        for _ in offsets:
            await self.send(Record("t", b"k", b"v"))
        await self.flush()


async def test_newest_offset_per_partition_is_recorded():
    producer = ProducerWithFakeClient()
    await producer.send_to(4, 5, 6)
    await producer.send_to(8)
    assert producer.acknowledged == {("t", 0): 8}


@pytest.mark.parametrize("offset", [8, 3, 0])
async def test_lower_offset_raises_lost_error(offset: int):
    producer = ProducerWithFakeClient()
    await producer.send_to(7, 8)
    with pytest.raises(MessagesLostError, match="ends before offset 8"):
        await producer.send_to(offset)
    assert producer.acknowledged == {("t", 0): 8}


async def test_batch_without_known_offset_is_ignored():
    producer = ProducerWithFakeClient()
    await producer.send_to(7, 8)
    await producer.send_to(-1, 0, 1)  # brokers return -1 for a batch delivered before; the client counts from there
    assert producer.acknowledged == {("t", 0): 8}
    await producer.send_to(12)
    assert producer.acknowledged == {("t", 0): 12}
