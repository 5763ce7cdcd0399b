"""A relay dies after its commit was accepted, and the markers that would show it are held back: its successor waits."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import orjson
import pytest

from tests.features.relay.marker_proxy import Markers, markers_of
from tests.features.relay.test_relay_kills import Deaths
from tests.support.kafka import Cluster, NoBrokerError, jars
from tests.support.relay import (
    Received,
    append,
    assert_exactly_once,
    consume,
    kafka_settings,
    opened,
    relay_of,
    relayed,
    running,
    until,
)
from xzepr.features.relay.loop import Relay
from xzepr.features.relay.model import RelayState
from xzepr.features.stream.service import Stream
from xzepr.settings import KafkaSettings

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

ROUNDS = 6


_PORTION = 50
"""Messages, each with a key of its own: they are one transaction, which has a part in every partition."""


@pytest.fixture
async def held_back(tmp_path: Path) -> AsyncIterator[tuple[Cluster, Sequence[Markers]]]:
    """A running cluster of three, and the markers of each of its brokers."""
    try:
        jars()
    except NoBrokerError as missing:
        pytest.skip(f"no Kafka broker: {missing}")
    cluster = Cluster(tmp_path / "kafka")
    async with markers_of(cluster) as markers:
        yield cluster, markers


def _settings(cluster: Cluster) -> KafkaSettings:
    return kafka_settings(
        cluster.brokers[0].bootstrap,
        brokers=tuple(cluster.bootstrap.split(",")),
        replication_factor=3,
        max_transaction_messages=_PORTION,
        timeout_seconds=20,
    )


async def _read(settings: KafkaSettings, topic: str, isolation: str) -> list[Received]:
    """What such a reader sees while markers may wait."""
    return await asyncio.to_thread(consume, settings.brokers[0], topic, isolation, decided=False)


async def _state_seen(settings: KafkaSettings, isolation: str) -> int:
    """The newest position in the state topic for such a reader."""
    found = await _read(settings, settings.state_topic, isolation)
    return max((orjson.loads(one.value)["position"] for one in found), default=0)


async def _all_is_visible(stream: Stream, settings: KafkaSettings) -> None:
    """Returns when the markers of all that was published so far are written: none of those is to be held back."""
    head = (await stream.head()).position
    async with asyncio.timeout(30):
        while await _state_seen(settings, "read_committed") < head:
            await asyncio.sleep(0.05)


async def _die_after_commit(deaths: Deaths, markers: Sequence[Markers]) -> None:
    """A relay is killed once a coordinator has accepted its commit and the markers of it wait, at these brokers."""
    for one in markers:
        one.hold()
    await deaths.when(asyncio.gather(*(one.held.wait() for one in markers)))


async def _nothing_is_known(relay: Relay, seconds: float) -> None:
    """So long, the relay waits and believes nothing."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert relay.status.position is None
        assert relay.status.state is not RelayState.FOLLOWING
        await asyncio.sleep(0.02)


async def _went_on(relay: Relay, stream: Stream, settings: KafkaSettings) -> None:
    """It knew what was published, sent nothing of it again, and goes on with what comes."""
    await relayed(relay, stream, 60)
    assert_exactly_once(await _read(settings, settings.topic, "read_uncommitted"), (await stream.head()).position)
    await append(stream, 10)
    await relayed(relay, stream, 60)


async def test_new_leader_waits_for_markers(held_back: tuple[Cluster, Sequence[Markers]], database_url: str) -> None:
    cluster, markers = held_back
    settings = _settings(cluster)
    async with opened(database_url) as stream:
        deaths = Deaths(database_url, settings)
        async with running(relay_of(stream, settings)) as relay:
            await append(stream, 10)
            await relayed(relay, stream, 60)
        for number in range(ROUNDS):
            which = markers if number % 2 == 0 else [markers[number // 2 % 3]]
            await _all_is_visible(stream, settings)
            await append(stream, _PORTION, keys=_PORTION)
            await _die_after_commit(deaths, which)
            if which is markers:
                seen = [await _state_seen(settings, one) for one in ("read_committed", "read_uncommitted")]
                assert seen[1] - seen[0] == _PORTION, "who did not wait would read a position that is stale"
            async with running(relay_of(stream, settings)) as relay:
                await _nothing_is_known(relay, 1)
                for one in which:
                    one.release()
                await _went_on(relay, stream, settings)
        head = (await stream.head()).position
    assert_exactly_once(await asyncio.to_thread(consume, settings.brokers[0], settings.topic), head)


async def test_new_leader_times_out_waiting_for_markers(
    held_back: tuple[Cluster, Sequence[Markers]], database_url: str
) -> None:
    cluster, markers = held_back
    settings = _settings(cluster)
    impatient = settings.model_copy(update={"timeout_seconds": 2})  # and transactions of 4 s
    async with opened(database_url) as stream:
        async with running(relay_of(stream, settings)) as relay:
            await append(stream, 10)
            await relayed(relay, stream, 60)
        await _all_is_visible(stream, settings)
        await append(stream, _PORTION, keys=_PORTION)
        await _die_after_commit(Deaths(database_url, settings), markers)
        async with running(relay_of(stream, impatient)) as relay:
            await until(lambda: relay.status.detail == "start the producer: no answer within 2 seconds", 60)
            assert relay.status.state is RelayState.WAITING_FOR_BROKERS
            await _nothing_is_known(relay, 6)
            for one in markers:
                one.release()
            await _went_on(relay, stream, settings)
        head = (await stream.head()).position
    assert_exactly_once(await asyncio.to_thread(consume, settings.brokers[0], settings.topic), head)
