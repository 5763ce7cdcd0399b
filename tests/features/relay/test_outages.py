"""The relay while brokers are down, with unsuitable topics, after Kafka lost its data or the database was restored."""

import asyncio

import pytest

from tests.support.kafka import Broker
from tests.support.relay import (
    append,
    assert_exactly_once,
    consume,
    delete_topics,
    kafka_settings,
    new_relay,
    open_stream,
    running,
    until,
    until_relayed,
)
from xzepr.core.actor import ANONYMOUS, SYSTEM
from xzepr.core.errors import Conflict, InvalidInput, NotFound, Unauthenticated
from xzepr.features.relay import service as routes
from xzepr.features.relay.loop import Relay
from xzepr.features.relay.model import RelayState
from xzepr.features.stream.service import Stream
from xzepr.infra.kafka.cluster import Cluster
from xzepr.infra.kafka.producer import Producer
from xzepr.infra.kafka.topics import NewTopicSpec, Topics

pytestmark = pytest.mark.kafka


async def _until_state(relay: Relay, state: RelayState) -> None:
    await until(lambda: relay.status.state is state)


async def _remove_after(stream: Stream, position: int) -> None:
    async with stream.db.write() as connection:
        await connection.execute("DELETE FROM messages WHERE position > %s", (position,))


async def test_brokers_down_at_start_receive_everything_later(own_broker: Broker, database_url: str) -> None:
    settings = kafka_settings(own_broker.bootstrap)
    async with open_stream(database_url) as stream, running(new_relay(stream, settings)) as relay:
        await append(stream, 100)
        await until(lambda: "connect" in relay.status.detail and relay.status.detail != "connecting")
        assert relay.status.state is RelayState.WAITING_FOR_BROKERS
        await asyncio.to_thread(own_broker.start)
        await append(stream, 100)
        await until_relayed(relay, stream)
    assert_exactly_once(await asyncio.to_thread(consume, own_broker.bootstrap, settings.topic), 200)


async def test_killed_broker_receives_everything_once(own_broker: Broker, database_url: str) -> None:
    class InterruptedProducer(Producer):
        """Kills the broker before the third commit, with every record sent.

        A kill after a commit would not do: a single broker that is killed before it writes the markers of a commit
        treats itself as gone while it starts and never writes them (Kafka 4.3.1), so committed reads stay blocked."""

        async def commit(self) -> None:
            commits.append(len(commits))
            if len(commits) == 3:
                await asyncio.to_thread(own_broker.kill)
                down.set()
                await recorded.wait()
            await super().commit()

    commits: list[int] = []
    down, recorded = asyncio.Event(), asyncio.Event()
    await asyncio.to_thread(own_broker.start)
    settings = kafka_settings(own_broker.bootstrap, timeout_seconds=2, max_transaction_messages=20)
    patience = {"idle_in_transaction_timeout_seconds": 60, "lock_timeout_seconds": 60}
    async with (
        open_stream(database_url, **patience) as stream,
        running(new_relay(stream, settings, InterruptedProducer.open)) as relay,
    ):
        await append(stream, 500)
        await asyncio.wait_for(down.wait(), 30)
        await asyncio.wait_for(append(stream, 500), 20)  # the hub still records while the relay waits for Kafka
        recorded.set()
        await _until_state(relay, RelayState.WAITING_FOR_BROKERS)
        await asyncio.to_thread(own_broker.start)
        await until_relayed(relay, stream, 60)
        await _until_state(relay, RelayState.FOLLOWING)
        assert_exactly_once(await asyncio.to_thread(consume, own_broker.bootstrap, settings.topic), 1000)
        await asyncio.to_thread(own_broker.stop)
        await _until_state(relay, RelayState.WAITING_FOR_BROKERS)  # detected although there is nothing to relay


