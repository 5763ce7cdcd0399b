"""A relay process is killed with SIGKILL at every stage of its transaction while messages are recorded."""

import asyncio
import multiprocessing
import random
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager

import pytest

from tests.support.relay import (
    STAGES,
    append,
    append_oversized,
    assert_exactly_once,
    consume,
    create_small_topic,
    kafka_settings,
    new_relay,
    open_stream,
    run_dying_relay,
    running,
    until_relayed,
)
from xzepr.core.actor import SYSTEM
from xzepr.core.paging import PageRequest
from xzepr.features.relay import dead_letters
from xzepr.features.stream.service import Stream
from xzepr.settings import KafkaSettings

pytestmark = pytest.mark.kafka

# Kills at each stage, and kills at random moments.
ROUNDS = 4


@asynccontextmanager
async def appending(stream: Stream, *, oversized: bool = False, seconds: float = 0.02) -> AsyncGenerator[None]:
    """Appends ten messages every `seconds` during the block, followed by an oversized one if requested."""

    async def record() -> None:
        while True:
            await append(stream, 10)
            if oversized:
                await append_oversized(stream)
            await asyncio.sleep(seconds)

    async with asyncio.TaskGroup() as group:  # a failed append ends the test
        task = group.create_task(record())
        yield
        task.cancel()


async def _dead_letter_positions(stream: Stream, settings: KafkaSettings) -> set[int]:
    positions: set[int] = set()
    before: int | None = None
    while True:
        page = await dead_letters.page(stream.db, SYSTEM, settings.topic, PageRequest(100, before))
        positions |= {letter.position for letter in page.items}
        if not page.has_next:
            return positions
        before = page.items[-1].position


class RelayKiller:
    """Starts relay processes and kills them; they are forked from a process that has already imported everything."""

    def __init__(self, database_url: str, settings: KafkaSettings) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.support.relay"])
        self._arguments = (database_url, settings.model_dump_json())

    async def kill_at_stage(self, stage: str, transaction: int, seconds: float = 30) -> None:
        """Runs one relay until it kills itself at this stage of this transaction."""
        child = self._context.Process(target=run_dying_relay, args=(*self._arguments, stage, transaction), daemon=True)
        child.start()
        await asyncio.to_thread(child.join, seconds)
        assert child.exitcode == -9, f"the relay should die at {stage!r} but exited with {child.exitcode}"

    async def kill_after(self, seconds: float) -> None:
        """Runs one relay for `seconds`, then kills it."""
        await self.kill_when(asyncio.sleep(seconds))

    async def kill_when(self, condition: Awaitable[object]) -> None:
        """Runs one relay until `condition` completes, for a minute at most, then kills it."""
        child = self._context.Process(target=run_dying_relay, args=(*self._arguments, "never", 0), daemon=True)
        child.start()
        try:
            async with asyncio.timeout(60):
                await condition
        finally:
            child.kill()
            await asyncio.to_thread(child.join, 30)


async def test_kills_leave_one_dead_letter_per_rejection(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka, max_transaction_messages=20)
    await create_small_topic(settings)
    async with open_stream(database_url) as stream:
        killer = RelayKiller(database_url, settings)
        async with appending(stream, oversized=True, seconds=1.0):
            for _ in range(16):
                await killer.kill_after(random.uniform(0.2, 0.9))
        async with running(new_relay(stream, settings, max_rejected=1_000_000)) as relay:
            await until_relayed(relay, stream, 120)
        head = (await stream.head()).position
        dead_letters_found = await _dead_letter_positions(stream, settings)
    received = await asyncio.to_thread(consume, kafka, settings.topic)
    assert dead_letters_found == set(range(11, head + 1, 11))
    assert sorted(message.position for message in received) == sorted(set(range(1, head + 1)) - dead_letters_found)
    for partition in {message.partition for message in received}:
        positions = [message.position for message in received if message.partition == partition]
        assert positions == sorted(positions)


async def test_kills_at_every_stage_deliver_exactly_once(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka, max_transaction_messages=20)
    kills = 0
    async with open_stream(database_url) as stream:
        killer = RelayKiller(database_url, settings)
        async with appending(stream):
            for _ in range(ROUNDS):
                for stage in STAGES:
                    await killer.kill_at_stage(stage, random.randint(1, 3))
                    kills += 1
                await killer.kill_after(random.uniform(0.2, 1.0))
                kills += 1
        async with running(new_relay(stream, settings)) as relay:
            await until_relayed(relay, stream, 60)
        head = (await stream.head()).position
    assert kills >= 30
    committed = await asyncio.to_thread(consume, kafka, settings.topic)
    assert_exactly_once(committed, head)
    written = await asyncio.to_thread(consume, kafka, settings.topic, "read_uncommitted")
    assert len(written) > len(committed), "no message was written twice: the kills missed every transaction"
