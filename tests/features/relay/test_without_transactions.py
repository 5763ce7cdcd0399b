"""A relay without transactions: it loses nothing, may repeat messages after a crash, and reports this guarantee."""

import asyncio

import pytest
import structlog

from tests.support.relay import (
    append,
    append_oversized,
    assert_exactly_once,
    consume,
    create_small_topic,
    kafka_settings,
    new_relay,
    open_stream,
    running,
    until,
    until_relayed,
)
from xzepr.core.actor import SYSTEM
from xzepr.features.relay import service as routes
from xzepr.features.relay.model import RelayState
from xzepr.infra.kafka.cluster import BrokerError
from xzepr.infra.kafka.producer import Producer, Record

pytestmark = pytest.mark.kafka


async def test_at_least_once_delivery_is_reported(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka, transactions=False)
    async with open_stream(database_url) as stream:
        await append(stream, 300)
        with structlog.testing.capture_logs() as lines:
            async with running(new_relay(stream, settings)) as relay:
                await until_relayed(relay, stream)
                await until(lambda: relay.status.state is RelayState.FOLLOWING)
                assert "at least once" in relay.status.detail
                [status] = await routes.statuses(stream.db, SYSTEM)
                assert "at least once" in status.detail
    assert [line["log_level"] for line in lines if line["event"] == "relay.guarantee"] == ["warning"]
    received = await asyncio.to_thread(consume, kafka, settings.topic, "read_uncommitted")
    assert_exactly_once(received, 300)


async def test_crash_before_state_write_repeats_one_batch(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka, transactions=False, max_transaction_messages=20)

    class CrashingProducer(Producer):
        """Fails once, when it should send the position of the fifth batch."""

        async def send(self, record: Record) -> None:
            if record.topic == settings.state_topic:
                states_sent.append(record.value)
                if len(states_sent) == 5:
                    raise BrokerError("crashed")
            await super().send(record)

    states_sent: list[bytes] = []
    async with (
        open_stream(database_url) as stream,
        running(new_relay(stream, settings, CrashingProducer.open)) as relay,
    ):
        await append(stream, 200)
        await until_relayed(relay, stream)
    positions = [message.position for message in await asyncio.to_thread(consume, kafka, settings.topic)]
    assert set(positions) == set(range(1, 201))
    assert sorted({position for position in positions if positions.count(position) > 1}) == list(range(81, 101))


async def test_relay_continues_after_a_change_of_mode(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with open_stream(database_url) as stream:
        for transactions in (True, False, True):
            await append(stream, 50)
            mode_settings = settings.model_copy(update={"transactions": transactions})
            async with running(new_relay(stream, mode_settings)) as relay:
                await until_relayed(relay, stream)
    assert_exactly_once(await asyncio.to_thread(consume, kafka, settings.topic), 150)


async def test_rejected_message_becomes_a_dead_letter(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka, transactions=False)
    await create_small_topic(settings)
    async with open_stream(database_url) as stream:
        await append(stream, 30)
        rejected = await append_oversized(stream)
        await append(stream, 30)
        async with running(new_relay(stream, settings)) as relay:
            await until_relayed(relay, stream)
            [status] = await routes.statuses(stream.db, SYSTEM)
            assert status.dead_letters == 1
    positions = {message.position for message in await asyncio.to_thread(consume, kafka, settings.topic)}
    assert positions == set(range(1, 62)) - {rejected.position}
