"""A small GraphQL schema behind the hub's own transports, and a real server for it on a free port."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import NewType, Protocol

import orjson
import strawberry
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from strawberry.dataloader import DataLoader
from strawberry.schema.config import StrawberryConfig
from strawberry.types import Info

from xzepr.api.drain import Drain
from xzepr.api.graphql_server.documents import DocumentLimits, Documents
from xzepr.api.graphql_server.http import GraphQLOverHTTP
from xzepr.api.graphql_server.limits import ConnectionLimiter, ConnectionLimits, SocketLimits
from xzepr.api.graphql_server.operations import GraphQLService
from xzepr.api.graphql_server.plans.execution import core_schema
from xzepr.api.graphql_server.sessions import Sessions
from xzepr.api.graphql_server.websocket import GraphQLOverWebSocket
from xzepr.api.hosts import AllowedHosts, AllowedOrigins, host_check
from xzepr.api.shell import Concerns, Shell, length_check
from xzepr.core.actor import Actor, ActorKind, Permission
from xzepr.core.errors import (
    InvalidInput,
    InvalidToken,
    NotFound,
    Overloaded,
    RateLimited,
    StreamDiverged,
    TokenExpired,
    Unavailable,
    Violation,
)
from xzepr.features.auth.model import TicketHolder
from xzepr.server.uvicorn_http import HttpProtocol
from xzepr.server.uvicorn_protocols import WebSocketProtocol

ADA = Actor(ActorKind.USER, "01ADA", "ada", frozenset(Permission))
BEARER = {"Authorization": "Bearer good"}
JSON = NewType("JSON", object)


@dataclass
class FakeBackend:
    """The state behind the resolvers and transports, for tests to inspect and control."""

    contexts: list["Context"] = field(default_factory=lambda: list["Context"]())
    recorded: list[str] = field(default_factory=lambda: list[str]())
    loads: list[list[int]] = field(default_factory=lambda: list[list[int]]())
    stream_closed: asyncio.Event = field(default_factory=asyncio.Event)
    may_record: asyncio.Event = field(default_factory=asyncio.Event)
    recording: asyncio.Event = field(default_factory=asyncio.Event)
    operation_observed: asyncio.Event = field(default_factory=asyncio.Event)
    drain: Drain = field(default_factory=Drain)
    sent: int = 0
    """Number of ticks that resolvers have yielded."""
    observed: list[tuple[str, str]] = field(default_factory=lambda: list[tuple[str, str]]())
    subscribers: Counter[str] = field(default_factory=lambda: Counter[str]())
    token_states: dict[str, str] = field(default_factory=lambda: dict[str, str]())
    """The state that a token has changed to: `token_states["good"] = "old"`."""
    lookups: Counter[str] = field(default_factory=lambda: Counter[str]())
    """How often each token was presented."""
    tickets: Counter[str] = field(default_factory=lambda: Counter({"ticket": 1}))
    """How often each ticket may still be used."""

    def observe(self, operation_type: str, outcome: str, seconds: float) -> None:
        """Records the operation's type and outcome."""
        self.observed.append((operation_type, outcome))
        self.operation_observed.set()

    def subscription_started(self, transport: str) -> None:
        """Counts a new subscriber."""
        self.subscribers[transport] += 1

    def subscription_ended(self, transport: str) -> None:
        """Counts a subscriber that has left."""
        self.subscribers[transport] -= 1

    async def authenticate(self, secret: str) -> Actor:
        """Returns the actor of a token in its current state. The lookup of a `slow` token never ends."""
        self.lookups[secret] += 1
        state = self.token_states.get(secret, secret)
        if state == "slow":
            await asyncio.Event().wait()
        return _actor_in_state(state)

    async def redeem_stream_ticket(self, ticket: str) -> TicketHolder:
        """Redeems `ticket`, which is Ada's and can be used once."""
        if self.tickets[ticket] == 0:
            raise InvalidToken()
        self.tickets[ticket] -= 1
        return TicketHolder(ADA.id, None, None)

    async def actor_by_ticket(self, holder: TicketHolder) -> Actor:
        """Returns the actor of the token that requested the ticket."""
        return await self.authenticate("good")


