"""Subscribers that do not read for a while, on a hub that is served: they cost little, miss nothing, delay nobody."""

import asyncio
import re
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import orjson
import psycopg
import pytest

from tests.bench.load import Target, press
from tests.support.clients import Client, Frames
from tests.support.many_subscribers import crowd
from tests.support.requests import new_event
from tests.support.server import ServedHub
from xzepr.infra.crypto import create_key_pair

SMALL_RING = 100
SETTINGS = {
    "XZEPR__STREAM__MAX_SUBSCRIPTIONS_PER_ACTOR": "2000",
    "XZEPR__STREAM__MAX_CONNECTIONS_PER_ACTOR": "2000",
    "XZEPR__JWT__ACCESS_TOKEN_EXPIRATION": "3600",
}
MANY = """
mutation ($input: CreateEventsInput!) { createEvents(input: $input) { results { recorded { cursor } } } }
"""
ONE = "mutation ($input: CreateEventInput!) { createEvent(input: $input) { cursor } }"


@dataclass(frozen=True, slots=True)
class Stage:
    """A hub on a database of its own, and somebody who reports to it."""

    hub: ServedHub
    database_url: str
    client: Client
    receiver: str

    @classmethod
    @asynccontextmanager
    async def set(cls, database_url: str, folder: Path, **settings: object) -> AsyncGenerator["Stage"]:
        """One with these settings of the stream."""
        private, public = folder / "private.pem", folder / "public.pem"
        create_key_pair(private, public)
        keys = {"XZEPR__JWT__PRIVATE_KEY_PATH": str(private), "XZEPR__JWT__PUBLIC_KEY_PATH": str(public)}
        environ = SETTINGS | keys | {f"XZEPR__STREAM__{name.upper()}": str(value) for name, value in settings.items()}
        hub = ServedHub.start(folder / "data", "--database-url", database_url, environ=environ)
        try:
            client = await Client(hub.url).logged_in("admin", hub.admin_password)
            yield cls(hub, database_url, client, await client.receiver("build"))
        finally:
            hub.stop()

    async def report(self, count: int) -> str:
        """Records so many events; the last one's cursor."""
        cursor = ""
        for first in range(0, count, 500):
            events = [new_event(self.receiver, version=str(n)) for n in range(first, min(first + 500, count))]
            results = (await self.client(MANY, input={"events": events})).data["createEvents"]["results"]
            cursor = results[-1]["recorded"]["cursor"]
        return cursor

    async def first(self) -> str:
        """The cursor of the first message."""
        return (await self.client("{ stream(first: 1) { cursor } }")).data["stream"]["cursor"]

    async def creates(self, seconds: float) -> float:
        """The median milliseconds of creates, one after the other, on one connection for so long."""
        headers = {"Content-Type": "application/json", **self.client.headers}
        body = orjson.dumps({"query": ONE, "variables": {"input": new_event(self.receiver)}})
        measured = await asyncio.to_thread(press, Target(self.hub.port, "/graphql", body, headers), 1, seconds)
        assert not measured.failures
        return measured.percentile(50)

    def memory(self) -> float:
        """MiB that the hub's process holds."""
        status = Path(f"/proc/{self.hub.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found[1]) / 1024

    def connections(self, purpose: str) -> int:
        """How many connections the hub has for a purpose."""
        with psycopg.connect(self.database_url) as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s",
                (f"xzepr hub {purpose}",),
            ).fetchone()
        assert row
        return int(row[0])


async def positions(frames: Frames, count: int) -> list[int]:
    """Of the next messages."""
    return [int(frame["cursor"].partition("-")[0]) for frame in await frames.messages(count)]


@pytest.mark.parametrize("transport", ["socket", "events"])
async def test_paused_reader_receives_everything_in_order(database_url: str, tmp_path: Path, transport: str):
    async with AsyncExitStack() as open:
        stage = await open.enter_async_context(Stage.set(database_url, tmp_path, ring_size=SMALL_RING))
        follow = stage.client.socket if transport == "socket" else stage.client.events
        frozen, quick = [await open.enter_async_context(follow()) for _ in range(2)]
        for frames in (frozen, quick):
            assert (await frames.next())["__typename"] == "Checkpoint"
        reading = asyncio.create_task(positions(quick, 2_000))
        await stage.report(2_000)
        assert await reading == list(range(2, 2_002)), "who reads is not held up"
        assert await positions(frozen, 2_000) == list(range(2, 2_002))


async def test_catch_up_uses_separate_connections(database_url: str, tmp_path: Path):
    async with Stage.set(database_url, tmp_path, ring_size=SMALL_RING) as stage:
        await stage.report(2_000)
        before, most = stage.connections("pool"), 0
        with crowd(stage.hub.port, stage.client.token, await stage.first(), 20, reading=True) as many:
            while many.received() < 20 * 2_000 * 200:
                most = max(most, stage.connections("bulk"))
                await asyncio.sleep(0.005)
            assert many.connected() == 20
        assert 1 <= most <= 4
        assert stage.connections("pool") <= before + 1, "those are not the ones that requests use"


@pytest.mark.slow
async def test_minute_without_reading_costs_little_memory(database_url: str, tmp_path: Path):
    count = 100_000
    async with AsyncExitStack() as open:
        stage = await open.enter_async_context(Stage.set(database_url, tmp_path))
        await stage.report(20_000)  # the ring is full: it holds 10,000
        frozen, quick = [await open.enter_async_context(follow()) for follow in (stage.client.socket,) * 2]
        beginning = [int((await frames.next())["cursor"].partition("-")[0]) for frames in (frozen, quick)]
        assert beginning == [20_001] * 2
        expected = list(range(20_002, 20_002 + count))
        memory, began = stage.memory(), time.monotonic()
        reading = asyncio.create_task(positions(quick, count))
        await stage.report(count)
        assert await reading == expected
        await asyncio.sleep(max(0.0, 60 - (time.monotonic() - began)))
        grown = stage.memory() - memory
        caught_up = await positions(frozen, count)
        grown_after = stage.memory() - memory
    assert caught_up == expected
    # Who does not read costs 64 KiB. The rest is kept for whoever reads: 16 MiB of messages from behind the ring and
    # 16 MiB of answers, counted by their content; and garbage that is collected when 50,000 objects have come together.
    # It was 113 MiB after the first catching up of 100,000, and after the fifth.
    assert max(grown, grown_after) < 160, f"{grown:.0f} and {grown_after:.0f} MiB"


@pytest.mark.slow
async def test_creates_stay_fast_beside_slow_subscribers(database_url: str, tmp_path: Path):
    async with Stage.set(database_url, tmp_path) as stage:
        await stage.report(30_000)
        first, port, token = await stage.first(), stage.hub.port, stage.client.token
        quiet: list[float] = []
        beside: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(3):
            for reading in (False, True):
                quiet.append(await stage.creates(4))
                with crowd(port, token, first, 1_000, reading=reading) as many:
                    await asyncio.sleep(10)  # until the buffers of who does not read are full
                    before = many.received()
                    beside[reading].append(await stage.creates(4))
                    assert stage.connections("bulk") <= 4
                    assert (many.received() > before) == reading
        for took in beside.values():
            assert median(took) <= 2 * median(quiet), f"{quiet} ms, then {beside}"
