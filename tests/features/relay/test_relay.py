"""The relay on a real broker: the messages that consumers receive, and which of several processes relays."""

import asyncio

import orjson
import pytest

from tests.support.relay import (
    append,
    append_event,
    assert_exactly_once,
    consume,
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
from xzepr.features.relay.route import Route
from xzepr.features.stream.service import Stream
from xzepr.infra.kafka.producer import Producer, Record

pytestmark = pytest.mark.kafka


async def _until_no_leader(stream: Stream) -> None:
    async with asyncio.timeout(5):
        while True:
            [status] = await routes.statuses(stream.db, SYSTEM)
            if not status.led:
                return
            await asyncio.sleep(0.02)


async def test_consumer_receives_each_message_once_in_order(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with open_stream(database_url) as stream:
        await append(stream, 1000)
        async with running(new_relay(stream, settings)) as relay:
            await until_relayed(relay, stream)
            for _ in range(20):
                await append(stream, 10)
            await until_relayed(relay, stream)
            assert relay.status.state is RelayState.FOLLOWING
            assert relay.status.position == 1200
            await until(lambda: relay.status.state is RelayState.FOLLOWING)
            [status] = await routes.statuses(stream.db, SYSTEM)
            assert (status.route, status.state, status.led) == (settings.topic, RelayState.FOLLOWING, True)
        await _until_no_leader(stream)
    assert_exactly_once(await asyncio.to_thread(consume, kafka, settings.topic), 1200)


async def test_event_arrives_as_cloudevent_keyed_by_unit(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka, source="https://hub.example.org/")
    async with open_stream(database_url) as stream:
        message = await append_event(stream, b'{"z":1,"a":[1.5,"\xc3\xa9"]}')
        async with running(new_relay(stream, settings)) as relay:
            await until_relayed(relay, stream)
    [received] = await asyncio.to_thread(consume, kafka, settings.topic)
    assert message.event is not None
    assert received.key == message.event.unit_id.hex().encode()
    assert received.headers == {
        "content-type": b"application/cloudevents+json",
        "position": b"1",
        "id": message.id.encode(),
    }
    assert received.cloudevent["id"] == message.id
    assert received.cloudevent["source"] == "https://hub.example.org/"
    assert b'"payload":{"z":1,"a":[1.5,"\xc3\xa9"]}' in received.value, "the payload is sent as stored"


async def test_too_large_message_is_sent_without_data(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka, max_message_bytes=5000)
    async with open_stream(database_url) as stream:
        await append_event(stream, b'{"size":"small"}')
        large = await append_event(stream, orjson.dumps({"size": "x" * 10_000}))
        await append_event(stream, b'{"size":"small"}')
        async with running(new_relay(stream, settings)) as relay:
            await until_relayed(relay, stream)
    received = {
        message.position: message.cloudevent for message in await asyncio.to_thread(consume, kafka, settings.topic)
    }
    assert set(received) == {1, 2, 3}
    assert received[2]["dataref"] == f"/xzepr/events/{large.id}"
    assert "data" not in received[2]
    assert received[1]["data"]["event"]["payload"] == {"size": "small"} == received[3]["data"]["event"]["payload"]


async def test_standby_relay_takes_over(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with open_stream(database_url) as stream, open_stream(database_url) as other_stream:
        second = new_relay(other_stream, settings)
        async with running(new_relay(stream, settings)) as first:
            await append(stream, 50)
            await until_relayed(first, stream)
            async with running(second):
                await until(lambda: second.status.detail == "another process relays")
                assert second.status.state is RelayState.STANDBY
                await append(stream, 50)
                await until_relayed(first, stream)
                assert second.status.position is None
        async with running(second):
            await append(stream, 50)
            await until_relayed(second, stream)
    assert_exactly_once(await asyncio.to_thread(consume, kafka, settings.topic), 150)


async def test_relay_regains_lost_leadership(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with open_stream(database_url) as stream, running(new_relay(stream, settings)) as relay:
        await append(stream, 50)
        await until_relayed(relay, stream)
        async with stream.db.read() as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name LIKE '%% relay'",
                (),
            )
        await until(lambda: relay.status.state is RelayState.STANDBY)
        await append(stream, 50)
        await until_relayed(relay, stream)
        await until(lambda: relay.status.state is RelayState.FOLLOWING)
    assert_exactly_once(await asyncio.to_thread(consume, kafka, settings.topic), 100)


async def test_fenced_relay_that_still_leads_continues(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with open_stream(database_url) as stream, running(new_relay(stream, settings)) as relay:
        await append(stream, 50)
        await until_relayed(relay, stream)
        route = Route(settings, stream.hub_id)
        competitor = await Producer.open(route.cluster, route.transactional_id, 1_000_000)
        await append(stream, 50)
        await until_relayed(relay, stream)
        await until(lambda: relay.status.state is RelayState.FOLLOWING)
        await competitor.close()
    assert_exactly_once(await asyncio.to_thread(consume, kafka, settings.topic), 100)


async def test_open_transaction_of_old_leader_stays_invisible(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with open_stream(database_url) as stream:
        messages = await append(stream, 50)
        route = Route(settings, stream.hub_id)
        async with running(new_relay(stream, settings)) as relay:
            await until_relayed(relay, stream)
        old_producer = await Producer.open(route.cluster, route.transactional_id, 1_000_000)
        await old_producer.begin()
        await old_producer.send(Record(settings.topic, b"k", b"never committed", [("position", b"51")]))
        await old_producer.send(route.record(messages[0], 1_000_000))
        await old_producer.flush()
        await old_producer.close()
        await append(stream, 50)
        async with running(new_relay(stream, settings)) as relay:
            await until_relayed(relay, stream)
    assert_exactly_once(await asyncio.to_thread(consume, kafka, settings.topic), 100)
    everything = await asyncio.to_thread(consume, kafka, settings.topic, "read_uncommitted")
    assert len(everything) == 102


async def test_relay_waits_until_brokers_are_configured(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with open_stream(database_url) as stream:
        await append(stream, 20)
        async with running(new_relay(stream, settings.model_copy(update={"brokers": ()}))) as relay:
            await until(lambda: relay.status.state is RelayState.WAITING_FOR_BROKERS)
            assert "kafka.brokers is not set" in relay.status.detail
        async with running(new_relay(stream, settings.model_copy(update={"enabled": False}))) as relay:
            await until(lambda: "kafka.enabled" in relay.status.detail)
            assert relay.status.state is RelayState.STANDBY
        assert await routes.statuses(stream.db, SYSTEM) == []
        async with running(new_relay(stream, settings)) as relay:
            await until_relayed(relay, stream)
    assert_exactly_once(await asyncio.to_thread(consume, kafka, settings.topic), 20)
