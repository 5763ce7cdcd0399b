"""Slow subscribers of a served hub: they use little memory, miss nothing and do not delay other clients."""

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
from tests.support.many_subscribers import many_subscribers
from tests.support.requests import new_event
from tests.support.server import ServedHub
from xzepr.infra.crypto import create_key_pair

SMALL_RING = 100
SETTINGS = {
    "XZEPR__STREAM__MAX_SUBSCRIPTIONS_PER_ACTOR": "2000",
    "XZEPR__STREAM__MAX_CONNECTIONS_PER_ACTOR": "2000",
    "XZEPR__JWT__ACCESS_TOKEN_EXPIRATION": "3600",
}
CREATE_EVENTS = """
mutation ($input: CreateEventsInput!) { createEvents(input: $input) { results { recorded { cursor } } } }
"""
CREATE_EVENT = "mutation ($input: CreateEventInput!) { createEvent(input: $input) { cursor } }"


@dataclass(frozen=True, slots=True)
class LoadedHub:
    """A served hub on a separate database, with a client that reports events."""

    hub: ServedHub
    database_url: str
    client: Client
    receiver: str

    @classmethod
    @asynccontextmanager
    async def start(cls, database_url: str, folder: Path, **settings: object) -> AsyncGenerator["LoadedHub"]:
        """Starts a hub with these stream settings."""
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
        """Records `count` events and returns the cursor of the last."""
        cursor = ""
        for first in range(0, count, 500):
            events = [new_event(self.receiver, version=str(n)) for n in range(first, min(first + 500, count))]
            results = (await self.client(CREATE_EVENTS, input={"events": events})).data["createEvents"]["results"]
            cursor = results[-1]["recorded"]["cursor"]
        return cursor

    async def first_cursor(self) -> str:
        """Returns the cursor of the first message."""
        return (await self.client("{ stream(first: 1) { cursor } }")).data["stream"]["cursor"]

    async def median_create_ms(self, seconds: float) -> float:
        """Creates events on one connection for `seconds`, one after the other; returns the median latency."""
        headers = {"Content-Type": "application/json", **self.client.headers}
        body = orjson.dumps({"query": CREATE_EVENT, "variables": {"input": new_event(self.receiver)}})
        measured = await asyncio.to_thread(press, Target(self.hub.port, "/graphql", body, headers), 1, seconds)
        assert not measured.failures
        return measured.percentile(50)

    def memory_mib(self) -> float:
        """Returns the resident memory of the hub's process."""
        status = Path(f"/proc/{self.hub.process.pid}/status").read_text()
        match = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert match
        return int(match[1]) / 1024

    def connections(self, purpose: str) -> int:
        """Returns the number of the hub's database connections for a purpose."""
        with psycopg.connect(self.database_url) as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s",
                (f"xzepr hub {purpose}",),
            ).fetchone()
        assert row
        return int(row[0])


async def read_positions(frames: Frames, count: int) -> list[int]:
    """Returns the positions of the next messages."""
    return [int(frame["cursor"].partition("-")[0]) for frame in await frames.messages(count)]


@pytest.mark.parametrize("transport", ["socket", "events"])
async def test_paused_reader_receives_everything_in_order(database_url: str, tmp_path: Path, transport: str):
    async with AsyncExitStack() as open:
        loaded = await open.enter_async_context(LoadedHub.start(database_url, tmp_path, ring_size=SMALL_RING))
        follow = loaded.client.socket if transport == "socket" else loaded.client.events
        paused, active = [await open.enter_async_context(follow()) for _ in range(2)]
        for frames in (paused, active):
            assert (await frames.next())["__typename"] == "Checkpoint"
        reading = asyncio.create_task(read_positions(active, 2_000))
        await loaded.report(2_000)
        assert await reading == list(range(2, 2_002)), "the active reader is not delayed"
        assert await read_positions(paused, 2_000) == list(range(2, 2_002))


@pytest.mark.slow
async def test_catch_up_uses_separate_connections(database_url: str, tmp_path: Path):
    async with LoadedHub.start(database_url, tmp_path, ring_size=SMALL_RING) as loaded:
        await loaded.report(2_000)
        before, max_connections = loaded.connections("pool"), 0
        with many_subscribers(
            loaded.hub.port, loaded.client.token, await loaded.first_cursor(), 20, reading=True
        ) as many:
            while many.received() < 20 * 2_000 * 200:
                max_connections = max(max_connections, loaded.connections("bulk"))
                await asyncio.sleep(0.005)
            assert many.connected() == 20
        assert 1 <= max_connections <= 4
        assert loaded.connections("pool") <= before + 1, "requests use other connections"


@pytest.mark.slow
async def test_minute_without_reading_costs_little_memory(database_url: str, tmp_path: Path):
    count = 100_000
    async with AsyncExitStack() as open:
        loaded = await open.enter_async_context(LoadedHub.start(database_url, tmp_path))
        await loaded.report(20_000)  # the ring is full: it holds 10,000
        paused, active = [await open.enter_async_context(follow()) for follow in (loaded.client.socket,) * 2]
        start_positions = [int((await frames.next())["cursor"].partition("-")[0]) for frames in (paused, active)]
        assert start_positions == [20_001] * 2
        expected = list(range(20_002, 20_002 + count))
        memory, started_at = loaded.memory_mib(), time.monotonic()
        reading = asyncio.create_task(read_positions(active, count))
        await loaded.report(count)
        assert await reading == expected
        await asyncio.sleep(max(0.0, 60 - (time.monotonic() - started_at)))
        growth = loaded.memory_mib() - memory
        caught_up = await read_positions(paused, count)
        growth_after_reading = loaded.memory_mib() - memory
    assert caught_up == expected
    # A subscriber that does not read costs 64 KiB. The rest serves readers: caches of 16 MiB of history and 16 MiB of
    # responses, counted by their content, and garbage that is collected once there are 50,000 objects.
    # The growth was 113 MiB after the first catch-up of 100,000 messages, and after the fifth.
    assert max(growth, growth_after_reading) < 160, f"{growth:.0f} and {growth_after_reading:.0f} MiB"


@pytest.mark.slow
async def test_creates_stay_fast_beside_slow_subscribers(database_url: str, tmp_path: Path):
    async with LoadedHub.start(database_url, tmp_path) as loaded:
        await loaded.report(30_000)
        first, port, token = await loaded.first_cursor(), loaded.hub.port, loaded.client.token
        baseline: list[float] = []
        with_load: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(3):
            for reading in (False, True):
                baseline.append(await loaded.median_create_ms(4))
                with many_subscribers(port, token, first, 1_000, reading=reading) as many:
                    await asyncio.sleep(10)  # until the buffers of the idle readers are full
                    before = many.received()
                    with_load[reading].append(await loaded.median_create_ms(4))
                    assert loaded.connections("bulk") <= 4
                    assert (many.received() > before) == reading
        for latencies in with_load.values():
            assert median(latencies) <= 2 * median(baseline), f"{baseline} ms, then {with_load}"
