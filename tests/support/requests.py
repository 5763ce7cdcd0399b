"""A whole hub in this process, behind its own ASGI application, and who asks it: users and keys of every kind."""

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
from xzepr.processes import running
from xzepr.settings import Settings

PASSWORD = "correct horse battery"
ADMIN = "ada"
UNIT = {"name": "app", "version": "1.0.0", "release": "1", "platformId": "linux", "package": "rpm"}
"""A unit as variables of a request have it."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: its status, its body as it was sent, and what that says."""

    status: int
    raw: bytes

    @property
    def data(self) -> Json:
        """The data of an answer without errors."""
        assert "errors" not in self.body, self.body["errors"]
        return self.body["data"]

    @property
    def body(self) -> Json:
        """The whole answer."""
        return orjson.loads(self.raw)

    @property
    def errors(self) -> list[Json]:
        """The errors; none when there are none."""
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
class Asking:
    """Asks one hub."""

    hub: Hub
    http: httpx2.AsyncClient
    admin: Actor
    """A user with every permission."""
    secret: str
    """An API key of the admin's that is not narrowed."""

    async def __call__(self, query: str, *, secret: str | None = None, **variables: object) -> Answer:
        """The answer to a document with these variables. `secret` is the admin's unless given; empty: nobody's."""
        return await self.send(orjson.dumps({"query": query, "variables": variables}), secret=secret)

    async def send(self, body: bytes, *, secret: str | None = None) -> Answer:
        """The answer to this very body."""
        secret = self.secret if secret is None else secret
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {secret}"} if secret else {})
        response = await self.http.post("/graphql", content=body, headers=headers)
        return Answer(response.status_code, response.content)

    async def key(self, permissions: Iterable[Permission]) -> str:
        """The secret of a new API key that may do just this."""
        return (await self.hub.auth.create_api_key(self.admin, NewApiKey("key", tuple(permissions)))).secret

    async def token(self) -> str:
        """A token of the admin's, as a login gives it."""
        return (await self.hub.auth.login(ADMIN, PASSWORD)).token

    async def receiver(self, name: str = "build", schema: object = None, **fields: object) -> str:
        """The id of a new receiver, by default for any payload."""
        given = {"name": name, "type": "test", "version": "1", "description": "made by a test", **fields}
        answer = await self(
            "mutation ($input: CreateEventReceiverInput!)"
            "{ createEventReceiver(input: $input) { eventReceiver { id } } }",
            input={**given, "schema": {} if schema is None else schema},
        )
        return answer.data["createEventReceiver"]["eventReceiver"]["id"]

    async def group(self, *receiver_ids: str, name: str = "gate", **fields: object) -> str:
        """The id of a new group."""
        given = {"name": name, "type": "test", "version": "1", "description": "made by a test", **fields}
        answer = await self(
            "mutation ($input: CreateEventReceiverGroupInput!)"
            "{ createEventReceiverGroup(input: $input) { eventReceiverGroup { id }}}",
            input={**given, "eventReceiverIds": receiver_ids},
        )
        return answer.data["createEventReceiverGroup"]["eventReceiverGroup"]["id"]

    async def event(self, receiver_id: str, **fields: object) -> Json:
        """A new event: its id and its cursor."""
        answer = await self(
            "mutation ($input: CreateEventInput!) { createEvent(input: $input) { cursor event { id } } }",
            input=new_event(receiver_id, **fields),
        )
        created = answer.data["createEvent"]
        return {"id": created["event"]["id"], "cursor": created["cursor"]}


def new_event(receiver_id: str, **fields: object) -> Json:
    """The input of an event, with what most tests do not care for filled in."""
    filled: Json = {**UNIT, "description": "made by a test", "payload": {}, "success": True}
    return {**filled, "eventReceiverId": receiver_id, **fields}


@asynccontextmanager
async def asking(
    database_url: str,
    settings: Mapping[str, object] | None = None,
    rewired: Callable[[Hub], Hub] = lambda hub: hub,
) -> AsyncGenerator[Asking]:
    """Asks a hub on this database while the block lasts. `rewired` may put something between its parts."""
    async with hub_on(Settings.model_validate(settings or {}), database_url) as one, running(one):
        hub = rewired(one)
        user = await hub.users.create(SYSTEM, NewUser(ADMIN, PASSWORD, (Role.ADMIN,)))
        admin = Actor(ActorKind.USER, user.id, user.username, permissions_of(user.roles))
        secret = (await hub.auth.create_api_key(admin, NewApiKey("all"))).secret
        transport = httpx2.ASGITransport(create_app(hub))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
            yield Asking(hub, http, admin, secret)
