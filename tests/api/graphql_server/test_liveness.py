"""Client liveness: clients that are alive and clients that are gone, for each state of a connection."""

import asyncio
from contextlib import suppress

import pytest

from xzepr.api.graphql_server import liveness
from xzepr.api.graphql_server.liveness import ClientLiveness, unsent_bytes_of

STALLED_SECONDS = 10.0
SMALL_BYTES, LARGE_BYTES = 100, 100_000


class Clock:
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Client:
    """A client that accepts writes only while its buffers have space."""

    def __init__(self) -> None:
        self.unsent = 0
        self.has_space = asyncio.Event()
        self.has_space.set()
        self.liveness = ClientLiveness(STALLED_SECONDS, lambda: self.unsent)

    async def write(self, size: int = SMALL_BYTES) -> None:
        async def wait_for_space() -> None:
            await self.has_space.wait()

        await self.liveness.track_write(wait_for_space(), size)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    manual_clock = Clock()
    monkeypatch.setattr(liveness, "monotonic", manual_clock)
    return manual_clock


@pytest.fixture
def client(clock: Clock) -> Client:
    return Client()


async def test_client_is_gone_until_it_answers_a_ping(client: Client) -> None:
    await client.write()
    assert not client.liveness.is_gone()
    client.liveness.ping_sent()
    assert client.liveness.is_gone()
    client.liveness.received()
    assert not client.liveness.is_gone()


async def test_ping_behind_large_write_may_stay_unanswered(client: Client, clock: Clock) -> None:
    await client.write(LARGE_BYTES)
    client.liveness.ping_sent()
    assert not client.liveness.is_gone()
    clock.now += STALLED_SECONDS
    assert client.liveness.is_gone()


async def test_client_that_reads_nothing_is_gone_after_limit(client: Client, clock: Clock) -> None:
    client.has_space.clear()
    client.unsent = 1_000_000
    async with asyncio.TaskGroup() as writes:
        writing = writes.create_task(client.write())
        await asyncio.sleep(0)
        assert client.liveness.has_pending_write
        assert not client.liveness.is_gone()
        clock.now += STALLED_SECONDS
        assert client.liveness.is_gone()
        writing.cancel()


async def test_client_that_reads_slowly_is_not_gone(client: Client, clock: Clock) -> None:
    client.has_space.clear()
    client.unsent = 1_000_000
    async with asyncio.TaskGroup() as writes:
        writing = writes.create_task(client.write())
        await asyncio.sleep(0)
        for _ in range(10):
            clock.now += STALLED_SECONDS / 2
            client.unsent -= 1
            assert not client.liveness.is_gone()
        writing.cancel()


async def test_abandoned_write_blocks_client_until_next_write(client: Client, clock: Clock) -> None:
    client.has_space.clear()
    with suppress(TimeoutError):
        async with asyncio.timeout(0):
            await client.write()
    clock.now += STALLED_SECONDS
    assert client.liveness.is_gone()
    assert not client.liveness.has_pending_write
    client.has_space.set()
    await client.write()
    assert not client.liveness.is_gone()


def test_unknown_transport_has_no_unsent_bytes() -> None:
    assert unsent_bytes_of({"type": "http"})() == 0
