"""The relay with retention: where a new route begins, and how a stopped route resumes after messages were removed."""

import asyncio
from datetime import timedelta

import pytest

from tests.support.relay import (
    append,
    consume,
    delete_topics,
    kafka_settings,
    new_relay,
    open_stream,
    running,
    until,
    until_relayed,
)
from xzepr.core.actor import SYSTEM
from xzepr.core.errors import InvalidInput
from xzepr.features.relay import service as routes
from xzepr.features.relay.loop import Relay
from xzepr.features.relay.model import RelayState
from xzepr.features.stream.retention import Retention
from xzepr.features.stream.service import Stream

pytestmark = pytest.mark.kafka


async def _remove_up_to(stream: Stream, last: int, route: str | None = None) -> None:
    """Makes the messages up to `last` old and lets retention remove them, unless something holds them."""
    async with stream.db.write() as connection:
        await connection.execute("UPDATE messages SET time = time - interval '2 hours' WHERE position <= %s", (last,))
    await Retention(stream.db, timedelta(hours=1), route).enforce()


async def _until_stopped(relay: Relay) -> str:
    await until(lambda: relay.status.state is RelayState.STOPPED)
    return relay.status.detail


async def _positions(bootstrap: str, topic: str) -> list[int]:
    return sorted(message.position for message in await asyncio.to_thread(consume, bootstrap, topic))


async def test_new_route_begins_with_the_oldest_message(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with open_stream(database_url) as stream:
        await append(stream, 30)
        await _remove_up_to(stream, 20)
        await append(stream, 10)
        async with running(new_relay(stream, settings)) as relay:
            await until_relayed(relay, stream)
        async with running(new_relay(stream, settings)) as relay:  # the state topic holds the starting position
            await append(stream, 1)
            await until_relayed(relay, stream)
    assert await _positions(kafka, settings.topic) == list(range(21, 42))


async def test_new_route_starts_when_all_messages_are_removed(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with open_stream(database_url) as stream:
        await append(stream, 30)
        await _remove_up_to(stream, 30)
        for _ in range(2):
            async with running(new_relay(stream, settings)) as relay:
                await until(lambda: relay.status.state is RelayState.FOLLOWING)
        async with running(new_relay(stream, settings)) as relay:
            await append(stream, 2)
            await until_relayed(relay, stream)
    assert await _positions(kafka, settings.topic) == [31, 32]


async def _until_saved(stream: Stream, position: int) -> None:
    """Waits until the database holds this published position."""
    async with asyncio.timeout(10):
        while (await routes.statuses(stream.db, SYSTEM))[0].published != position:
            await asyncio.sleep(0.02)


async def test_lost_topics_are_refilled_from_the_oldest_message(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with open_stream(database_url) as stream:
        await append(stream, 30)
        async with running(new_relay(stream, settings)) as relay:
            await until_relayed(relay, stream)
            await append(stream, 10)
            await until_relayed(relay, stream)
            await _until_saved(stream, 40)
        await _remove_up_to(stream, 25, settings.topic)
        await asyncio.to_thread(delete_topics, kafka, settings.topic, settings.state_topic)
        async with running(new_relay(stream, settings)) as relay:
            detail = await _until_stopped(relay)
            assert "`xzepr stream resume --republish-from 26`" in detail
            assert "`xzepr stream resume --at 40`" in detail
            with pytest.raises(InvalidInput, match="positions 26 to 40"):
                await routes.resume(stream.db, SYSTEM, settings.topic, republish_from=1)
            await routes.resume(stream.db, SYSTEM, settings.topic, republish_from=26)
            await until_relayed(relay, stream)
    assert await _positions(kafka, settings.topic) == list(range(26, 41))


@pytest.mark.parametrize("choice", [{"at": 35}, {"republish_from": 36}], ids=["at", "republish from"])
async def test_returning_route_stops_at_a_removed_position(
    kafka: str, database_url: str, choice: dict[str, int]
) -> None:
    settings = kafka_settings(kafka)
    async with open_stream(database_url) as stream:
        await append(stream, 30)
        async with running(new_relay(stream, settings)) as relay:
            await until_relayed(relay, stream)
        await append(stream, 10)
        async with stream.db.write() as connection:
            await connection.execute("UPDATE relay_routes SET updated_at = updated_at - interval '2 hours'")
        await _remove_up_to(stream, 35)
        async with running(new_relay(stream, settings)) as relay:
            detail = await _until_stopped(relay)
            assert "has to continue with position 31, and the database no longer has it" in detail
            assert "`xzepr stream resume --at 35`" in detail
            assert "`xzepr stream resume --republish-from 36`" in detail
            await routes.resume(stream.db, SYSTEM, settings.topic, **choice)
            await until_relayed(relay, stream)
    assert await _positions(kafka, settings.topic) == [*range(1, 31), *range(36, 41)]
