"""Messages that the broker rejects become dead letters, which can be retried or dropped and block no other message."""

import asyncio
from collections.abc import Sequence

import pytest

from tests.support.relay import (
    Received,
    append,
    append_oversized,
    configure_topic,
    consume,
    create_small_topic,
    kafka_settings,
    new_relay,
    open_stream,
    running,
    until,
    until_relayed,
)
from xzepr.core.actor import ANONYMOUS, SYSTEM
from xzepr.core.errors import InvalidInput, NotFound, Unauthenticated
from xzepr.core.paging import PageRequest
from xzepr.features.relay import dead_letters
from xzepr.features.relay import service as routes
from xzepr.features.relay.dead_letters import DeadLetter, DeadLetterState
from xzepr.features.relay.model import RelayState
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.service import Stream
from xzepr.infra.kafka.cluster import BrokerError, Cluster
from xzepr.infra.kafka.producer import Producer
from xzepr.infra.kafka.topics import NewTopicSpec, Topics
from xzepr.settings import KafkaSettings

pytestmark = pytest.mark.kafka


async def _list_dead_letters(stream: Stream, settings: KafkaSettings, *, dropped: bool = False) -> Sequence[DeadLetter]:
    return (await dead_letters.page(stream.db, SYSTEM, settings.topic, PageRequest(100), dropped=dropped)).items


async def _wait_for_attempts(stream: Stream, settings: KafkaSettings, attempts: int) -> None:
    """Waits until the only dead letter has this number of attempts."""
    async with asyncio.timeout(20):
        while [letter.attempts for letter in await _list_dead_letters(stream, settings)] != [attempts]:
            await asyncio.sleep(0.05)


async def _wait_until_none_left(stream: Stream, settings: KafkaSettings) -> None:
    """Waits until there are no dead letters."""
    async with asyncio.timeout(20):
        while await _list_dead_letters(stream, settings):
            await asyncio.sleep(0.05)


async def _received(kafka: str, settings: KafkaSettings) -> list[Received]:
    return await asyncio.to_thread(consume, kafka, settings.topic)


async def _raise_size_limit(kafka: str, settings: KafkaSettings) -> None:
    await asyncio.to_thread(configure_topic, kafka, settings.topic, "max.message.bytes", "1000000")


