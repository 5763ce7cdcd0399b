"""A stand-in hub for the playground: sign-in, one mutation, one query and one subscription, all in memory."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import strawberry
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.exceptions import ConnectionRejectionError
from strawberry.schema.config import StrawberryConfig

from xzepr.api.console.playground import playground_routes

PASSWORD = "correct horse battery"
TOKEN = "token-of-the-stand-in"
API_KEY = "xzepr_" + "a" * 64


@dataclass
class Memory:
    """What the stand-in remembers."""

    events: list["Event"] = field(default_factory=list["Event"])
    watchers: list["asyncio.Queue[Event]"] = field(default_factory=list["asyncio.Queue[Event]"])


Info = strawberry.Info[dict[str, Any], Memory]


@strawberry.type
class User:
    username: str


@strawberry.type
class LoginPayload:
    token: str
    expires_at: datetime
    user: User


@strawberry.input
class LoginInput:
    username: str
    password: str


@strawberry.type
class Event:
    id: strawberry.ID
    name: str
    version: str
    success: bool


@strawberry.input
class CreateEventInput:
    name: str
    version: str
    success: bool


@strawberry.type
class CreateEventPayload:
    event: Event
    cursor: str
    repeated: bool


@strawberry.interface
class StreamMessage:
    cursor: str


@strawberry.type
class Checkpoint(StreamMessage):
    pass


@strawberry.type
class EventRecorded(StreamMessage):
    id: strawberry.ID
    kind: str
    time: datetime
    event: Event


@strawberry.type
class Group:
    name: str


@strawberry.type
class GateCompleted(StreamMessage):
    id: strawberry.ID
    kind: str
    time: datetime
    event_receiver_group: Group


@strawberry.type
class Query:
    @strawberry.field
    def me(self, info: Info) -> User:
        """Who is asking."""
        must_be_signed_in(info)
        return User(username="admin")

    @strawberry.field
    def events(self, info: Info) -> list[Event]:
        """Every event."""
        must_be_signed_in(info)
        return info.root_value.events


@strawberry.type
class Mutation:
    @strawberry.mutation
    def login(self, input: LoginInput) -> LoginPayload:
        """A token for the right password."""
        if input.password != PASSWORD:
            raise PermissionError("The user name or password is wrong.")
        return LoginPayload(
            token=TOKEN, expires_at=datetime.now(UTC) + timedelta(minutes=15), user=User(username=input.username)
        )

    @strawberry.mutation
    def create_event(self, info: Info, input: CreateEventInput) -> CreateEventPayload:
        """Remember an event and tell who watches."""
        must_be_signed_in(info)
        memory = info.root_value
        event = Event(
            id=strawberry.ID(f"E{len(memory.events) + 1}"),
            name=input.name,
            version=input.version,
            success=input.success,
        )
        memory.events.append(event)
        for watcher in memory.watchers:
            watcher.put_nowait(event)
        return CreateEventPayload(event=event, cursor=f"{len(memory.events)}-X", repeated=False)


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def stream(self, info: Info) -> AsyncGenerator[StreamMessage, None]:
        """A checkpoint, then what is recorded from now on."""
        memory = info.root_value
        queue: asyncio.Queue[Event] = asyncio.Queue()
        memory.watchers.append(queue)
        yield Checkpoint(cursor=f"{len(memory.events)}-X")
        while True:
            event = await queue.get()
            yield EventRecorded(
                cursor=f"{len(memory.events)}-X",
                id=strawberry.ID(f"M{event.id}"),
                kind="event.recorded",
                time=datetime.now(UTC),
                event=event,
            )


def must_be_signed_in(info: Info) -> None:
    """Refuse a request whose bearer is neither the token nor the API key."""
    if info.context["request"].headers.get("authorization") not in {f"Bearer {TOKEN}", f"Bearer {API_KEY}"}:
        raise PermissionError("Sign in first.")


class Endpoint(GraphQL[dict[str, Any], Memory]):
    """GraphQL over HTTP and WebSocket, as the hub has them at one path."""

    def __init__(self, memory: Memory) -> None:
        schema = strawberry.Schema(
            query=Query,
            mutation=Mutation,
            subscription=Subscription,
            types=[Checkpoint, EventRecorded, GateCompleted],
            config=StrawberryConfig(auto_camel_case=True),
        )
        super().__init__(schema, graphql_ide=None)
        self.memory = memory

    async def get_root_value(self, request: Request | WebSocket) -> Memory:
        """The memory, for resolvers."""
        return self.memory

    async def on_ws_connect(self, context: dict[str, Any]) -> None:
        """Take only the token, and only from connection_init."""
        if context["connection_params"].get("authorization") != f"Bearer {TOKEN}":
            raise ConnectionRejectionError


def stand_in_app() -> Starlette:
    """The playground beside a GraphQL endpoint that behaves as the hub's does."""
    endpoint = Endpoint(Memory())
    return Starlette(routes=[Route("/graphql", endpoint), WebSocketRoute("/graphql", endpoint), *playground_routes()])


@contextmanager
def stand_in_hub() -> Generator[str]:
    """The address of a stand-in that listens on a free port of this machine."""
    server = uvicorn.Server(uvicorn.Config(stand_in_app(), port=0, log_level="error", timeout_graceful_shutdown=1))
    thread = Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
