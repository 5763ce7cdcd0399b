"""A relay dies after its commit was accepted while the transaction markers are held back; the new leader waits."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import orjson
import pytest

from tests.features.relay.marker_proxy import MarkerProxy, marker_proxies
from tests.features.relay.test_relay_kills import RelayKiller
from tests.support.kafka import Cluster, NoBrokerError, jars
from tests.support.relay import (
    Received,
    append,
    assert_exactly_once,
    consume,
    kafka_settings,
    new_relay,
    open_stream,
    running,
    until,
    until_relayed,
)
from xzepr.features.relay.loop import Relay
from xzepr.features.relay.model import RelayState
from xzepr.features.stream.service import Stream
from xzepr.settings import KafkaSettings

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

ROUNDS = 6


# Messages with distinct keys, so that one transaction writes to every partition.
_BATCH = 50


@pytest.fixture
async def held_markers(tmp_path: Path) -> AsyncIterator[tuple[Cluster, Sequence[MarkerProxy]]]:
    """Starts a cluster of three brokers with a marker proxy for each."""
    try:
        jars()
    except NoBrokerError as missing:
        pytest.skip(f"no Kafka broker: {missing}")
    cluster = Cluster(tmp_path / "kafka")
    async with marker_proxies(cluster) as proxies:
        yield cluster, proxies


def _settings(cluster: Cluster) -> KafkaSettings:
    return kafka_settings(
        cluster.brokers[0].bootstrap,
        brokers=tuple(cluster.bootstrap.split(",")),
        replication_factor=3,
        max_transaction_messages=_BATCH,
        timeout_seconds=20,
    )


async def _read(settings: KafkaSettings, topic: str, isolation: str) -> list[Received]:
    """Reads a topic without waiting for open transactions."""
    return await asyncio.to_thread(consume, settings.brokers[0], topic, isolation, wait_for_transactions=False)


async def _visible_position(settings: KafkaSettings, isolation: str) -> int:
    """Returns the newest position in the state topic that this isolation level shows."""
    records = await _read(settings, settings.state_topic, isolation)
    return max((orjson.loads(record.value)["position"] for record in records), default=0)


async def _until_all_visible(stream: Stream, settings: KafkaSettings) -> None:
    """Waits until the markers of all earlier transactions are written, so that none of them is held back."""
    head = (await stream.head()).position
    async with asyncio.timeout(30):
        while await _visible_position(settings, "read_committed") < head:
            await asyncio.sleep(0.05)


async def _die_after_commit(killer: RelayKiller, proxies: Sequence[MarkerProxy]) -> None:
    """Kills a relay once its commit is accepted and its markers wait at these brokers."""
    for proxy in proxies:
        proxy.hold()
    await killer.kill_when(asyncio.gather(*(proxy.held.wait() for proxy in proxies)))


async def _assert_position_unknown(relay: Relay, seconds: float) -> None:
    """Asserts that the relay keeps waiting for `seconds`, without a position."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert relay.status.position is None
        assert relay.status.state is not RelayState.FOLLOWING
        await asyncio.sleep(0.02)


async def _assert_continues(relay: Relay, stream: Stream, settings: KafkaSettings) -> None:
    """Asserts that the relay repeats no published message and relays new ones."""
    await until_relayed(relay, stream, 60)
    assert_exactly_once(await _read(settings, settings.topic, "read_uncommitted"), (await stream.head()).position)
    await append(stream, 10)
    await until_relayed(relay, stream, 60)


async def test_new_leader_waits_for_markers(
    held_markers: tuple[Cluster, Sequence[MarkerProxy]], database_url: str
) -> None:
    cluster, proxies = held_markers
    settings = _settings(cluster)
    async with open_stream(database_url) as stream:
        killer = RelayKiller(database_url, settings)
        async with running(new_relay(stream, settings)) as relay:
            await append(stream, 10)
            await until_relayed(relay, stream, 60)
        for number in range(ROUNDS):
            holding = proxies if number % 2 == 0 else [proxies[number // 2 % 3]]
            await _until_all_visible(stream, settings)
            await append(stream, _BATCH, keys=_BATCH)
            await _die_after_commit(killer, holding)
            if holding is proxies:
                committed, written = [
                    await _visible_position(settings, isolation) for isolation in ("read_committed", "read_uncommitted")
                ]
                assert written - committed == _BATCH, "a relay that did not wait would read a stale position"
            async with running(new_relay(stream, settings)) as relay:
                await _assert_position_unknown(relay, 1)
                for proxy in holding:
                    proxy.release()
                await _assert_continues(relay, stream, settings)
        head = (await stream.head()).position
    assert_exactly_once(await asyncio.to_thread(consume, settings.brokers[0], settings.topic), head)


async def test_new_leader_times_out_waiting_for_markers(
    held_markers: tuple[Cluster, Sequence[MarkerProxy]], database_url: str
) -> None:
    cluster, proxies = held_markers
    settings = _settings(cluster)
    impatient = settings.model_copy(update={"timeout_seconds": 2})  # transactions then time out after 4 s
    async with open_stream(database_url) as stream:
        async with running(new_relay(stream, settings)) as relay:
            await append(stream, 10)
            await until_relayed(relay, stream, 60)
        await _until_all_visible(stream, settings)
        await append(stream, _BATCH, keys=_BATCH)
        await _die_after_commit(RelayKiller(database_url, settings), proxies)
        async with running(new_relay(stream, impatient)) as relay:
            await until(lambda: relay.status.detail == "start the producer: no answer within 2 seconds", 60)
            assert relay.status.state is RelayState.WAITING_FOR_BROKERS
            await _assert_position_unknown(relay, 6)
            for proxy in proxies:
                proxy.release()
            await _assert_continues(relay, stream, settings)
        head = (await stream.head()).position
    assert_exactly_once(await asyncio.to_thread(consume, settings.brokers[0], settings.topic), head)
