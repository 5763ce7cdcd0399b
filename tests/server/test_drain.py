"""A served hub drains on SIGTERM: it finishes running requests, and ends in time with exit code 0."""

import asyncio
import json
import signal
import socket
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.support.accounts import key_pair
from tests.support.clients import Client
from tests.support.hub import until, waiting_for_locks, writer_lock_held
from tests.support.postgres import temporary_folder
from tests.support.process_stalls import measured_stalls
from tests.support.requests import new_event
from tests.support.server import ServedHub

CREATE = "mutation ($input: CreateEventInput!) { createEvent(input: $input) { cursor event { id } } }"
LIMIT_SECONDS = 30.0
FOLLOW = "subscription { stream { __typename cursor } }"


@pytest.fixture
def hub(database_url: str) -> Generator[ServedHub]:
    """A hub on the test's database with half a minute to stop."""
    with stopping_within(LIMIT_SECONDS, database_url) as hub:
        yield hub


@contextmanager
def stopping_within(seconds: float, database_url: str) -> Generator[ServedHub]:
    """Runs a hub on the database with this shutdown timeout."""
    with temporary_folder() as folder:
        pair = key_pair()
        (folder / "private.pem").write_text(pair.private_pem)
        (folder / "private.pem").chmod(0o600)
        (folder / "public.pem").write_text(pair.public_pem)
        environ = {
            "DATABASE_URL": database_url,
            "XZEPR__JWT__PRIVATE_KEY_PATH": str(folder / "private.pem"),
            "XZEPR__JWT__PUBLIC_KEY_PATH": str(folder / "public.pem"),
            "XZEPR__SERVER__SHUTDOWN_TIMEOUT_SECONDS": str(seconds),
        }
        hub = ServedHub.start(folder / "data", environ=environ)
        try:
            yield hub
        finally:
            hub.kill()


async def stop_seconds(hub: ServedHub, began: float) -> float:
    """Waits for a clean end of the hub. Returns the seconds since `began` without stalls of the machine."""
    async with measured_stalls() as stalls:
        code = await asyncio.to_thread(hub.wait)
    seconds = time.monotonic() - began - stalls.seconds
    output = "".join(hub.lines)
    assert code == 0, output
    assert "Traceback" not in output
    return seconds


def terminate(hub: ServedHub) -> float:
    """Sends SIGTERM and returns the time."""
    hub.process.send_signal(signal.SIGTERM)
    return time.monotonic()


@asynccontextmanager
async def opened(client: Client) -> AsyncGenerator[ClientConnection]:
    """Opens a WebSocket up to its acknowledgement."""
    url = client.url.replace("http://", "ws://") + "/graphql"
    async with connect(url, subprotocols=[Subprotocol("graphql-transport-ws")], proxy=None) as connection:
        await connection.send(json.dumps({"type": "connection_init", "payload": {"token": client.token}}))
        assert json.loads(await connection.recv()) == {"type": "connection_ack"}
        yield connection


async def send_operation(connection: ClientConnection, id: str, query: str, **variables: object) -> None:
    payload = {"query": query, "variables": variables}
    await connection.send(json.dumps({"id": id, "type": "subscribe", "payload": payload}))


async def test_drain_finishes_requests_in_flight_on_both_transports(hub: ServedHub, database_url: str) -> None:
    client = await Client(hub.url).logged_in("admin", hub.admin_password)
    receiver = await client.receiver("build")
    async with opened(client) as connection:
        async with writer_lock_held(database_url):
            over_http = asyncio.create_task(client(CREATE, input=new_event(receiver, name="http")))
            await send_operation(connection, "a", CREATE, input=new_event(receiver, name="websocket"))
            await until(lambda: _waits_for_lock(database_url))
            began = terminate(hub)
            await asyncio.sleep(1)
            assert hub.process.poll() is None, "the hub must wait for its requests"
        response = await over_http
        frames = [json.loads(await connection.recv()) for _ in range(2)]
        with pytest.raises(ConnectionClosed):
            await connection.recv()
    assert await stop_seconds(hub, began) < 6
    assert connection.close_code == 1012
    assert response.data["createEvent"]["event"]["id"]
    assert frames[0]["payload"]["data"]["createEvent"]["event"]["id"]
    assert frames[1] == {"id": "a", "type": "complete"}


async def _waits_for_lock(database_url: str) -> bool:
    return await waiting_for_locks(database_url) > 0