async def test_rejected_messages_are_skipped(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    await create_small_topic(settings)
    async with open_stream(database_url) as stream:
        rejected = [await append_oversized(stream)]
        for _ in range(3):
            await append(stream, 300)
            rejected.append(await append_oversized(stream))
        rejected.append(await append_oversized(stream))
        async with running(new_relay(stream, settings)) as relay:
            await until_relayed(relay, stream)
            assert relay.status.state is RelayState.FOLLOWING
            [status] = await routes.statuses(stream.db, SYSTEM)
            assert status.dead_letters == 5
            await append(stream, 10)
            await until_relayed(relay, stream)
        letters = await _list_dead_letters(stream, settings)
        head = (await stream.head()).position
    assert [letter.message_id for letter in letters] == [letter.id for letter in reversed(rejected)]
    assert {(letter.state, letter.attempts, letter.by) for letter in letters} == {(DeadLetterState.WAITING, 1, None)}
    assert "larger than the topic allows" in letters[0].reason
    received = await _received(kafka, settings)
    skipped = {message.position for message in rejected}
    assert sorted(message.position for message in received) == [
        position for position in range(1, head + 1) if position not in skipped
    ]
    for partition in {message.partition for message in received}:
        positions = [message.position for message in received if message.partition == partition]
        assert positions == sorted(positions)


async def test_lowered_size_limit_creates_no_dead_letter(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with open_stream(database_url) as stream, running(new_relay(stream, settings)) as relay:
        await append(stream, 10)
        await until_relayed(relay, stream)
        await asyncio.to_thread(configure_topic, kafka, settings.topic, "max.message.bytes", "5000")
        async with stream.write(SYSTEM) as tx:
            tx.append(Kind.RECEIVER_UPDATED, receiver_id="r", data=b'{"name":"%s"}' % (b"x" * 20_000))
        await until_relayed(relay, stream)
        assert await _list_dead_letters(stream, settings) == []
    [last] = [message for message in await _received(kafka, settings) if message.position == 11]
    assert last.cloudevent["dataref"] == "/xzepr/receivers/r"


async def test_retry_with_unknown_outcome_delivers_once(kafka: str, database_url: str) -> None:
    class LossyProducer(Producer):
        """Commits, but loses the broker's response while `lost_responses` is not empty."""

        async def commit(self) -> None:
            await super().commit()
            if lost_responses:
                lost_responses.clear()
                raise BrokerError("commit: no answer")

    lost_responses: list[str] = []
    settings = kafka_settings(kafka)
    await create_small_topic(settings)
    async with open_stream(database_url) as stream:
        await append(stream, 5)
        rejected = await append_oversized(stream)
        await append(stream, 5)
        async with running(new_relay(stream, settings, LossyProducer.open)) as relay:
            await until_relayed(relay, stream)
            await dead_letters.retry(stream.db, SYSTEM, settings.topic, [rejected.position])
            await _wait_for_attempts(stream, settings, 2)
            [retried] = await _list_dead_letters(stream, settings)
            assert (retried.state, retried.by) == (DeadLetterState.WAITING, None)
            await _raise_size_limit(kafka, settings)
            lost_responses.append("commit")
            assert await dead_letters.retry(stream.db, SYSTEM, settings.topic, None) == 1
            await _wait_until_none_left(stream, settings)
            assert lost_responses == []
            await append(stream, 5)
            await until_relayed(relay, stream)
    received = await _received(kafka, settings)
    assert sorted(message.position for message in received) == list(range(1, 17))
    [delivered] = [message for message in received if message.position == rejected.position]
    assert len(delivered.value) > 5000
    assert delivered.cloudevent["data"]["cursor"] == str(rejected.cursor)


async def test_failing_retries_do_not_delay_new_messages(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    await create_small_topic(settings)
    async with open_stream(database_url) as stream, running(new_relay(stream, settings)) as relay:
        for _ in range(12):
            await append_oversized(stream)
        await until_relayed(relay, stream, 60)
        assert await dead_letters.retry(stream.db, SYSTEM, settings.topic, None) == 12
        await _wait_for_second_attempts(stream, settings, 1)
        for _ in range(5):
            await append(stream, 10)
            await until_relayed(relay, stream, 20)
        in_second_attempt = [letter.attempts for letter in await _list_dead_letters(stream, settings)].count(2)
        assert in_second_attempt < 12, "some retries are still pending"
        await _raise_size_limit(kafka, settings)
        async with asyncio.timeout(60):
            while DeadLetterState.RETRYING in {letter.state for letter in await _list_dead_letters(stream, settings)}:
                await asyncio.sleep(0.05)
        remaining = {letter.position for letter in await _list_dead_letters(stream, settings)}
    assert len(remaining) < 12, "retries succeed once the brokers accept the messages"
    received = await _received(kafka, settings)
    assert sorted(message.position for message in received) == [
        position for position in range(1, 63) if position not in remaining
    ]


async def _wait_for_second_attempts(stream: Stream, settings: KafkaSettings, count: int) -> None:
    """Waits until at least `count` messages have been rejected a second time."""
    async with asyncio.timeout(20):
        while [letter.attempts for letter in await _list_dead_letters(stream, settings)].count(2) < count:
            await asyncio.sleep(0.02)


async def test_dropped_dead_letter_stays_out_until_retried(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    await create_small_topic(settings)
    async with open_stream(database_url) as stream:
        rejected = await append_oversized(stream)
        async with running(new_relay(stream, settings)) as relay:
            await until_relayed(relay, stream)
            assert await dead_letters.drop(stream.db, SYSTEM, settings.topic, [rejected.position]) == 1
            assert await _list_dead_letters(stream, settings) == []
            [dropped] = await _list_dead_letters(stream, settings, dropped=True)
            assert (dropped.state, dropped.by) == (DeadLetterState.DROPPED, SYSTEM.name)
            await _raise_size_limit(kafka, settings)
        await append(stream, 5)
        async with running(new_relay(stream, settings)) as relay:
            await until_relayed(relay, stream)
            assert [message.position for message in await _received(kafka, settings)].count(rejected.position) == 0
            assert await dead_letters.retry(stream.db, SYSTEM, settings.topic, None) == 0
            assert await dead_letters.retry(stream.db, SYSTEM, settings.topic, [rejected.position]) == 1
            async with asyncio.timeout(20):
                while await _list_dead_letters(stream, settings):
                    await asyncio.sleep(0.05)
    assert sorted(message.position for message in await _received(kafka, settings)) == [1, 2, 3, 4, 5, 6]


async def test_topic_that_rejects_everything_stops_the_relay(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    await create_small_topic(settings, max_message_bytes="100")
    async with open_stream(database_url) as stream:
        await append(stream, 20)
        async with running(new_relay(stream, settings, max_rejected=3)) as relay:
            await until(lambda: relay.status.state is RelayState.STOPPED)
            assert "rejected 3 messages in a row" in relay.status.detail
            assert [letter.position for letter in await _list_dead_letters(stream, settings)] == [3, 2, 1]
            await _raise_size_limit(kafka, settings)
            await until_relayed(relay, stream)
            assert await dead_letters.retry(stream.db, SYSTEM, settings.topic, None) == 3
            await _wait_until_none_left(stream, settings)
    assert sorted(message.position for message in await _received(kafka, settings)) == list(range(1, 21))


async def test_rejected_position_creates_no_dead_letter(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with Topics(Cluster((kafka,), 10)) as topics:
        config = {"cleanup.policy": "compact", "max.message.bytes": "100"}
        await topics.create(NewTopicSpec(settings.state_topic, 1, 1, config))
    async with open_stream(database_url) as stream:
        await append(stream, 20)
        async with running(new_relay(stream, settings)) as relay:
            await until(lambda: relay.status.state is RelayState.STOPPED)
            assert settings.state_topic in relay.status.detail
            assert await _list_dead_letters(stream, settings) == []
    # The broker aborts the open transaction after 20 s, and looks for such transactions every 10 s.
    assert await asyncio.to_thread(consume, kafka, settings.topic, seconds=60) == []


async def test_invalid_decision_changes_no_dead_letter(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    await create_small_topic(settings)
    async with open_stream(database_url) as stream:
        await append_oversized(stream)
        await append_oversized(stream)
        async with running(new_relay(stream, settings)) as relay:
            await until_relayed(relay, stream)
        before = await _list_dead_letters(stream, settings)
        for decide in (dead_letters.retry, dead_letters.drop):
            with pytest.raises(Unauthenticated):
                await decide(stream.db, ANONYMOUS, settings.topic, None)
            with pytest.raises(InvalidInput):
                await decide(stream.db, SYSTEM, settings.topic, [])
            with pytest.raises(NotFound, match="dead letter '3'"):
                await decide(stream.db, SYSTEM, settings.topic, [1, 2, 3])
            with pytest.raises(NotFound, match="route"):
                await decide(stream.db, SYSTEM, "elsewhere", None)
        with pytest.raises(Unauthenticated):
            await dead_letters.page(stream.db, ANONYMOUS, settings.topic, PageRequest(1))
        assert await _list_dead_letters(stream, settings) == before
        page = await dead_letters.page(stream.db, SYSTEM, settings.topic, PageRequest(1))
        assert ([letter.position for letter in page.items], page.has_next) == ([2], True)
        page = await dead_letters.page(stream.db, SYSTEM, settings.topic, PageRequest(1, 2))
        assert ([letter.position for letter in page.items], page.has_next) == ([1], False)
