"""Three brokers, of which one at a time is stopped or killed and restarted, while relay processes are killed."""

import asyncio
import os
import random

import pytest

from tests.features.relay.test_relay_kills import RelayKiller
from tests.support.kafka import Cluster
from tests.support.relay import (
    STAGES,
    append,
    assert_exactly_once,
    consume,
    kafka_settings,
    new_relay,
    open_stream,
    running,
    until_relayed,
)
from xzepr.features.stream.service import Stream

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

# Kills of the relay process.
KILLS = int(os.environ.get("XZEPR_TEST_RELAY_KILLS", "50"))
# Broker outages during the kills, at least.
OUTAGES = 6


async def _interrupt_brokers(cluster: Cluster, outages: list[str]) -> None:
    """Stops or kills one broker after the other, without end, and starts each again after a pause."""
    while True:
        for broker in cluster.brokers:
            stop_or_kill = random.choice((broker.stop, broker.kill))
            await asyncio.to_thread(stop_or_kill)
            try:
                await asyncio.sleep(random.uniform(0.2, 3.0))
            finally:
                await asyncio.to_thread(broker.start)
            outages.append(stop_or_kill.__name__)
            await asyncio.sleep(random.uniform(2.0, 4.0))  # lets replicas catch up before the next outage


async def _record(stream: Stream) -> None:
    while True:
        await append(stream, 10)
        await asyncio.sleep(0.1)


async def _kill(killer: RelayKiller, outages: list[str]) -> int:
    """Kills relays at random stages and moments, until there were enough kills and broker outages."""
    kills = 0
    while kills < KILLS or len(outages) < OUTAGES:
        kills += 1
        if kills % 2:
            await killer.kill_at_stage(random.choice(STAGES), random.randint(1, 5), seconds=90)
        else:
            await killer.kill_after(random.uniform(0.3, 3.0))
    return kills


async def test_broker_failures_with_relay_kills_lose_nothing(three_brokers: Cluster, database_url: str) -> None:
    brokers = tuple(three_brokers.bootstrap.split(","))
    settings = kafka_settings(
        brokers[0], brokers=brokers, replication_factor=3, max_transaction_messages=20, timeout_seconds=5
    )
    outages: list[str] = []
    async with open_stream(database_url) as stream:
        killer = RelayKiller(database_url, settings)
        async with running(new_relay(stream, settings)) as relay:  # creates the topics while all brokers run
            await until_relayed(relay, stream)
        async with asyncio.TaskGroup() as background:  # a failure in the background ends the test
            tasks = [
                background.create_task(_record(stream)),
                background.create_task(_interrupt_brokers(three_brokers, outages)),
            ]
            kills = await _kill(killer, outages)
            for task in tasks:
                task.cancel()
        async with running(new_relay(stream, settings)) as relay:
            await until_relayed(relay, stream, 120)
        head = (await stream.head()).position
    assert kills >= KILLS
    committed = await asyncio.to_thread(consume, three_brokers.bootstrap, settings.topic)
    assert_exactly_once(committed, head)
    written = await asyncio.to_thread(consume, three_brokers.bootstrap, settings.topic, "read_uncommitted")
    assert len(written) > len(committed), "no message was written twice: the kills missed every transaction"
