"""Common npm clients, mostly with default settings: they connect, follow the stream and reconnect."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_sockets
from websockets.typing import Subprotocol

from tests.support.accounts import key_pair
from tests.support.clients import Client
from tests.support.load_balancer import load_balancer
from tests.support.postgres import temporary_folder
from tests.support.requests import new_event
from tests.support.server import ADMIN_PASSWORD, ServedHub, reserved_port, serving

NPM_FOLDER = Path(__file__).parent / "npm"
TIMEOUT_SECONDS = 60
TRANSPORTS = ("websocket-alone", "sse", "eventsource")
RECONNECTS = {1001, 1006, 1012, 1013, 4403, 4408}
GIVES_UP = {1009, 4400, 4401, 4406, 4409, 4429, 4500}
EVENT_COUNT = 5
RECORD = "mutation ($input: CreateEventInput!) { createEvent(input: $input) { event { id } } }"
KEY = "mutation ($input: CreateApiKeyInput!) { createApiKey(input: $input) { secret apiKey { id } } }"
REVOKE = "mutation ($input: RevokeApiKeyInput!) { revokeApiKey(input: $input) { id } }"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("node") and shutil.which("npm")), reason="node or npm is not installed"),
]

Json = dict[str, Any]


@pytest.fixture(scope="module")
def clients() -> Iterator[Path]:
    """Installs the script with its clients, in the versions of the lock file."""
    with temporary_folder() as folder:
        for path in NPM_FOLDER.iterdir():
            shutil.copy(path, folder)
        installed = subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if installed.returncode:
            pytest.skip(f"npm could not install the clients: {installed.stderr[-300:]}")
        yield folder


class Follower:
    """A client in a separate process, and the lines that it prints."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def next_line(self) -> Json:
        """Returns the client's next line."""
        assert self._process.stdout is not None
        async with asyncio.timeout(TIMEOUT_SECONDS):
            line = await self._process.stdout.readline()
        assert line, "the client has ended"
        return orjson.loads(line)

    async def events(self, count: int) -> list[str]:
        """Returns the ids of the next events; checkpoints and lost connections are skipped."""
        ids: list[str] = []
        while len(ids) < count:
            line = await self.next_line()
            assert line.keys() <= {"next", "closed"}, line
            if "next" in line and line["next"]["data"]["stream"]["__typename"] == "EventRecorded":
                ids.append(line["next"]["data"]["stream"]["event"]["id"])
        return ids


@asynccontextmanager
async def running(clients: Path, *arguments: str) -> AsyncGenerator[Follower]:
    """Runs a script during the block."""
    process = await asyncio.create_subprocess_exec("node", *arguments, cwd=clients, stdout=subprocess.PIPE)
    try:
        yield Follower(process)
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def following(clients: Path, transport: str, url: str, *secrets: str) -> AsyncGenerator[Follower]:
    """Runs a client during the block, after its first frame, a checkpoint."""
    async with running(clients, "follow.mjs", transport, f"{url}/graphql", *secrets) as follower:
        assert (await follower.next_line())["next"]["data"]["stream"]["__typename"] == "Checkpoint"
        yield follower


async def key(client: Client) -> tuple[str, str]:
    """Creates an API key and returns its secret and id."""
    created = (await client(KEY, input={"name": "key"})).data["createApiKey"]
    return created["secret"], created["apiKey"]["id"]


async def record(client: Client, receiver: str) -> list[str]:
    """Records five events and returns their ids."""
    return [
        (await client(RECORD, input=new_event(receiver))).data["createEvent"]["event"]["id"] for _ in range(EVENT_COUNT)
    ]


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
async def test_client_resumes_after_a_restart_of_the_hub(
    clients: Path, transport: str, end: Callable[[ServedHub], object]
) -> None:
    with temporary_folder() as folder, reserved_port() as port:
        hub = await asyncio.to_thread(ServedHub.start, folder / "data", port=port)
        try:
            client = await signed_in(hub)
            receiver, (secret, _) = await client.receiver("build"), await key(client)
            async with following(clients, transport, hub.url, secret) as follower:
                before = await record(client, receiver)
                assert await follower.events(5) == before
                await asyncio.to_thread(end, hub)
                hub = await asyncio.to_thread(ServedHub.start, folder / "data", port=port)
                after = await record(client, receiver)
                assert await follower.events(5) == after
        finally:
            hub.stop()


