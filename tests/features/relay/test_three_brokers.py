"""Three brokers, of which one at a time is stopped, killed and started again, while relay processes are killed."""

import asyncio
import os
import random

import pytest

from tests.features.relay.test_relay_kills import Deaths
from tests.support.kafka import Cluster
from tests.support.relay import (
    STAGES,
    append,
    assert_exactly_once,
    consume,
    kafka_settings,
    opened,
    relay_of,
    relayed,
    running,
)
from xzepr.features.stream.service import Stream

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

KILLS = int(os.environ.get("XZEPR_TEST_RELAY_KILLS", "50"))
"""Of the relay's process."""
ROUNDS = 6
"""Brokers that are disturbed meanwhile, at least."""


async def _disturb(cluster: Cluster, times: list[str]) -> None:
    """Takes the brokers in turn, again and again: stops or kills one, and starts it again after a while."""
    while True:
        for broker in cluster.brokers:
            how = random.choice((broker.stop, broker.kill))
            await asyncio.to_thread(how)
            try:
                await asyncio.sleep(random.uniform(0.2, 3.0))
            finally:
                await asyncio.to_thread(broker.start)
            times.append(how.__name__)
            await asyncio.sleep(random.uniform(2.0, 4.0))  # replicas that follow again, before the next one goes


async def _record(stream: Stream) -> None:
    while True:
        await append(stream, 10)
        await asyncio.sleep(0.1)


async def _kill(deaths: Deaths, disturbed: list[str]) -> int:
    """Kills relays in every way, until there were enough of them and the brokers were disturbed often enough."""
    kills = 0
    while kills < KILLS or len(disturbed) < ROUNDS:
        kills += 1
        if kills % 2:
            await deaths.at(random.choice(STAGES), random.randint(1, 5), seconds=90)
        else:
            await deaths.after(random.uniform(0.3, 3.0))
    return kills


async def test_broker_failures_with_relay_kills_lose_nothing(three_brokers: Cluster, database_url: str) -> None:
    brokers = tuple(three_brokers.bootstrap.split(","))
    settings = kafka_settings(
        brokers[0], brokers=brokers, replication_factor=3, max_transaction_messages=20, timeout_seconds=5
    )
    disturbed: list[str] = []
    async with opened(database_url) as stream:
        deaths = Deaths(database_url, settings)
        async with running(relay_of(stream, settings)) as relay:  # makes the topics while all brokers are there
            await relayed(relay, stream)
        async with asyncio.TaskGroup() as meanwhile:  # what fails beside the kills ends them, and the test
            tasks = [
                meanwhile.create_task(_record(stream)),
                meanwhile.create_task(_disturb(three_brokers, disturbed)),
            ]
            kills = await _kill(deaths, disturbed)
            for task in tasks:
                task.cancel()
        async with running(relay_of(stream, settings)) as relay:
            await relayed(relay, stream, 120)
        head = (await stream.head()).position
    assert kills >= KILLS
    committed = await asyncio.to_thread(consume, three_brokers.bootstrap, settings.topic)
    assert_exactly_once(committed, head)
    written = await asyncio.to_thread(consume, three_brokers.bootstrap, settings.topic, "read_uncommitted")
    assert len(written) > len(committed), "nothing was written twice: the kills missed"
