"""A consumer that returns too late gets an error with the oldest cursor, over every transport."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.support.clients import STREAM, Client
from tests.support.command_line import CommandLineUser
from tests.support.server import ADMIN_PASSWORD, ServedHub
from xzepr.features.stream.retention import Retention
from xzepr.infra.crypto import create_key_pair
from xzepr.infra.db import Database
from xzepr.settings import DatabaseSettings

PAGE = "query ($after: String) { stream(after: $after, first: 50) { cursor messages { cursor } } }"


@pytest.fixture
def own_hub(database_url: str, tmp_path: Path) -> Iterator[ServedHub]:
    """Starts a hub on a database that the test can access as well."""
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    create_key_pair(private, public)
    keys = {"XZEPR__JWT__PRIVATE_KEY_PATH": str(private), "XZEPR__JWT__PUBLIC_KEY_PATH": str(public)}
    hub = ServedHub.start(tmp_path / "data", "--database-url", database_url, environ=keys)
    try:
        yield hub
    finally:
        hub.stop()


@dataclass(frozen=True, slots=True)
class LateConsumer:
    """A consumer that has seen the first of ten messages; retention has removed six of them."""

    client: Client
    cursors: list[str]

    @property
    def expired(self) -> str:
        return self.cursors[0]

    @property
    def oldest(self) -> str:
        return self.cursors[5]


@pytest.fixture
async def consumer(own_hub: ServedHub, database_url: str) -> LateConsumer:
    client = await Client(own_hub.url).logged_in("admin", own_hub.admin_password)
    for number in range(10):
        await client.receiver(f"r{number}")
    cursors = [message["cursor"] for message in (await client(PAGE)).data["stream"]["messages"]]
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute("UPDATE messages SET time = time - interval '2 hours' WHERE position <= 6")
    db = Database(database_url, DatabaseSettings(min_connections=1, max_connections=2), name="test")
    await db.open()
    await Retention(db, timedelta(hours=1), None).enforce()
    await db.close()
    return LateConsumer(client, cursors)


def _assert_expired(consumer: LateConsumer, errors: list[dict[str, Any]]) -> None:
    [error] = errors
    assert error["extensions"] == {"code": "CURSOR_EXPIRED", "oldestCursor": consumer.oldest}
    assert consumer.oldest in error["message"]


async def test_every_transport_reports_the_oldest_cursor(consumer: LateConsumer, anonymous: CommandLineUser) -> None:
    await _check_pages(consumer)
    _assert_expired(consumer, await _socket_errors(consumer))
    _assert_expired(consumer, await _event_stream_errors(consumer, None, consumer.expired))
    _assert_expired(consumer, await _event_stream_errors(consumer, consumer.expired, consumer.oldest))
    async with consumer.client.socket(after=consumer.oldest) as frames:
        assert [frame["cursor"] for frame in await frames.messages(4)] == consumer.cursors[6:]
    async with consumer.client.events(last_event_id=consumer.oldest) as frames:
        assert [frame["cursor"] for frame in await frames.messages(4)] == consumer.cursors[6:]
    status = (await consumer.client("{ streamStatus { position cursor oldestCursor } }")).data["streamStatus"]
    assert status == {"position": 10, "cursor": consumer.cursors[9], "oldestCursor": consumer.oldest}
    anonymous.hub = consumer.client.url
    anonymous.log_in("admin", ADMIN_PASSWORD)
    _check_command_line(consumer, anonymous)


async def _check_pages(consumer: LateConsumer) -> None:
    response = await consumer.client(PAGE, after=consumer.expired)
    assert (response.status, response.body["data"]) == (200, {"stream": None})
    _assert_expired(consumer, [{name: response.errors[0][name] for name in ("message", "extensions")}])
    for after in (consumer.oldest, None):
        page = (await consumer.client(PAGE, after=after)).data["stream"]
        assert [message["cursor"] for message in page["messages"]] == consumer.cursors[6:]


async def _socket_errors(consumer: LateConsumer) -> list[dict[str, Any]]:
    url = consumer.client.url.replace("http://", "ws://") + "/graphql"
    async with connect(url, subprotocols=[Subprotocol("graphql-transport-ws")], proxy=None) as socket:
        await socket.send(json.dumps({"type": "connection_init", "payload": {"token": consumer.client.token}}))
        await socket.recv()
        payload = {"query": STREAM, "variables": {"after": consumer.expired}}
        await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
        response = json.loads(await socket.recv())
    assert (response["id"], response["type"]) == ("1", "error")
    return response["payload"]


async def _event_stream_errors(consumer: LateConsumer, last_event_id: str | None, after: str) -> list[dict[str, Any]]:
    headers = {"Accept": "text/event-stream", **consumer.client.headers}
    if last_event_id is not None:
        headers["Last-Event-ID"] = last_event_id
    async with httpx2.AsyncClient(timeout=20, trust_env=False) as http:
        body = {"query": STREAM, "variables": {"after": after}}
        response = await http.post(f"{consumer.client.url}/graphql", json=body, headers=headers)
    [data] = [line for line in response.text.splitlines() if line.startswith("data: ")]
    assert "event: complete" in response.text
    return json.loads(data.removeprefix("data: "))["errors"]


def _check_command_line(consumer: LateConsumer, anonymous: CommandLineUser) -> None:
    rejected = anonymous("events", "tail", "--after", consumer.expired)
    assert (rejected.code, rejected.out) == (1, "")
    assert f"continue after {consumer.oldest}" in rejected.err
    assert "use `--from-start` to read all that is left" in rejected.err
    for options in (("--after", consumer.oldest), ("--from-start",)):
        result = anonymous("events", "tail", *options, "--limit", "4", "--json")
        assert [json.loads(line)["cursor"] for line in result.out.splitlines()] == consumer.cursors[6:]
    assert anonymous("stream", "status", "--json").json["oldestCursor"] == consumer.oldest
    assert f"oldest\t6\t{consumer.oldest}" in anonymous("stream", "status").out