class Context:
    """Like the hub's context: created for one operation or one message, with its own loader."""

    def __init__(
        self,
        backend: FakeBackend,
        actor: Actor,
        request_id: str,
        extensions: Mapping[str, object],
        last_event_id: str | None,
    ) -> None:
        self.backend = backend
        self.actor = actor
        self.request_id = request_id
        self.extensions = extensions
        self.last_event_id = last_event_id
        self.squares = DataLoader(self._load)

    async def _load(self, keys: list[int]) -> list[int]:
        self.backend.loads.append(list(keys))
        await asyncio.sleep(0)
        return [key * key for key in keys]


class _HasId(Protocol):
    id: int


def _square(root: strawberry.Parent[_HasId], info: Info[Context, None]) -> Awaitable[int]:
    return info.context.squares.load(root.id)


async def _own(root: strawberry.Parent[_HasId]) -> int:
    if root.id == 2:
        raise NotFound("row", str(root.id))
    await asyncio.sleep(0)
    return root.id


@strawberry.type
class SquareRow:
    """A row whose square comes from a loader that all rows share. The `own` field of row 2 fails."""

    id: int
    square: int = strawberry.field(resolver=_square, graphql_type=int)
    own: int = strawberry.field(resolver=_own)


@strawberry.type
class Tick:
    """A message of the stream."""

    id: int
    cursor: str
    square: int = strawberry.field(resolver=_square, graphql_type=int)
    text: str = "x" * 2000


@strawberry.input
class Thing:
    """An input."""

    name: str
    tags: list[int]


@strawberry.type
class Query:
    """Fields that succeed or fail in different ways."""

    @strawberry.field
    def hello(self, name: str = "world") -> str:
        """A greeting."""
        return f"hello {name}"

    @strawberry.field
    def me(self, info: Info[Context, None]) -> str:
        """The caller's name."""
        return info.context.actor.name

    @strawberry.field
    def at(self) -> datetime:
        """A time."""
        return datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    @strawberry.field
    def raw(self) -> JSON:
        """Raw JSON that is written without being parsed."""
        return JSON(orjson.Fragment(b'{"b":1.10,"a":[]}'))

    @strawberry.field
    def unwritable(self) -> JSON:
        """A value that JSON cannot hold."""
        return JSON(object())

    @strawberry.field
    def broken(self) -> str | None:
        """An internal error."""
        raise RuntimeError("the password is hunter2")

    @strawberry.field
    def missing(self) -> str | None:
        """A NotFound error."""
        raise NotFound("event", "01X", field="id")

    @strawberry.field
    def busy(self) -> str | None:
        """An Overloaded error."""
        raise Overloaded("too busy", retry_after=1.5)

    @strawberry.field
    def limited(self) -> str | None:
        """A RateLimited error."""
        raise RateLimited("too often", retry_after=30)

    @strawberry.field
    def rows(self) -> list[SquareRow | None]:
        """Rows of which the second fails."""
        return [SquareRow(id=1), SquareRow(id=2), SquareRow(id=3)]

    @strawberry.field
    async def never(self) -> str:
        """Never returns."""
        await asyncio.Event().wait()
        return ""


@strawberry.type
class Mutation:
    """Changes."""

    @strawberry.mutation
    def login(self, name: str) -> str:
        """Open to anyone."""
        return f"token of {name}"

    @strawberry.mutation
    def create(self, thing: Thing) -> str:
        """Rejects empty names."""
        if not thing.name:
            raise InvalidInput((Violation("name", "name is empty"), Violation("tags/0", "no such tag")))
        return thing.name

    @strawberry.mutation
    async def record(self, info: Info[Context, None], name: str) -> str:
        """Records the name once the test allows it."""
        backend = info.context.backend
        backend.recording.set()
        await backend.may_record.wait()
        backend.recorded.append(name)
        return name


