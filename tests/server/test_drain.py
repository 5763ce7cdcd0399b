"""How a served hub stops on SIGTERM: what runs is finished, whatever clients do it ends in time, and with 0."""

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
    """A hub on the test's database that is given half a minute to stop."""
    with stopping_within(LIMIT_SECONDS, database_url) as hub:
        yield hub


@contextmanager
def stopping_within(seconds: float, database_url: str) -> Generator[ServedHub]:
    """A hub on the database that is given so long to stop."""
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


async def ended(hub: ServedHub, begun: float) -> float:
    """Waits for its end, which must be a clean one; gives the seconds since it began in which the machine went on."""
    async with measured_stalls() as late:
        code = await asyncio.to_thread(hub.wait)
    seconds = time.monotonic() - begun - late.seconds
    said = "".join(hub.lines)
    assert code == 0, said
    assert "Traceback" not in said
    return seconds


def terminate(hub: ServedHub) -> float:
    """Tells it to stop, and when that was."""
    hub.process.send_signal(signal.SIGTERM)
    return time.monotonic()


@asynccontextmanager
async def opened(client: Client) -> AsyncGenerator[ClientConnection]:
    """A socket after its acknowledgement."""
    url = client.url.replace("http://", "ws://") + "/graphql"
    async with connect(url, subprotocols=[Subprotocol("graphql-transport-ws")], proxy=None) as one:
        await one.send(json.dumps({"type": "connection_init", "payload": {"token": client.token}}))
        assert json.loads(await one.recv()) == {"type": "connection_ack"}
        yield one


async def ask(one: ClientConnection, id: str, query: str, **variables: object) -> None:
    payload = {"query": query, "variables": variables}
    await one.send(json.dumps({"id": id, "type": "subscribe", "payload": payload}))


async def test_drain_finishes_requests_in_flight_on_both_transports(hub: ServedHub, database_url: str) -> None:
    client = await Client(hub.url).logged_in("admin", hub.admin_password)
    receiver = await client.receiver("build")
    async with opened(client) as one:
        async with writer_lock_held(database_url):
            over_http = asyncio.create_task(client(CREATE, input=new_event(receiver, name="http")))
            await ask(one, "a", CREATE, input=new_event(receiver, name="websocket"))
            await until(lambda: _waits(database_url))
            begun = terminate(hub)
            await asyncio.sleep(1)
            assert hub.process.poll() is None, "it waits"
        answer = await over_http
        said = [json.loads(await one.recv()) for _ in range(2)]
        with pytest.raises(ConnectionClosed):
            await one.recv()
    assert await ended(hub, begun) < 6
    assert one.close_code == 1012
    assert answer.data["createEvent"]["event"]["id"]
    assert said[0]["payload"]["data"]["createEvent"]["event"]["id"]
    assert said[1] == {"id": "a", "type": "complete"}


async def _waits(database_url: str) -> bool:
    return await waiting_for_locks(database_url) > 0


async def test_server_without_clients_stops_at_once(hub: ServedHub) -> None:
    assert await ended(hub, terminate(hub)) < 2


async def test_drain_asks_subscribers_to_reconnect(hub: ServedHub) -> None:
    client = await Client(hub.url).logged_in("admin", hub.admin_password)
    async with opened(client) as one, _event_stream(hub, client) as (reader, _):
        await ask(one, "a", FOLLOW)
        assert json.loads(await one.recv())["type"] == "next"
        begun = terminate(hub)
        with pytest.raises(ConnectionClosed):
            await one.recv()
        stream = (await asyncio.wait_for(reader.read(), 10)).decode()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", hub.port), timeout=5).close()
    assert await ended(hub, begun) < 4
    assert one.close_code == 1012
    assert "retry: " in stream
    assert "event: complete" not in stream


@asynccontextmanager
async def _event_stream(
    hub: ServedHub, client: Client, query: str = FOLLOW
) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A raw event stream, of which nothing is read by itself beyond a few kilobytes."""
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


async def _misbehaving(hub: ServedHub, client: Client, cursor: str, held: AsyncExitStack) -> None:
    """Clients that read nothing, ignore a close, or stop in the middle of a request."""
    wanted = "{ cursor ... on EventRecorded { event { payload } } }"
    payloads = f'subscription {{ stream(after: "{cursor}") {wanted} }}'
    await held.enter_async_context(_event_stream(hub, client, payloads))
    deaf = _raw(hub, held)
    deaf.sendall(
        b"GET /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
    )
    _raw(hub, held).sendall(b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-")
    _raw(hub, held).sendall(
        b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        + f"Authorization: Bearer {client.token}\r\n".encode()
        + b"Content-Length: 1000\r\n\r\n{"
    )
    _raw(hub, held)  # says nothing at all
    await asyncio.sleep(0.5)


def _raw(hub: ServedHub, held: AsyncExitStack) -> socket.socket:
    return held.enter_context(socket.create_connection(("127.0.0.1", hub.port), timeout=5))


async def _many_events(client: Client, name: str = "build") -> str:
    """The cursor before 16 MB of stream, which is more than the buffers of who does not read."""
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
    # After clients, six seconds leave 1.5 s for the rest: for a machine that stands still meanwhile there are 5 s.
    assert await _stopped_by_itself(6, database_url) or await _stopped_by_itself(20, database_url)


async def _stopped_by_itself(seconds: float, database_url: str) -> bool:
    """Whether it ended in its time without its last resort."""
    with stopping_within(seconds, database_url) as hub:
        client = await Client(hub.url).logged_in("admin", hub.admin_password)
        cursor = await _many_events(client, f"build for {seconds} s")
        async with AsyncExitStack() as held:
            await _misbehaving(hub, client, cursor, held)
            await ended(hub, terminate(hub))
        said = "".join(hub.lines)
    return "stop.cut_off" in said and "stop.too_slow" not in said


async def test_second_signal_stops_without_waiting(hub: ServedHub) -> None:
    client = await Client(hub.url).logged_in("admin", hub.admin_password)
    cursor = await _many_events(client)
    async with AsyncExitStack() as held:
        await _misbehaving(hub, client, cursor, held)
        terminate(hub)
        await asyncio.sleep(0.5)
        assert hub.process.poll() is None
        assert await ended(hub, terminate(hub)) < 2
