"""The clients that others use, with their defaults, against a served hub: they connect, follow, and come back."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.asking import new_event
from tests.support.clients import Client
from tests.support.postgres import temporary_folder
from tests.support.server import ADMIN_PASSWORD, ServedHub, serving

HERE = Path(__file__).parent / "npm"
PATIENCE_SECONDS = 60
TRANSPORTS = ("websocket", "sse", "eventsource")
FIVE = range(5)
RECORD = "mutation ($input: CreateEventInput!) { createEvent(input: $input) { event { id } } }"
KEY = "mutation ($input: CreateApiKeyInput!) { createApiKey(input: $input) { secret apiKey { id } } }"
REVOKE = "mutation ($input: RevokeApiKeyInput!) { revokeApiKey(input: $input) { id } }"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("node") and shutil.which("npm")), reason="no node or no npm here"),
]

Json = dict[str, Any]


@pytest.fixture(scope="module")
def clients() -> Iterator[Path]:
    """The script with the clients that it imports, as the lock file names them."""
    with temporary_folder() as folder:
        for path in HERE.iterdir():
            shutil.copy(path, folder)
        done = subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"npm could not install the clients: {done.stderr[-300:]}")
        yield folder


class Follower:
    """A client in a process of its own, and what it says."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def hear(self) -> Json:
        """The next line."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            line = await self._process.stdout.readline()
        assert line, "the client has ended"
        return orjson.loads(line)

    async def events(self, count: int) -> list[str]:
        """The ids of that many events, as they come; checkpoints and lost connections are passed over."""
        found: list[str] = []
        while len(found) < count:
            said = await self.hear()
            assert said.keys() <= {"next", "closed"}, said
            if "next" in said and said["next"]["data"]["stream"]["__typename"] == "EventRecorded":
                found.append(said["next"]["data"]["stream"]["event"]["id"])
        return found


@asynccontextmanager
async def following(clients: Path, transport: str, hub: ServedHub, *secrets: str) -> AsyncGenerator[Follower]:
    """A client past its first frame, which says from where it follows."""
    process = await asyncio.create_subprocess_exec(
        "node", "follow.mjs", transport, f"{hub.url}/graphql", *secrets, cwd=clients, stdout=subprocess.PIPE
    )
    try:
        follower = Follower(process)
        assert (await follower.hear())["next"]["data"]["stream"]["__typename"] == "Checkpoint"
        yield follower
    finally:
        process.kill()
        await process.wait()


async def key(client: Client) -> tuple[str, str]:
    """A new API key: its secret and its id."""
    created = (await client(KEY, input={"name": "key"})).data["createApiKey"]
    return created["secret"], created["apiKey"]["id"]


async def record(client: Client, receiver: str) -> list[str]:
    """The ids of five new events."""
    return [(await client(RECORD, input=new_event(receiver))).data["createEvent"]["event"]["id"] for _ in FIVE]


async def signed_in(hub: ServedHub) -> Client:
    return await Client(hub.url).logged_in("admin", ADMIN_PASSWORD)


@pytest.mark.parametrize(
    ("transport", "end"),
    [
        *((transport, ServedHub.kill) for transport in TRANSPORTS),
        ("sse", ServedHub.stop),
        ("eventsource", ServedHub.stop),
    ],
)
async def test_a_client_comes_back_after_a_crash_or_a_stop_of_the_hub_and_has_missed_nothing(
    clients: Path, transport: str, end: Callable[[ServedHub], object]
) -> None:
    with temporary_folder() as folder:
        hub = await asyncio.to_thread(ServedHub.start, folder / "data")
        try:
            client = await signed_in(hub)
            receiver, (secret, _) = await client.receiver("build"), await key(client)
            async with following(clients, transport, hub, secret) as follower:
                before = await record(client, receiver)
                assert await follower.events(5) == before
                await asyncio.to_thread(end, hub)
                hub = await asyncio.to_thread(ServedHub.start, folder / "data", port=hub.port)
                after = await record(client, receiver)
                assert await follower.events(5) == after
        finally:
            hub.stop()


async def test_graphql_ws_comes_back_with_another_credential_after_4403(clients: Path) -> None:
    with serving() as hub:
        client = await signed_in(hub)
        receiver, (first, id), (second, _) = await client.receiver("build"), await key(client), await key(client)
        async with following(clients, "websocket", hub, first, second) as follower:
            await client(REVOKE, input={"id": id})
            assert await follower.hear() == {"closed": 4403}
            recorded = await record(client, receiver)
            assert await follower.events(5) == recorded


@pytest.mark.parametrize("transport", ["sse", "eventsource"])
async def test_a_stream_whose_key_was_revoked_ends_with_the_reason(clients: Path, transport: str) -> None:
    with serving() as hub:
        client = await signed_in(hub)
        secret, id = await key(client)
        async with following(clients, transport, hub, secret) as follower:
            await client(REVOKE, input={"id": id})
            assert (await follower.hear())["next"]["errors"][0]["extensions"]["code"] == "INVALID_TOKEN"
            assert await follower.hear() == {"complete": True}