async def test_server_without_clients_stops_at_once(hub: ServedHub) -> None:
    assert await stop_seconds(hub, terminate(hub)) < 2


async def test_drain_asks_subscribers_to_reconnect(hub: ServedHub) -> None:
    client = await Client(hub.url).logged_in("admin", hub.admin_password)
    async with opened(client) as connection, _event_stream(hub, client) as (reader, _):
        await send_operation(connection, "a", FOLLOW)
        assert json.loads(await connection.recv())["type"] == "next"
        began = terminate(hub)
        with pytest.raises(ConnectionClosed):
            await connection.recv()
        stream = (await asyncio.wait_for(reader.read(), 10)).decode()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", hub.port), timeout=5).close()
    assert await stop_seconds(hub, began) < 4
    assert connection.close_code == 1012
    assert "retry: " in stream
    assert "event: complete" not in stream


@asynccontextmanager
async def _event_stream(
    hub: ServedHub, client: Client, query: str = FOLLOW
) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Opens a raw event stream. Its reader buffers only a few kilobytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", hub.port, limit=1024)
    body = json.dumps({"query": query}).encode()
    writer.write(
        f"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {client.token}\r\n"
        "Accept: text/event-stream\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    await reader.readuntil(b"event: next\n")
    try:
        yield reader, writer
    finally:
        writer.close()


async def _misbehaving_clients(hub: ServedHub, client: Client, cursor: str, stack: AsyncExitStack) -> None:
    """Connects clients that read nothing, ignore a close frame, or stop in the middle of a request."""
    fields = "{ cursor ... on EventRecorded { event { payload } } }"
    query = f'subscription {{ stream(after: "{cursor}") {fields} }}'
    await stack.enter_async_context(_event_stream(hub, client, query))
    ignoring_close = _raw(hub, stack)
    ignoring_close.sendall(
        b"GET /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
    )
    _raw(hub, stack).sendall(b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-")
    _raw(hub, stack).sendall(
        b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        + f"Authorization: Bearer {client.token}\r\n".encode()
        + b"Content-Length: 1000\r\n\r\n{"
    )
    _raw(hub, stack)  # sends nothing
    await asyncio.sleep(0.5)


def _raw(hub: ServedHub, stack: AsyncExitStack) -> socket.socket:
    return stack.enter_context(socket.create_connection(("127.0.0.1", hub.port), timeout=5))


async def _many_events(client: Client, name: str = "build") -> str:
    """Records 16 MB, more than the buffers of a client that does not read. Returns the cursor before them."""
    receiver = await client.receiver(name)
    cursor = (await client("{ streamStatus { cursor } }")).data["streamStatus"]["cursor"]
    document = (
        "mutation ($input: CreateEventsInput!) { createEvents(input: $input) { results { recorded { cursor } } } }"
    )
    for number in range(16):
        events = [new_event(receiver, name=f"{number}-{n}", payload={"x": "x" * 50_000}) for n in range(20)]
        assert (await client(document, input={"events": events})).data
    return cursor


async def test_misbehaving_clients_do_not_delay_the_stop(database_url: str) -> None:
    # With 6 s, clients leave 1.5 s for the rest. The second attempt leaves 5 s, for a machine that stalled.
    assert await _stops_in_time(6, database_url) or await _stops_in_time(20, database_url)


async def _stops_in_time(seconds: float, database_url: str) -> bool:
    """Returns whether the hub cut off its clients and ended within its shutdown timeout."""
    with stopping_within(seconds, database_url) as hub:
        client = await Client(hub.url).logged_in("admin", hub.admin_password)
        cursor = await _many_events(client, f"build for {seconds} s")
        async with AsyncExitStack() as stack:
            await _misbehaving_clients(hub, client, cursor, stack)
            await stop_seconds(hub, terminate(hub))
        output = "".join(hub.lines)
    return "stop.cut_off" in output and "stop.too_slow" not in output


async def test_second_signal_stops_without_waiting(hub: ServedHub) -> None:
    client = await Client(hub.url).logged_in("admin", hub.admin_password)
    cursor = await _many_events(client)
    async with AsyncExitStack() as stack:
        await _misbehaving_clients(hub, client, cursor, stack)
        terminate(hub)
        await asyncio.sleep(0.5)
        assert hub.process.poll() is None
        assert await stop_seconds(hub, terminate(hub)) < 2
