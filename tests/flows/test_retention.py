"""A consumer who comes back too late is told so, over every transport, and with the cursor to go on from."""

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
from tests.support.command_line import Person
from tests.support.server import ADMIN_PASSWORD, ServedHub
from xzepr.features.stream.retention import Retention
from xzepr.infra.crypto import create_key_pair
from xzepr.infra.db import Database
from xzepr.settings import DatabaseSettings

PAGE = "query ($after: String) { stream(after: $after, first: 50) { cursor messages { cursor } } }"


@pytest.fixture
def own_hub(database_url: str, tmp_path: Path) -> Iterator[ServedHub]:
    """A hub on a database that the test can reach too."""
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    create_key_pair(private, public)
    keys = {"XZEPR__JWT__PRIVATE_KEY_PATH": str(private), "XZEPR__JWT__PUBLIC_KEY_PATH": str(public)}
    hub = ServedHub.start(tmp_path / "data", "--database-url", database_url, environ=keys)
    try:
        yield hub
    finally:
        hub.stop()


@dataclass(frozen=True, slots=True)
class Late:
    """A consumer who has seen the first of ten messages, of which retention has taken six."""

    client: Client
    cursors: list[str]

    @property
    def expired(self) -> str:
        return self.cursors[0]

    @property
    def oldest(self) -> str:
        return self.cursors[5]


@pytest.fixture
async def late(own_hub: ServedHub, database_url: str) -> Late:
    client = await Client(own_hub.url).logged_in("admin", own_hub.admin_password)
    for number in range(10):
        await client.receiver(f"r{number}")
    cursors = [one["cursor"] for one in (await client(PAGE)).data["stream"]["messages"]]
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute("UPDATE messages SET time = time - interval '2 hours' WHERE position <= 6")
    db = Database(database_url, DatabaseSettings(min_connections=1, max_connections=2), name="test")
    await db.open()
    await Retention(db, timedelta(hours=1), None).enforce()
    await db.close()
    return Late(client, cursors)


def _told(late: Late, errors: list[dict[str, Any]]) -> None:
    [error] = errors
    assert error["extensions"] == {"code": "CURSOR_EXPIRED", "oldestCursor": late.oldest}
    assert late.oldest in error["message"]


async def test_every_transport_reports_the_oldest_cursor(late: Late, stranger: Person) -> None:
    await _by_pages(late)
    _told(late, await _refused_socket(late))
    _told(late, await _refused_events(late, None, late.expired))
    _told(late, await _refused_events(late, late.expired, late.oldest))
    async with late.client.socket(after=late.oldest) as frames:
        assert [frame["cursor"] for frame in await frames.messages(4)] == late.cursors[6:]
    async with late.client.events(last_event_id=late.oldest) as frames:
        assert [frame["cursor"] for frame in await frames.messages(4)] == late.cursors[6:]
    status = (await late.client("{ streamStatus { position cursor oldestCursor } }")).data["streamStatus"]
    assert status == {"position": 10, "cursor": late.cursors[9], "oldestCursor": late.oldest}
    stranger.hub = late.client.url
    stranger.log_in("admin", ADMIN_PASSWORD)
    _by_the_command_line(late, stranger)


async def _by_pages(late: Late) -> None:
    answer = await late.client(PAGE, after=late.expired)
    assert (answer.status, answer.body["data"]) == (200, {"stream": None})
    _told(late, [{name: answer.errors[0][name] for name in ("message", "extensions")}])
    for after in (late.oldest, None):
        page = (await late.client(PAGE, after=after)).data["stream"]
        assert [one["cursor"] for one in page["messages"]] == late.cursors[6:]


async def _refused_socket(late: Late) -> list[dict[str, Any]]:
    url = late.client.url.replace("http://", "ws://") + "/graphql"
    async with connect(url, subprotocols=[Subprotocol("graphql-transport-ws")], proxy=None) as socket:
        await socket.send(json.dumps({"type": "connection_init", "payload": {"token": late.client.token}}))
        await socket.recv()
        payload = {"query": STREAM, "variables": {"after": late.expired}}
        await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
        answer = json.loads(await socket.recv())
    assert (answer["id"], answer["type"]) == ("1", "error")
    return answer["payload"]


async def _refused_events(late: Late, last_event_id: str | None, after: str) -> list[dict[str, Any]]:
    headers = {"Accept": "text/event-stream", **late.client.headers}
    if last_event_id is not None:
        headers["Last-Event-ID"] = last_event_id
    async with httpx2.AsyncClient(timeout=20, trust_env=False) as http:
        body = {"query": STREAM, "variables": {"after": after}}
        answer = await http.post(f"{late.client.url}/graphql", json=body, headers=headers)
    [data] = [line for line in answer.text.splitlines() if line.startswith("data: ")]
    assert "event: complete" in answer.text
    return json.loads(data.removeprefix("data: "))["errors"]


def _by_the_command_line(late: Late, stranger: Person) -> None:
    refused = stranger("events", "tail", "--after", late.expired)
    assert (refused.code, refused.out) == (1, "")
    assert f"go on after {late.oldest}" in refused.err
    assert "`--from-start` shows all that is left" in refused.err
    for way in (("--after", late.oldest), ("--from-start",)):
        done = stranger("events", "tail", *way, "--limit", "4", "--json")
        assert [json.loads(line)["cursor"] for line in done.out.splitlines()] == late.cursors[6:]
    assert stranger("stream", "status", "--json").json["oldestCursor"] == late.oldest
    assert f"oldest\t6\t{late.oldest}" in stranger("stream", "status").out