@strawberry.type
class Subscription:
    """Streams."""

    @strawberry.subscription
    async def ticks(
        self, info: Info[Context, None], count: int = 3, after: str | None = None, pause: bool = False
    ) -> AsyncGenerator[Tick, None]:
        """Ticks after a number. With `pause`, the stream then stays open without further ticks."""
        start = int(info.context.last_event_id or after or 0)
        if start >= 1000:
            raise StreamDiverged("no such message")
        try:
            for n in range(start + 1, start + count + 1):
                info.context.backend.sent += 1
                yield Tick(id=n, cursor=str(n))
            if pause:
                await asyncio.Event().wait()
        finally:
            info.context.backend.stream_closed.set()

    @strawberry.subscription
    async def breaking(self) -> AsyncGenerator[int, None]:
        """Fails after the first message."""
        yield 1
        raise RuntimeError("the password is hunter2")

    @strawberry.subscription
    def rejected(self) -> AsyncGenerator[int, None]:
        """Fails before the first message."""
        raise NotFound("thing", "x")


SCHEMA = strawberry.Schema(
    Query,
    Mutation,
    Subscription,
    config=StrawberryConfig(scalar_map={JSON: strawberry.scalar(name="JSON", serialize=lambda value: value)}),
)


def _actor_in_state(state: str) -> Actor:
    """Returns the actor of a token. Raises an error for tokens that are invalid, expired or cannot be checked."""
    match state:
        case "good" | "fresh":
            return ADA
        case "narrow":
            return replace(ADA, permissions=frozenset({Permission.EVENT_READ}))
        case "bob":
            return replace(ADA, id="01BOB", name="bob")
        case "old":
            raise TokenExpired()
        case "offline":
            raise Unavailable("the database cannot be reached")
        case "broken":
            raise RuntimeError("the password is hunter2")
        case _:
            raise InvalidToken()


def service(backend: FakeBackend, limits: DocumentLimits | None = None, cache_size: int = 100) -> GraphQLService:
    """Returns a GraphQL service for the small schema."""

    def new_context(
        actor: Actor, request_id: str, extensions: Mapping[str, object], last_event_id: str | None
    ) -> Context:
        context = Context(backend, actor, request_id, extensions, last_event_id)
        backend.contexts.append(context)
        return context

    schema = core_schema(SCHEMA)
    documents = Documents(schema, limits or DocumentLimits(), cache_size)
    return GraphQLService(
        schema=schema,
        documents=documents,
        authenticate=backend.authenticate,
        new_context=new_context,
        public_mutations=frozenset({"login"}),
        observe=backend.observe,
        drain=backend.drain,
    )


def app(
    backend: FakeBackend,
    *,
    limits: DocumentLimits | None = None,
    sockets: SocketLimits | None = None,
    connection_limits: ConnectionLimits | None = None,
    heartbeat_seconds: float = 12,
    stalled_seconds: float = 300,
    timeout_seconds: float = 10,
    max_bytes: int = 1_000_000,
    origins: tuple[str, ...] = (),
    hosts: tuple[str, ...] = ("hub",),
) -> ASGIApp:
    """Returns an application that serves GraphQL at every path, inside the shell."""
    graphql = service(backend, limits)
    sessions = Sessions(backend.authenticate, backend, interval_seconds=0.02, timeout_seconds=0.05)
    limiter = ConnectionLimiter(connection_limits, backend)
    http = GraphQLOverHTTP(
        service=graphql,
        sessions=sessions,
        limiter=limiter,
        max_bytes=max_bytes,
        heartbeat_seconds=heartbeat_seconds,
        stalled_seconds=stalled_seconds,
    )
    websocket = GraphQLOverWebSocket(
        service=graphql,
        origins=AllowedOrigins(origins),
        sessions=sessions,
        limiter=limiter,
        limits=sockets or SocketLimits(),
    )

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        await (websocket if scope["type"] == "websocket" else http)(scope, receive, send)

    return Shell(
        endpoint,
        Concerns(
            checks=[host_check(AllowedHosts(hosts)), length_check(max_bytes)], decorate=[backend.drain.close_connection]
        ),
        max_bytes=max_bytes,
        timeout_seconds=timeout_seconds,
    )


@asynccontextmanager
async def served(asgi: ASGIApp) -> AsyncGenerator[int]:
    """Serves the application on a real server while the block runs; yields the port."""
    server = uvicorn.Server(
        uvicorn.Config(
            asgi,
            "127.0.0.1",
            0,
            lifespan="off",
            log_config=None,
            http=HttpProtocol,
            ws=WebSocketProtocol,
            ws_ping_interval=None,
        )
    )
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.01)
            if serving.done():
                serving.result()
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        server.force_exit = True
        await serving