async def test_lost_topics_stop_the_relay_until_republished(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with open_stream(database_url) as stream:
        await append(stream, 30)
        async with running(new_relay(stream, settings)) as relay:
            await until_relayed(relay, stream)
            with pytest.raises(Conflict, match="not stopped"):
                await routes.resume(stream.db, SYSTEM, settings.topic, republish_from=1)
        await asyncio.to_thread(delete_topics, kafka, settings.topic, settings.state_topic)
        await append(stream, 10)
        async with running(new_relay(stream, settings)) as relay:
            await _until_state(relay, RelayState.STOPPED)
            assert "`xzepr stream resume --at 30`" in relay.status.detail
            assert "`xzepr stream resume --republish-from 1`" in relay.status.detail
            [status] = await routes.statuses(stream.db, SYSTEM)
            assert (status.state, status.published, status.lag) == (RelayState.STOPPED, 30, 10)
            await routes.resume(stream.db, SYSTEM, settings.topic, republish_from=1)
            await until_relayed(relay, stream)
            await _until_state(relay, RelayState.FOLLOWING)
    assert_exactly_once(await asyncio.to_thread(consume, kafka, settings.topic), 40)


async def test_lost_state_topic_stops_the_relay(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with open_stream(database_url) as stream:
        await append(stream, 30)
        async with running(new_relay(stream, settings)) as relay:
            await until_relayed(relay, stream)
        await asyncio.to_thread(delete_topics, kafka, settings.state_topic)
        async with running(new_relay(stream, settings)) as relay:
            await _until_state(relay, RelayState.STOPPED)
            await append(stream, 10)
            await routes.resume(stream.db, SYSTEM, settings.topic, at=30)
            await until_relayed(relay, stream)
    assert_exactly_once(await asyncio.to_thread(consume, kafka, settings.topic), 40)


async def test_restored_database_stops_the_relay_until_resumed(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with open_stream(database_url) as stream:
        lost_messages = await append(stream, 30)
        async with running(new_relay(stream, settings)) as relay:
            await until_relayed(relay, stream)
        await _remove_after(stream, 20)
        async with running(new_relay(stream, settings)) as relay:
            await _until_state(relay, RelayState.STOPPED)
            assert "up to position 30, and the database ends at 20" in relay.status.detail
            assert "--at 20" in relay.status.detail
        new_messages = await append(stream, 15)
        async with running(new_relay(stream, settings)) as relay:
            await _until_state(relay, RelayState.STOPPED)
            assert lost_messages[29].id in relay.status.detail
            assert new_messages[9].id in relay.status.detail
            await routes.resume(stream.db, SYSTEM, settings.topic, at=20)
            await until_relayed(relay, stream)
    received = await asyncio.to_thread(consume, kafka, settings.topic)
    assert sorted(message.position for message in received) == sorted([*range(1, 31), *range(21, 36)])
    assert {message.cloudevent["id"] for message in received} >= {message.id for message in new_messages}


async def test_stop_after_a_restore_names_a_lossless_position(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with open_stream(database_url) as stream:
        await append(stream, 20)
        async with running(new_relay(stream, settings)) as relay:
            await until_relayed(relay, stream)
        async with stream.db.read() as connection:
            cursor = await connection.execute("SELECT published_position, published_id FROM relay_routes")
            stored_position = await cursor.fetchone()
        await append(stream, 10)
        async with running(new_relay(stream, settings)) as relay:
            await until_relayed(relay, stream)
        await _remove_after(stream, 20)
        async with stream.db.write() as connection:
            await connection.execute(
                "UPDATE relay_routes SET published_position = %s, published_id = %s", stored_position
            )
        new_messages = await append(stream, 15)
        async with running(new_relay(stream, settings)) as relay:
            await _until_state(relay, RelayState.STOPPED)
            assert "`xzepr stream resume --at 20`" in relay.status.detail
            await routes.resume(stream.db, SYSTEM, settings.topic, at=20)
            await until_relayed(relay, stream)
    received = await asyncio.to_thread(consume, kafka, settings.topic)
    assert {message.cloudevent["id"] for message in received} >= {message.id for message in new_messages}


async def test_resume_instruction_is_applied_only_once(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with open_stream(database_url) as stream:
        await append(stream, 30)
        async with running(new_relay(stream, settings)) as relay:
            await until_relayed(relay, stream)
        await _remove_after(stream, 20)
        async with running(new_relay(stream, settings)) as relay:
            await _until_state(relay, RelayState.STOPPED)
            await routes.resume(stream.db, SYSTEM, settings.topic, at=10)
            async with stream.db.read() as connection:
                cursor = await connection.execute("SELECT resume_id FROM relay_routes")
                [resume_id] = await cursor.fetchone() or [None]
            await until_relayed(relay, stream)
        async with stream.db.write() as connection:
            await connection.execute("UPDATE relay_routes SET resume_id = %s, resume_after = 10", (resume_id,))
        async with running(new_relay(stream, settings)) as relay:
            await append(stream, 1)
            await until_relayed(relay, stream)
    received = await asyncio.to_thread(consume, kafka, settings.topic)
    assert sorted(message.position for message in received) == sorted([*range(1, 31), *range(11, 21), 21])


async def test_resume_rejects_invalid_positions(database_url: str) -> None:
    async with open_stream(database_url) as stream:
        await append(stream, 5)
        with pytest.raises(Unauthenticated):
            await routes.resume(stream.db, ANONYMOUS, "xzepr.events", at=1)
        for arguments in ({}, {"at": 1, "republish_from": 1}, {"at": 6}, {"republish_from": 0}, {"republish_from": 7}):
            with pytest.raises(InvalidInput):
                await routes.resume(stream.db, SYSTEM, "xzepr.events", **arguments)
        with pytest.raises(NotFound):
            await routes.resume(stream.db, SYSTEM, "xzepr.events", at=5)
        assert await routes.statuses(stream.db, SYSTEM) == []


@pytest.mark.parametrize(
    ("partitions", "policy", "reason"),
    [(1, "delete", "cleanup.policy=delete"), (1, "compact,delete", "cleanup.policy"), (2, "compact", "exactly 1")],
)
async def test_unsafe_state_topic_stops_the_relay(
    kafka: str, database_url: str, partitions: int, policy: str, reason: str
) -> None:
    settings = kafka_settings(kafka)
    cluster = Cluster((kafka,), 10)
    async with Topics(cluster) as topics:
        await topics.create(NewTopicSpec(settings.state_topic, partitions, 1, {"cleanup.policy": policy}))
    async with open_stream(database_url) as stream:
        await append(stream, 5)
        async with running(new_relay(stream, settings)) as relay:
            await _until_state(relay, RelayState.STOPPED)
            assert reason in relay.status.detail
    async with Topics(cluster) as topics:
        assert settings.topic not in await topics.find([settings.topic])
