"""A relay process is killed (kill -9) at every stage of its transaction, while messages are recorded."""

import asyncio
import multiprocessing
import random
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager

import pytest

from tests.support.relay import (
    STAGES,
    append,
    append_refused,
    assert_exactly_once,
    consume,
    kafka_settings,
    opened,
    relay_of,
    relayed,
    run_child,
    running,
    small_topic,
)
from xzepr.core.actor import SYSTEM
from xzepr.core.paging import PageRequest
from xzepr.features.relay import dead_letters
from xzepr.features.stream.service import Stream
from xzepr.settings import KafkaSettings

pytestmark = pytest.mark.kafka

ROUNDS = 4
"""Kills at each stage; as many again at moments that nobody chose."""


@asynccontextmanager
async def recording(stream: Stream, *, refused: bool = False, seconds: float = 0.02) -> AsyncGenerator[None]:
    """Meanwhile, ten messages are recorded every so many seconds, and after them, if asked, one that is refused."""

    async def record() -> None:
        while True:
            await append(stream, 10)
            if refused:
                await append_refused(stream)
            await asyncio.sleep(seconds)

    async with asyncio.TaskGroup() as group:  # who records without success ends the test
        task = group.create_task(record())
        yield
        task.cancel()


async def _dead_positions(stream: Stream, settings: KafkaSettings) -> set[int]:
    found: set[int] = set()
    before: int | None = None
    while True:
        page = await dead_letters.page(stream.db, SYSTEM, settings.topic, PageRequest(100, before))
        found |= {one.position for one in page.items}
        if not page.has_next:
            return found
        before = page.items[-1].position


class Deaths:
    """Relay processes, forked from one that has imported everything already."""

    def __init__(self, database_url: str, settings: KafkaSettings) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.support.relay"])
        self._given = (database_url, settings.model_dump_json())

    async def at(self, stage: str, transaction: int, seconds: float = 30) -> None:
        """One relay lives until it kills itself there."""
        child = self._context.Process(target=run_child, args=(*self._given, stage, transaction), daemon=True)
        child.start()
        await asyncio.to_thread(child.join, seconds)
        assert child.exitcode == -9, f"it was to die at {stage!r}, and ended with {child.exitcode}"

    async def after(self, seconds: float) -> None:
        """One relay lives for so long."""
        await self.when(asyncio.sleep(seconds))

    async def when(self, happened: Awaitable[object]) -> None:
        """One relay lives until this has happened, which may take a minute."""
        child = self._context.Process(target=run_child, args=(*self._given, "never", 0), daemon=True)
        child.start()
        try:
            async with asyncio.timeout(60):
                await happened
        finally:
            child.kill()
            await asyncio.to_thread(child.join, 30)


async def test_kills_leave_one_dead_letter_per_rejection(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka, max_transaction_messages=20)
    await small_topic(settings)
    async with opened(database_url) as stream:
        deaths = Deaths(database_url, settings)
        async with recording(stream, refused=True, seconds=1.0):
            for _ in range(16):
                await deaths.after(random.uniform(0.2, 0.9))
        async with running(relay_of(stream, settings, most_refused=1_000_000)) as relay:
            await relayed(relay, stream, 120)
        head = (await stream.head()).position
        absent = await _dead_positions(stream, settings)
    received = await asyncio.to_thread(consume, kafka, settings.topic)
    assert absent == set(range(11, head + 1, 11))
    assert sorted(one.position for one in received) == sorted(set(range(1, head + 1)) - absent)
    for partition in {one.partition for one in received}:
        own = [one.position for one in received if one.partition == partition]
        assert own == sorted(own)


async def test_kills_at_every_stage_deliver_exactly_once(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka, max_transaction_messages=20)
    kills = 0
    async with opened(database_url) as stream:
        deaths = Deaths(database_url, settings)
        async with recording(stream):
            for _ in range(ROUNDS):
                for stage in STAGES:
                    await deaths.at(stage, random.randint(1, 3))
                    kills += 1
                await deaths.after(random.uniform(0.2, 1.0))
                kills += 1
        async with running(relay_of(stream, settings)) as relay:
            await relayed(relay, stream, 60)
        head = (await stream.head()).position
    assert kills >= 30
    committed = await asyncio.to_thread(consume, kafka, settings.topic)
    assert_exactly_once(committed, head)
    written = await asyncio.to_thread(consume, kafka, settings.topic, "read_uncommitted")
    assert len(written) > len(committed), "nothing was written twice: the kills missed"
