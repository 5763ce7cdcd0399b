"""Edges of the schema: none reaches an object without the permission to read it, as each actor tries."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

import pytest
from graphql import GraphQLObjectType, build_schema

from tests.contract.edges import (
    OPEN_EDGES,
    OPEN_ENDINGS,
    OPEN_TYPES,
    READ_PERMISSIONS,
    ROOTS,
    SIGNED_IN,
    Walk,
    edges_of,
    side_doors,
    walks,
)
from tests.support.requests import PASSWORD, UNIT, InProcessClient, Response, in_process_client
from xzepr.api.graphql.schema import sdl
from xzepr.core.actor import ROLES, SYSTEM, Permission, Role
from xzepr.features.groups.model import NewGroup
from xzepr.features.receivers.model import NewReceiver
from xzepr.features.stream.kinds import KINDS
from xzepr.features.users.model import NewUser

SCHEMA = build_schema(sdl())
TEXT = {name: f'"{value}"' for name, value in {**UNIT, "name": "secret-unit"}.items()}
UNIT_LITERAL = "{" + ", ".join(f"{name}: {value}" for name, value in TEXT.items()) + "}"
EVENT_LITERAL = f'{UNIT_LITERAL[:-1]}, description: "d", payload: {{}}, success: true, eventReceiverId: RECEIVER}}'
NAMED = 'name: "n", type: "t", version: "1", description: "d"'
ARGUMENTS = {
    "Query.event": "(id: EVENT)",
    "Query.unit": f"(unit: {UNIT_LITERAL})",
    "Query.eventReceiver": "(id: RECEIVER)",
    "Query.eventReceiverGroup": "(id: GROUP)",
    "Query.gate": f"(eventReceiverGroupId: GROUP, unit: {UNIT_LITERAL})",
    "Query.stream": "(first: 100)",
    "Query.deadLetters": '(route: "xzepr.events")',
    "Mutation.createEvent": f"(input: {EVENT_LITERAL})",
    "Mutation.createEvents": f"(input: {{events: [{EVENT_LITERAL}]}})",
    "Mutation.createEventReceiver": f"(input: {{{NAMED}, schema: {{}}}})",
    "Mutation.updateEventReceiver": "(input: {id: SPARE_RECEIVER, enabled: true})",
    "Mutation.deleteEventReceiver": "(input: {id: SPARE_RECEIVER})",
    "Mutation.createEventReceiverGroup": f"(input: {{{NAMED}, eventReceiverIds: [RECEIVER]}})",
    "Mutation.updateEventReceiverGroup": '(input: {id: SPARE_GROUP, type: "t"})',
    "Mutation.setEventReceiverGroupEnabled": "(input: {id: SPARE_GROUP, enabled: false})",
    "Mutation.deleteEventReceiverGroup": "(input: {id: SPARE_GROUP})",
}
# Mutations that return no object which another permission guards.
CLOSED_MUTATIONS = {
    *("login", "createApiKey", "revokeApiKey", "createStreamTicket", "createUser", "setUserEnabled"),
    *("resumeRelay", "retryDeadLetters", "dropDeadLetters"),
}
# Texts of the sample objects, with the permission to read them.
SECRETS = {
    "secret-unit": Permission.EVENT_READ,
    "secret-receiver": Permission.RECEIVER_READ,
    "secret-group": Permission.GROUP_READ,
    "secret-user": Permission.USER_MANAGE,
}


@dataclass(frozen=True, slots=True)
class SampleHub:
    """A hub with an object of each kind and a message of each kind."""

    client: InProcessClient
    ids: Mapping[str, str]

    async def __call__(self, walk: Walk, secret: str) -> Response:
        """Executes a walk with its placeholders replaced by ids."""
        document = walk.document
        for name, id in {**await self._spares(document), **self.ids}.items():
            document = document.replace(name, f'"{id}"')
        return await self.client(document, secret=secret)

    async def _spares(self, document: str) -> dict[str, str]:
        """Creates the objects that the mutation in a document changes or deletes."""
        hub, spares = self.client.hub, dict[str, str]()
        if "SPARE_RECEIVER" in document:
            new = NewReceiver("secret-receiver", "t", "1", "d", {})
            spares["SPARE_RECEIVER"] = (await hub.receivers.create(self.client.admin, new)).id
        if "SPARE_GROUP" in document:
            new_group = NewGroup("secret-group", "t", "1", "d", (self.ids["RECEIVER"],))
            spares["SPARE_GROUP"] = (await hub.groups.create(self.client.admin, new_group)).id
        return spares


@pytest.fixture
async def sample(database_url: str) -> AsyncGenerator[SampleHub]:
    async with in_process_client(database_url) as client:
        receiver = await client.receiver("secret-receiver")
        spare = await client.receiver("secret-receiver")
        group = await client.group(receiver, name="secret-group")
        spare_group = await client.group(spare, name="secret-group")
        for success in (False, True, False, True):
            event = await client.event(receiver, name="secret-unit", success=success)
        actor, hub = client.admin, client.hub
        await hub.users.create(SYSTEM, NewUser("secret-user", PASSWORD, (Role.USER,)))
        await client(f'mutation {{ updateEventReceiver(input: {{id: "{spare}", type: "u"}}) {{ id }} }}')
        await hub.groups.set_enabled(actor, spare_group, False, None)
        await hub.groups.delete(actor, spare_group, None)
        await hub.receivers.delete(actor, spare, None)
        yield SampleHub(client, {"EVENT": event["id"], "RECEIVER": receiver, "GROUP": group})


def test_no_edge_is_a_side_door() -> None:
    assert side_doors(SCHEMA) == []


@pytest.mark.parametrize(
    ("parent", "field"),
    [
        ("GateCompleted", "eventReceiverGroup"),
        ("UpdateEventReceiverPayload", "eventReceiver"),
        ("EventReceiver", "events"),
        ("CreateEventPayload", "gates"),
        ("Query", "streamStatus"),
    ],
)
def test_unguarded_edge_is_found(parent: str, field: str) -> None:
    schema = build_schema(sdl())
    type = schema.type_map[parent]
    assert isinstance(type, GraphQLObjectType)
    type.fields[field].ast_node = None
    assert side_doors(schema) != []


def test_every_type_is_guarded_or_open() -> None:
    messages = {facts.graphql_type for facts in KINDS.values()}
    targets = {edge.target for edge in edges_of(SCHEMA)} - messages
    unknown = {name for name in targets - set(READ_PERMISSIONS) - OPEN_TYPES if not name.endswith(OPEN_ENDINGS)}
    assert unknown == set()
    assert set(READ_PERMISSIONS) | OPEN_TYPES <= targets
    assert {(edge.parent, edge.field) for edge in edges_of(SCHEMA)} >= OPEN_EDGES


def test_guards_of_queries_are_those_of_their_objects() -> None:
    queries = {edge.target: edge.guards for edge in edges_of(SCHEMA) if edge.parent == "Query"}
    objects = {name.removesuffix("Connection"): guards for name, guards in queries.items() if name != "StreamPage"}
    assert objects == {name: {READ_PERMISSIONS[name]} for name in objects}


async def test_each_actor_reads_only_what_it_may(sample: SampleHub) -> None:
    client, hub = sample.client, sample.client.hub
    actors: dict[str, tuple[str, frozenset[str]]] = {"anonymous": ("", frozenset())}
    for role in Role:
        await hub.users.create(SYSTEM, NewUser(f"role-{role}", PASSWORD, (role,)))
        token = (await hub.auth.login(f"role-{role}", PASSWORD)).token
        actors[role] = token, frozenset({*ROLES[role], SIGNED_IN})
    for permission in Permission:
        actors[f"key for {permission}"] = await client.key([permission]), frozenset({permission, SIGNED_IN})
    failures: dict[tuple[str, str], object] = {}
    for walk in walks(SCHEMA, "Query", ARGUMENTS):
        for name, (secret, permissions) in actors.items():
            response = await sample(walk, secret)
            if not _as_expected(walk, response, permissions):
                failures[name, walk.edge.path] = (walk.document, response.body)
    assert failures == {}


def _as_expected(walk: Walk, response: Response, permissions: frozenset[str]) -> bool:
    leaked = any(text in response.raw.decode() and needed not in permissions for text, needed in SECRETS.items())
    if walk.needed <= permissions:
        # No relay has run on this hub, so that it has no route.
        return not leaked and set(response.codes) <= ({"NOT_FOUND"} if "deadLetters" in walk.document else set())
    refused = {"FORBIDDEN"} if permissions else {"UNAUTHENTICATED"}
    # Messages of a kind that the caller may not read are left out.
    return not leaked and set(response.codes) in (refused, set() if "stream(" in walk.document else refused)


async def test_payloads_hide_what_the_caller_may_not_read(sample: SampleHub) -> None:
    failures: dict[str, object] = {}
    for walk in walks(SCHEMA, "Mutation", ARGUMENTS):
        mutation = walk.document.removeprefix("mutation { ").split("(")[0].split(" ")[0]
        if mutation in CLOSED_MUTATIONS:
            continue
        root = next(edge for edge in edges_of(SCHEMA) if (edge.parent, edge.field) == ("Mutation", mutation))
        response = await sample(walk, await sample.client.key(map(Permission, root.guards)))
        leaked = any(text in response.raw.decode() and need not in root.guards for text, need in SECRETS.items())
        expected = [] if walk.needed <= root.guards else ["FORBIDDEN"]
        if leaked or response.codes != expected or response.body["data"][mutation] is None:
            failures[walk.edge.path] = (walk.document, response.body)
        response = await sample(walk, await sample.client.key(map(Permission, walk.needed)))
        if response.codes:
            failures[f"{walk.edge.path} with all permissions"] = (walk.document, response.body)
    assert failures == {}


def test_every_mutation_is_walked_or_closed() -> None:
    mutations = {edge.field: edge for edge in edges_of(SCHEMA) if edge.parent == "Mutation"}
    walked = {path.removeprefix("Mutation.") for path in ARGUMENTS if path.startswith("Mutation.")}
    assert walked | CLOSED_MUTATIONS == set(mutations)
    assert set(ROOTS) <= set(SCHEMA.type_map)
