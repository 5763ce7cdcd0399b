"""Messages that the broker refuses for what they are: left out, visible, sent again or dropped, and in nobody's way."""

import asyncio
from collections.abc import Sequence

import pytest

from tests.support.relay import (
    Received,
    append,
    append_refused,
    configure_topic,
    consume,
    kafka_settings,
    opened,
    relay_of,
    relayed,
    running,
    small_topic,
    until,
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


async def _dead(stream: Stream, settings: KafkaSettings, *, dropped: bool = False) -> Sequence[DeadLetter]:
    return (await dead_letters.page(stream.db, SYSTEM, settings.topic, PageRequest(100), dropped=dropped)).items


async def _state(stream: Stream, settings: KafkaSettings, attempts: int) -> None:
    """Returns when the only dead letter has been refused so often."""
    async with asyncio.timeout(20):
        while [one.attempts for one in await _dead(stream, settings)] != [attempts]:
            await asyncio.sleep(0.05)


async def _gone(stream: Stream, settings: KafkaSettings) -> None:
    """Returns when there are no dead letters."""
    async with asyncio.timeout(20):
        while await _dead(stream, settings):
            await asyncio.sleep(0.05)


async def _received(kafka: str, settings: KafkaSettings) -> list[Received]:
    return await asyncio.to_thread(consume, kafka, settings.topic)


async def _mend(kafka: str, settings: KafkaSettings) -> None:
    await asyncio.to_thread(configure_topic, kafka, settings.topic, "max.message.bytes", "1000000")


async def test_rejected_messages_are_skipped(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    await small_topic(settings)
    async with opened(database_url) as stream:
        refused = [await append_refused(stream)]
        for _ in range(3):
            await append(stream, 300)
            refused.append(await append_refused(stream))
        refused.append(await append_refused(stream))
        async with running(relay_of(stream, settings)) as relay:
            await relayed(relay, stream)
            assert relay.status.state is RelayState.FOLLOWING
            [status] = await routes.statuses(stream.db, SYSTEM)
            assert status.dead_letters == 5
            await append(stream, 10)
            await relayed(relay, stream)
        found = await _dead(stream, settings)
        head = (await stream.head()).position
    assert [one.message_id for one in found] == [one.id for one in reversed(refused)]
    assert {(one.state, one.attempts, one.by) for one in found} == {(DeadLetterState.WAITING, 1, None)}
    assert "larger than the topic takes" in found[0].reason
    received = await _received(kafka, settings)
    absent = {one.position for one in refused}
    assert sorted(one.position for one in received) == [one for one in range(1, head + 1) if one not in absent]
    for partition in {one.partition for one in received}:
        own = [one.position for one in received if one.partition == partition]
        assert own == sorted(own)


async def test_lowered_size_limit_creates_no_dead_letter(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with opened(database_url) as stream, running(relay_of(stream, settings)) as relay:
        await append(stream, 10)
        await relayed(relay, stream)
        await asyncio.to_thread(configure_topic, kafka, settings.topic, "max.message.bytes", "5000")
        async with stream.write(SYSTEM) as tx:
            tx.append(Kind.RECEIVER_UPDATED, receiver_id="r", data=b'{"name":"%s"}' % (b"x" * 20_000))
        await relayed(relay, stream)
        assert await _dead(stream, settings) == []
    [last] = [one for one in await _received(kafka, settings) if one.position == 11]
    assert last.cloudevent["dataref"] == "/xzepr/receivers/r"


async def test_retry_with_unknown_outcome_delivers_once(kafka: str, database_url: str) -> None:
    class Unlucky(Producer):
        """Its commits work, and the answers to them are lost while `lost` is set."""

        async def commit(self) -> None:
            await super().commit()
            if lost:
                lost.clear()
                raise BrokerError("commit: no answer")

    lost: list[str] = []
    settings = kafka_settings(kafka)
    await small_topic(settings)
    async with opened(database_url) as stream:
        await append(stream, 5)
        refused = await append_refused(stream)
        await append(stream, 5)
        async with running(relay_of(stream, settings, Unlucky.open)) as relay:
            await relayed(relay, stream)
            await dead_letters.retry(stream.db, SYSTEM, settings.topic, [refused.position])
            await _state(stream, settings, 2)
            [again] = await _dead(stream, settings)
            assert (again.state, again.by) == (DeadLetterState.WAITING, None)
            await _mend(kafka, settings)
            lost.append("answer")
            assert await dead_letters.retry(stream.db, SYSTEM, settings.topic, None) == 1
            await _gone(stream, settings)
            assert lost == []
            await append(stream, 5)
            await relayed(relay, stream)
    received = await _received(kafka, settings)
    assert sorted(one.position for one in received) == list(range(1, 17))
    [late] = [one for one in received if one.position == refused.position]
    assert len(late.value) > 5000
    assert late.cloudevent["data"]["cursor"] == str(refused.cursor)


async def test_failing_retries_do_not_delay_new_messages(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    await small_topic(settings)
    async with opened(database_url) as stream, running(relay_of(stream, settings)) as relay:
        for _ in range(12):
            await append_refused(stream)
        await relayed(relay, stream, 60)
        assert await dead_letters.retry(stream.db, SYSTEM, settings.topic, None) == 12
        await _tried_again(stream, settings, 1)
        for _ in range(5):
            await append(stream, 10)
            await relayed(relay, stream, 20)
        again = [one.attempts for one in await _dead(stream, settings)].count(2)
        assert again < 12, "they were still being sent again"
        await _mend(kafka, settings)
        async with asyncio.timeout(60):
            while DeadLetterState.RETRYING in {one.state for one in await _dead(stream, settings)}:
                await asyncio.sleep(0.05)
        left = {one.position for one in await _dead(stream, settings)}
    assert len(left) < 12, "and those that were not tried before are there, as soon as there was nothing to refuse"
    received = await _received(kafka, settings)
    assert sorted(one.position for one in received) == [one for one in range(1, 63) if one not in left]


async def _tried_again(stream: Stream, settings: KafkaSettings, count: int) -> None:
    """Returns when so many were refused a second time."""
    async with asyncio.timeout(20):
        while [one.attempts for one in await _dead(stream, settings)].count(2) < count:
            await asyncio.sleep(0.02)


async def test_dropped_dead_letter_stays_out_until_retried(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    await small_topic(settings)
    async with opened(database_url) as stream:
        refused = await append_refused(stream)
        async with running(relay_of(stream, settings)) as relay:
            await relayed(relay, stream)
            assert await dead_letters.drop(stream.db, SYSTEM, settings.topic, [refused.position]) == 1
            assert await _dead(stream, settings) == []
            [dropped] = await _dead(stream, settings, dropped=True)
            assert (dropped.state, dropped.by) == (DeadLetterState.DROPPED, SYSTEM.name)
            await _mend(kafka, settings)
        await append(stream, 5)
        async with running(relay_of(stream, settings)) as relay:
            await relayed(relay, stream)
            assert [one.position for one in await _received(kafka, settings)].count(refused.position) == 0
            assert await dead_letters.retry(stream.db, SYSTEM, settings.topic, None) == 0
            assert await dead_letters.retry(stream.db, SYSTEM, settings.topic, [refused.position]) == 1
            async with asyncio.timeout(20):
                while await _dead(stream, settings):
                    await asyncio.sleep(0.05)
    assert sorted(one.position for one in await _received(kafka, settings)) == [1, 2, 3, 4, 5, 6]


async def test_topic_that_rejects_everything_stops_the_relay(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    await small_topic(settings, max_message_bytes="100")
    async with opened(database_url) as stream:
        await append(stream, 20)
        async with running(relay_of(stream, settings, most_refused=3)) as relay:
            await until(lambda: relay.status.state is RelayState.STOPPED)
            assert "refused 3 messages in a row" in relay.status.detail
            assert [one.position for one in await _dead(stream, settings)] == [3, 2, 1]
            await _mend(kafka, settings)
            await relayed(relay, stream)
            assert await dead_letters.retry(stream.db, SYSTEM, settings.topic, None) == 3
            await _gone(stream, settings)
    assert sorted(one.position for one in await _received(kafka, settings)) == list(range(1, 21))


async def test_rejected_position_creates_no_dead_letter(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with Topics(Cluster((kafka,), 10)) as topics:
        config = {"cleanup.policy": "compact", "max.message.bytes": "100"}
        await topics.create(NewTopicSpec(settings.state_topic, 1, 1, config))
    async with opened(database_url) as stream:
        await append(stream, 20)
        async with running(relay_of(stream, settings)) as relay:
            await until(lambda: relay.status.state is RelayState.STOPPED)
            assert settings.state_topic in relay.status.detail
            assert await _dead(stream, settings) == []
    assert await _received(kafka, settings) == []


async def test_invalid_decision_changes_no_dead_letter(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    await small_topic(settings)
    async with opened(database_url) as stream:
        await append_refused(stream)
        await append_refused(stream)
        async with running(relay_of(stream, settings)) as relay:
            await relayed(relay, stream)
        before = await _dead(stream, settings)
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
        assert await _dead(stream, settings) == before
        page = await dead_letters.page(stream.db, SYSTEM, settings.topic, PageRequest(1))
        assert ([one.position for one in page.items], page.has_next) == ([2], True)
        page = await dead_letters.page(stream.db, SYSTEM, settings.topic, PageRequest(1, 2))
        assert ([one.position for one in page.items], page.has_next) == ([1], False)
