"""Open connections of two processes on one database: who loses their credential in one is sent away by both."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.api.graphql_server.small_schema import served
from tests.support.hub import hub_on
from xzepr.app import create_app
from xzepr.core.actor import SYSTEM, Actor, ActorKind, Role, permissions_of
from xzepr.features.auth import service
from xzepr.features.auth.model import NewApiKey
from xzepr.features.users.model import NewUser, User
from xzepr.hub import Hub
from xzepr.processes import running
from xzepr.settings import Settings

PASSWORD = "correct horse battery"
WITHIN_SECONDS = 5.0
FOLLOW = "subscription { stream { __typename } }"
HOUR = 3600
SETTINGS: dict[str, Any] = {"database": {"min_connections": 1, "max_connections": 4}, "kafka": {"enabled": False}}


@dataclass(frozen=True, slots=True)
class Processes:
    """Two hubs, their ports, and a user of theirs."""

    hubs: tuple[Hub, Hub]
    ports: tuple[int, int]
    user: User
    actor: Actor

    @property
    def auth(self) -> Any:
        """Logins and keys, as the first process knows them."""
        return self.hubs[0].auth


@asynccontextmanager
async def two_processes(database_url: str, **settings: Any) -> AsyncGenerator[Processes]:
    """As two `xzepr serve` on one database, in this process."""
    given = Settings.model_validate(SETTINGS | settings)
    async with AsyncExitStack() as open:
        hubs = [await open.enter_async_context(hub_on(given, database_url)) for _ in range(2)]
        for hub in hubs:
            await open.enter_async_context(running(hub))
        ports = [await open.enter_async_context(served(create_app(hub))) for hub in hubs]
        await hubs[0].users.create(SYSTEM, NewUser("root", PASSWORD, (Role.ADMIN,)))
        user = await hubs[0].users.create(SYSTEM, NewUser("ada", PASSWORD, (Role.EVENT_VIEWER,)))
        actor = Actor(ActorKind.USER, user.id, user.username, permissions_of(user.roles))
        yield Processes((hubs[0], hubs[1]), (ports[0], ports[1]), user, actor)


@pytest.fixture
async def processes(database_url: str) -> AsyncGenerator[Processes]:
    async with two_processes(database_url) as both:
        yield both


@asynccontextmanager
async def following(port: int, secret: str) -> AsyncGenerator[ClientConnection]:
    """A socket that follows the stream, past its first frame."""
    protocols = [Subprotocol("graphql-transport-ws")]
    async with connect(f"ws://127.0.0.1:{port}/graphql", subprotocols=protocols) as socket:
        await socket.send(json.dumps({"type": "connection_init", "payload": {"token": secret}}))
        assert json.loads(await socket.recv()) == {"type": "connection_ack"}
        await socket.send(json.dumps({"type": "subscribe", "id": "a", "payload": {"query": FOLLOW}}))
        assert json.loads(await socket.recv())["type"] == "next"
        yield socket


async def closed(socket: ClientConnection) -> int | None:
    """The code with which the server closes."""
    try:
        while True:
            await socket.recv()
    except ConnectionClosed:
        return socket.close_code


async def ended(response: httpx2.Response) -> str:
    """The code of the error with which an event stream ends."""
    text = "".join([part async for part in response.aiter_text()])
    assert text.endswith("event: complete\ndata:\n\n")
    told = [line for line in text.splitlines() if line.startswith("data: ")][-1]
    return str(json.loads(told.removeprefix("data: "))["errors"][0]["extensions"]["code"])


async def all_are_sent_away(processes: Processes, secret: str, lose: Callable[[], Awaitable[object]]) -> list[object]:
    """How a socket and a stream in each process end within 5 s of the loss."""
    headers = {"Authorization": f"Bearer {secret}", "Accept": "text/event-stream"}
    async with AsyncExitStack() as open:
        client = await open.enter_async_context(httpx2.AsyncClient(timeout=30))
        sockets = [await open.enter_async_context(following(port, secret)) for port in processes.ports]
        streams = [
            await open.enter_async_context(
                client.stream("POST", f"http://127.0.0.1:{port}/graphql", json={"query": FOLLOW}, headers=headers)
            )
            for port in processes.ports
        ]
        assert [stream.status_code for stream in streams] == [200, 200]
        await lose()
        begun = time.monotonic()
        ends = await asyncio.wait_for(asyncio.gather(*map(closed, sockets), *map(ended, streams)), 30)
        assert time.monotonic() - begun < WITHIN_SECONDS
    return list(ends)


async def test_revoked_key_is_disconnected_by_every_process(processes: Processes) -> None:
    key = await processes.auth.create_api_key(processes.actor, NewApiKey("one"))
    ends = await all_are_sent_away(
        processes, key.secret, lambda: processes.auth.revoke_api_key(processes.actor, key.key.id)
    )
    assert ends == [4403, 4403, "INVALID_TOKEN", "INVALID_TOKEN"]


async def test_disabled_user_is_disconnected_by_every_process(processes: Processes) -> None:
    token = (await processes.auth.login("ada", PASSWORD)).token
    ends = await all_are_sent_away(
        processes, token, lambda: processes.hubs[1].users.set_enabled(SYSTEM, processes.user.id, False)
    )
    assert ends == [4403, 4403, "INVALID_TOKEN", "INVALID_TOKEN"]


@pytest.fixture
def put_forward(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Puts the clock by which credentials expire so many seconds ahead of the real one."""
    real = time.time

    def put(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: real() + seconds)
        monkeypatch.setattr(service, "now", lambda: datetime.fromtimestamp(time.time(), UTC))

    return put


async def test_expired_key_is_disconnected(processes: Processes, put_forward: Callable[[float], None]) -> None:
    async def expires() -> None:
        put_forward(HOUR)

    ends_at = datetime.now(UTC) + timedelta(seconds=HOUR)
    key = await processes.auth.create_api_key(processes.actor, NewApiKey("short", None, ends_at))
    ends = await all_are_sent_away(processes, key.secret, expires)
    assert ends == [4403, 4403, "INVALID_TOKEN", "INVALID_TOKEN"]


async def test_expired_token_is_disconnected_unless_renewed(
    database_url: str, put_forward: Callable[[float], None]
) -> None:
    async with two_processes(database_url, jwt={"access_token_expiration": HOUR}) as processes:
        session = await processes.auth.login("ada", PASSWORD)
        async with following(processes.ports[1], session.token) as renewing:

            async def expires() -> None:
                put_forward(HOUR / 2)
                fresh = (await processes.auth.login("ada", PASSWORD)).token
                await renewing.send(json.dumps({"type": "ping", "payload": {"token": fresh}}))
                assert json.loads(await renewing.recv()) == {"type": "pong", "payload": {"renewed": True}}
                put_forward(HOUR)

            ends = await all_are_sent_away(processes, session.token, expires)
            assert ends == [4403, 4403, "TOKEN_EXPIRED", "TOKEN_EXPIRED"]
            await renewing.send('{"type": "ping"}')
            assert json.loads(await renewing.recv()) == {"type": "pong"}
            put_forward(2 * HOUR)
            assert await asyncio.wait_for(closed(renewing), 30) == 4403