async def test_graphql_ws_changes_credential_after_4403(clients: Path) -> None:
    with serving() as hub:
        client = await signed_in(hub)
        receiver, (first, id), (second, _) = await client.receiver("build"), await key(client), await key(client)
        async with following(clients, "websocket", hub.url, first, second) as follower:
            await client(REVOKE, input={"id": id})
            assert await follower.next_line() == {"closed": 4403}
            recorded = await record(client, receiver)
            assert await follower.events(5) == recorded


@pytest.mark.parametrize("transport", ["sse", "eventsource"])
async def test_revoked_key_ends_the_stream_with_the_reason(clients: Path, transport: str) -> None:
    with serving() as hub:
        client = await signed_in(hub)
        secret, id = await key(client)
        async with following(clients, transport, hub.url, secret) as follower:
            await client(REVOKE, input={"id": id})
            assert (await follower.next_line())["next"]["errors"][0]["extensions"]["code"] == "INVALID_TOKEN"
            assert await follower.next_line() == {"complete": True}


async def test_graphql_ws_reconnects_after_listed_codes_only(clients: Path) -> None:
    pending_codes = RECONNECTS | GIVES_UP

    async def serve(socket: ServerConnection) -> None:
        assert socket.request is not None
        code = int(socket.request.path.rpartition("/")[2])
        await socket.recv()
        await socket.send('{"type": "connection_ack"}')
        id = orjson.loads(await socket.recv())["id"]
        if code not in pending_codes:  # the client has reconnected
            return await socket.send(orjson.dumps({"id": id, "type": "next", "payload": {"data": None}}).decode())
        pending_codes.remove(code)
        if code == 1006:
            return socket.transport.abort()
        return await socket.close(code)

    reconnected = dict[int, bool]()
    async with serve_sockets(serve, "127.0.0.1", 0, subprotocols=[Subprotocol("graphql-transport-ws")]) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with running(clients, "codes.mjs", url, *map(str, sorted(pending_codes))) as script:
            while len(reconnected) < len(RECONNECTS | GIVES_UP):
                line = await script.next_line()
                reconnected[line["code"]] = line["reconnected"]
    assert reconnected == dict.fromkeys(RECONNECTS, True) | dict.fromkeys(GIVES_UP, False)


@pytest.fixture
def two_hubs(database_url: str) -> Iterator[Callable[[int], ServedHub]]:
    """Returns a function that starts one of two servers on one database; a restart keeps its port."""
    with temporary_folder() as folder:
        pair = key_pair()
        (folder / "private.pem").write_text(pair.private_pem)
        (folder / "private.pem").chmod(0o600)
        (folder / "public.pem").write_text(pair.public_pem)
        environ = {
            "DATABASE_URL": database_url,
            "XZEPR__JWT__PRIVATE_KEY_PATH": str(folder / "private.pem"),
            "XZEPR__JWT__PUBLIC_KEY_PATH": str(folder / "public.pem"),
        }
        hubs = dict[int, ServedHub]()

        def start(number: int) -> ServedHub:
            port = hubs[number].port if number in hubs else 0
            hubs[number] = ServedHub.start(folder / str(number), port=port, environ=environ)
            return hubs[number]

        try:
            yield start
        finally:
            for hub in hubs.values():
                hub.stop()


async def test_graphql_ws_switches_servers_behind_a_balancer(
    clients: Path, two_hubs: Callable[[int], ServedHub]
) -> None:
    hubs = [await asyncio.to_thread(two_hubs, number) for number in (0, 1)]
    client = await signed_in(hubs[0])
    receiver, (secret, _) = await client.receiver("build"), await key(client)
    async with (
        load_balancer([hub.port for hub in hubs]) as proxy,
        following(clients, "websocket", f"http://127.0.0.1:{proxy.port}", secret) as follower,
    ):
        for stopped, remaining in ((0, 1), (1, 0)):
            stopping = asyncio.create_task(asyncio.to_thread(hubs[stopped].stop))
            recorded = await record(await signed_in(hubs[remaining]), receiver)
            assert await follower.events(5) == recorded
            assert await stopping == 0
            hubs[stopped] = await asyncio.to_thread(two_hubs, stopped)
    assert proxy.rejected == 0
