"""Connections to two processes on one database, which both close them once the credential is invalid."""

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
from xzepr.server.loops import serving_loops
from xzepr.settings import Settings

PASSWORD = "correct horse battery"
WITHIN_SECONDS = 5.0
FOLLOW = "subscription { stream { __typename } }"
HOUR = 3600
SETTINGS: dict[str, Any] = {"database": {"min_connections": 1, "max_connections": 4}, "kafka": {"enabled": False}}


@dataclass(frozen=True, slots=True)
class Processes:
    """Two hubs, their ports, and a user of both."""

    hubs: tuple[Hub, Hub]
    ports: tuple[int, int]
    user: User
    actor: Actor

    @property
    def auth(self) -> Any:
        """The logins and API keys of the first process."""
        return self.hubs[0].auth


@asynccontextmanager
async def two_processes(database_url: str, **settings: Any) -> AsyncGenerator[Processes]:
    """Runs two hubs on one database in this process, like two `xzepr serve`."""
    loaded = Settings.model_validate(SETTINGS | settings)
    async with AsyncExitStack() as stack:
        hubs = [await stack.enter_async_context(hub_on(loaded, database_url)) for _ in range(2)]
        for hub in hubs:
            await stack.enter_async_context(serving_loops(hub))
        ports = [await stack.enter_async_context(served(create_app(hub))) for hub in hubs]
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
    """Yields a socket that subscribes to the stream and has received its first message."""
    protocols = [Subprotocol("graphql-transport-ws")]
    async with connect(f"ws://127.0.0.1:{port}/graphql", subprotocols=protocols) as socket:
        await socket.send(json.dumps({"type": "connection_init", "payload": {"token": secret}}))
        assert json.loads(await socket.recv()) == {"type": "connection_ack"}
        await socket.send(json.dumps({"type": "subscribe", "id": "a", "payload": {"query": FOLLOW}}))
        assert json.loads(await socket.recv())["type"] == "next"
        yield socket


async def close_code_of(socket: ClientConnection) -> int | None:
    """Returns the code with which the server closes."""
    try:
        while True:
            await socket.recv()
    except ConnectionClosed:
        return socket.close_code


async def error_code_of(response: httpx2.Response) -> str:
    """Returns the code of the error with which an event stream ends."""
    text = "".join([chunk async for chunk in response.aiter_text()])
    assert text.endswith("event: complete\ndata:\n\n")
    data = [line for line in text.splitlines() if line.startswith("data: ")][-1]
    return str(json.loads(data.removeprefix("data: "))["errors"][0]["extensions"]["code"])


async def disconnections(
    processes: Processes, secret: str, invalidate: Callable[[], Awaitable[object]]
) -> list[object]:
    """Returns how a socket and a stream in each process end, within 5 s of the loss of the credential."""
    headers = {"Authorization": f"Bearer {secret}", "Accept": "text/event-stream"}
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx2.AsyncClient(timeout=30))
        sockets = [await stack.enter_async_context(following(port, secret)) for port in processes.ports]
        streams = [
            await stack.enter_async_context(
                client.stream("POST", f"http://127.0.0.1:{port}/graphql", json={"query": FOLLOW}, headers=headers)
            )
            for port in processes.ports
        ]
        assert [stream.status_code for stream in streams] == [200, 200]
        await invalidate()
        started = time.monotonic()
        ends = await asyncio.wait_for(asyncio.gather(*map(close_code_of, sockets), *map(error_code_of, streams)), 30)
        assert time.monotonic() - started < WITHIN_SECONDS
    return list(ends)


async def test_revoked_key_is_disconnected_by_every_process(processes: Processes) -> None:
    key = await processes.auth.create_api_key(processes.actor, NewApiKey("one"))
    ends = await disconnections(
        processes, key.secret, lambda: processes.auth.revoke_api_key(processes.actor, key.key.id)
    )
    assert ends == [4403, 4403, "INVALID_TOKEN", "INVALID_TOKEN"]


async def test_disabled_user_is_disconnected_by_every_process(processes: Processes) -> None:
    token = (await processes.auth.login("ada", PASSWORD)).token
    ends = await disconnections(
        processes, token, lambda: processes.hubs[1].users.set_enabled(SYSTEM, processes.user.id, False)
    )
    assert ends == [4403, 4403, "INVALID_TOKEN", "INVALID_TOKEN"]


@pytest.fixture
def advance_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock by which credentials expire ahead of the real one, by a number of seconds."""
    real = time.time

    def advance(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: real() + seconds)
        monkeypatch.setattr(service, "now", lambda: datetime.fromtimestamp(time.time(), UTC))

    return advance


async def test_expired_key_is_disconnected(processes: Processes, advance_clock: Callable[[float], None]) -> None:
    async def expire() -> None:
        advance_clock(HOUR)

    ends_at = datetime.now(UTC) + timedelta(seconds=HOUR)
    key = await processes.auth.create_api_key(processes.actor, NewApiKey("short", None, ends_at))
    ends = await disconnections(processes, key.secret, expire)
    assert ends == [4403, 4403, "INVALID_TOKEN", "INVALID_TOKEN"]


async def test_expired_token_is_disconnected_unless_renewed(
    database_url: str, advance_clock: Callable[[float], None]
) -> None:
    async with two_processes(database_url, jwt={"access_token_expiration": HOUR}) as processes:
        session = await processes.auth.login("ada", PASSWORD)
        async with following(processes.ports[1], session.token) as renewing:

            async def expire() -> None:
                advance_clock(HOUR / 2)
                fresh = (await processes.auth.login("ada", PASSWORD)).token
                await renewing.send(json.dumps({"type": "ping", "payload": {"token": fresh}}))
                assert json.loads(await renewing.recv()) == {"type": "pong", "payload": {"renewed": True}}
                advance_clock(HOUR)

            ends = await disconnections(processes, session.token, expire)
            assert ends == [4403, 4403, "TOKEN_EXPIRED", "TOKEN_EXPIRED"]
            await renewing.send('{"type": "ping"}')
            assert json.loads(await renewing.recv()) == {"type": "pong"}
            advance_clock(2 * HOUR)
            assert await asyncio.wait_for(close_code_of(renewing), 30) == 4403
