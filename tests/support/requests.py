"""A client of a complete hub in this process, which sends requests to its ASGI application."""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import orjson

from tests.support.hub import hub_on
from xzepr.app import create_app
from xzepr.core.actor import SYSTEM, Actor, ActorKind, Permission, Role, permissions_of
from xzepr.features.auth.model import NewApiKey
from xzepr.features.users.model import NewUser
from xzepr.hub import Hub
from xzepr.server.loops import serving_loops
from xzepr.settings import Settings

PASSWORD = "correct horse battery"
ADMIN = "ada"
# A unit as it is in the variables of a request.
UNIT = {"name": "app", "version": "1.0.0", "release": "1", "platformId": "linux", "package": "rpm"}

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Response:
    """A response: its status and its raw body, with access to the parsed body."""

    status: int
    raw: bytes

    @property
    def data(self) -> Json:
        """The data of a response. Fails on errors."""
        assert "errors" not in self.body, self.body["errors"]
        return self.body["data"]

    @property
    def body(self) -> Json:
        """The whole body, parsed."""
        return orjson.loads(self.raw)

    @property
    def errors(self) -> list[Json]:
        """The errors; empty if there are none."""
        return self.body.get("errors", [])

    @property
    def codes(self) -> list[str]:
        """The codes of the errors, in order."""
        return [error["extensions"]["code"] for error in self.errors]

    @property
    def fields(self) -> list[str | None]:
        """The input fields that the errors name, in order."""
        return [error["extensions"].get("field") for error in self.errors]


@dataclass(frozen=True, slots=True)
class InProcessClient:
    """Sends requests to a hub in this process."""

    hub: Hub
    http: httpx2.AsyncClient
    admin: Actor
    """A user with every permission."""
    secret: str
    """An API key with all permissions of the administrator."""

    async def __call__(self, query: str, *, secret: str | None = None, **variables: object) -> Response:
        """Executes a document with these variables.

        `secret`: the credential, by default the administrator's API key; empty for an anonymous request.
        """
        return await self.send(orjson.dumps({"query": query, "variables": variables}), secret=secret)

    async def send(self, body: bytes, *, secret: str | None = None) -> Response:
        """Sends this exact body."""
        secret = self.secret if secret is None else secret
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {secret}"} if secret else {})
        response = await self.http.post("/graphql", content=body, headers=headers)
        return Response(response.status_code, response.content)

    async def key(self, permissions: Iterable[Permission]) -> str:
        """Creates an API key with exactly these permissions and returns its secret."""
        return (await self.hub.auth.create_api_key(self.admin, NewApiKey("key", tuple(permissions)))).secret

    async def token(self) -> str:
        """Logs the administrator in and returns the token."""
        return (await self.hub.auth.login(ADMIN, PASSWORD)).token

    async def receiver(self, name: str = "build", schema: object = None, **fields: object) -> str:
        """Creates a receiver and returns its id. Its default schema accepts every payload."""
        values = {"name": name, "type": "test", "version": "1", "description": "made by a test", **fields}
        response = await self(
            "mutation ($input: CreateEventReceiverInput!)"
            "{ createEventReceiver(input: $input) { eventReceiver { id } } }",
            input={**values, "schema": {} if schema is None else schema},
        )
        return response.data["createEventReceiver"]["eventReceiver"]["id"]

    async def group(self, *receiver_ids: str, name: str = "gate", **fields: object) -> str:
        """Creates a group and returns its id."""
        values = {"name": name, "type": "test", "version": "1", "description": "made by a test", **fields}
        response = await self(
            "mutation ($input: CreateEventReceiverGroupInput!)"
            "{ createEventReceiverGroup(input: $input) { eventReceiverGroup { id }}}",
            input={**values, "eventReceiverIds": receiver_ids},
        )
        return response.data["createEventReceiverGroup"]["eventReceiverGroup"]["id"]

    async def event(self, receiver_id: str, **fields: object) -> Json:
        """Records an event and returns its id and cursor."""
        response = await self(
            "mutation ($input: CreateEventInput!) { createEvent(input: $input) { cursor event { id } } }",
            input=new_event(receiver_id, **fields),
        )
        created = response.data["createEvent"]
        return {"id": created["event"]["id"], "cursor": created["cursor"]}


def new_event(receiver_id: str, **fields: object) -> Json:
    """Returns the input of an event, with defaults for all fields but the receiver."""
    defaults: Json = {**UNIT, "description": "made by a test", "payload": {}, "success": True}
    return {**defaults, "eventReceiverId": receiver_id, **fields}


@asynccontextmanager
async def in_process_client(
    database_url: str,
    settings: Mapping[str, object] | None = None,
    rewired: Callable[[Hub], Hub] = lambda hub: hub,
) -> AsyncGenerator[InProcessClient]:
    """Runs a hub on this database and yields a client of it. `rewired` may replace parts of the hub."""
    async with hub_on(Settings.model_validate(settings or {}), database_url) as original, serving_loops(original):
        hub = rewired(original)
        user = await hub.users.create(SYSTEM, NewUser(ADMIN, PASSWORD, (Role.ADMIN,)))
        admin = Actor(ActorKind.USER, user.id, user.username, permissions_of(user.roles))
        secret = (await hub.auth.create_api_key(admin, NewApiKey("all"))).secret
        transport = httpx2.ASGITransport(create_app(hub))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
            yield InProcessClient(hub, http, admin, secret)
