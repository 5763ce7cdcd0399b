"""Permissions of fields: each is called with every permission except its own, and with only those it needs."""

import hashlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

import psycopg
import pytest
from graphql import GraphQLObjectType, build_schema, get_named_type, is_leaf_type
from psycopg import sql

from tests.contract.guarded_fields import CALLS, GuardedField, call_of, guarded_fields, is_walked
from tests.support.requests import PASSWORD, InProcessClient, in_process_client, new_event
from xzepr.api.graphql.schema import sdl
from xzepr.core.actor import ROLES, SYSTEM, Permission, Role
from xzepr.features.stream.kinds import KINDS, Kind
from xzepr.features.users.model import NewUser

REQUIRING = [field for field in guarded_fields() if field.guard == "requires" and not is_walked(field)]
ALL = frozenset(Permission)


@dataclass(frozen=True, slots=True)
class SampleHub:
    """A hub with one object of each kind."""

    client: InProcessClient
    ids: Mapping[str, str]
    database_url: str

    async def state(self) -> dict[str, str]:
        """Returns a digest of each table, except the one to which the hub's processes write once a second."""
        async with await psycopg.AsyncConnection.connect(self.database_url) as connection:
            result = await connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'processes'"
            )
            tables = [str(row[0]) for row in await result.fetchall()]
            return {table: await _digest(connection, table) for table in sorted(tables)}


async def _digest(connection: "psycopg.AsyncConnection[tuple[object, ...]]", table: str) -> str:
    query = sql.SQL("SELECT t::text FROM {} AS t ORDER BY 1").format(sql.Identifier(table))
    rows = await (await connection.execute(query)).fetchall()
    return hashlib.sha256(repr(rows).encode()).hexdigest()


@pytest.fixture
async def sample(database_url: str) -> AsyncGenerator[SampleHub]:
    async with in_process_client(database_url) as client:
        build, spare = await client.receiver("build"), await client.receiver("spare")
        group = await client.group(build)
        event = await client.event(build)
        other = await client.hub.users.create(SYSTEM, NewUser("other", PASSWORD, (Role.USER,)))
        ids = {"EVENT": event["id"], "BUILD": build, "SPARE": spare, "GROUP": group, "OTHER": other.id}
        yield SampleHub(client, ids, database_url)


def test_every_guarded_field_has_a_call() -> None:
    assert set(CALLS) == {field.path for field in REQUIRING}


async def test_call_without_permission_changes_nothing(sample: SampleHub) -> None:
    keys = {permission: await sample.client.key(ALL - {permission}) for permission in Permission}
    failures: dict[str, object] = {}
    for field in REQUIRING:
        secret = keys[Permission(str(field.permission))]
        before = await sample.state()
        response = await sample.client(call_of(field.path, sample.ids), secret=secret)
        changed = await sample.state() != before
        # Without permission to read its result, the mutation still takes place.
        may_change = field.type.endswith("Payload")
        forbidden = set(response.codes) == {"FORBIDDEN"} and str(field.permission) in response.errors[0]["message"]
        if not forbidden or changed != may_change:
            failures[field.path] = (response.body, changed)
    assert failures == {}


async def test_permissions_of_a_path_are_sufficient(sample: SampleHub) -> None:
    # Deletions come last, because other calls use the objects that they delete.
    fields = sorted(REQUIRING, key=lambda field: ("delete" in field.field, field.type != "Query"))
    failures: dict[str, object] = {}
    for field in fields:
        secret = await sample.client.key(_permissions_for(field))
        response = await sample.client(call_of(field.path, sample.ids), secret=secret)
        # No relay has run on this hub, so that it has no route.
        needs_route = field.field == "resumeRelay" or field.field.endswith("eadLetters")
        if response.codes and not (needs_route and response.codes == ["NOT_FOUND"]):
            failures[field.path] = response.body
    assert failures == {}


def _permissions_for(field: GuardedField) -> set[Permission]:
    """Returns the permissions of the field and its root field, and those that its call grants to a new user."""
    by_path = {other.path: other for other in REQUIRING}
    call = CALLS[field.path]
    root = call.removeprefix("mutation").strip("{ ").split("(")[0].split(" ")[0]
    root_field = by_path[f"{'Mutation' if call.startswith('mutation') else 'Query'}.{root}"]
    granted = ROLES[Role.USER] if field.field == "createUser" else frozenset[Permission]()
    return {Permission(str(other.permission)) for other in (field, root_field)} | granted


async def test_anonymous_caller_may_only_log_in(sample: SampleHub) -> None:
    before = await sample.state()
    schema = build_schema(sdl())
    failures: dict[str, object] = {}
    for root in (schema.query_type, schema.mutation_type):
        assert root is not None
        for name in root.fields:
            if name == "login":
                continue
            document = CALLS.get(f"{root.name}.{name}")
            text = call_of(f"{root.name}.{name}", sample.ids) if document else _bare_call(root, name)
            response = await sample.client(text, secret="")
            if (response.status, response.codes) != (401, ["UNAUTHENTICATED"]):
                failures[name] = (response.status, response.body)
    for document in ("{ __schema { types { name } } }", '{ __type(name: "Event") { name } }', "{ nonsense }"):
        assert (await sample.client(document, secret="")).codes == ["UNAUTHENTICATED"]
    assert failures == {}
    assert await sample.state() == before
    assert (await sample.client("{ __typename }", secret="")).data == {"__typename": "Query"}
    login = 'mutation { login(input: {username: "ada", password: "correct horse battery"}) { token user { id } } }'
    assert (await sample.client(login, secret="")).data["login"]["token"]


def _bare_call(root: GraphQLObjectType, name: str) -> str:
    """Returns a call without arguments. The hub rejects anonymous callers before it checks arguments."""
    leaf = is_leaf_type(get_named_type(root.fields[name].type))
    operation = "mutation" if root.name == "Mutation" else "query"
    return f"{operation} {{ {name}{'' if leaf else ' { __typename }'} }}"


@pytest.mark.parametrize("lacking", sorted({facts.permission for facts in KINDS.values()}))
async def test_unreadable_message_kinds_are_omitted(sample: SampleHub, lacking: Permission) -> None:
    build, group = sample.ids["BUILD"], sample.ids["GROUP"]
    await sample.client.event(build, success=False)
    for id in (build, group):
        field = "updateEventReceiver" if id == build else "updateEventReceiverGroup"
        await sample.client(f'mutation {{ {field}(input: {{id: "{id}", name: "y"}}) {{ __typename }} }}')
    for path in ("Mutation.deleteEventReceiverGroup", "Mutation.deleteEventReceiver"):
        assert (await sample.client(call_of(path, sample.ids))).data
    query = (
        "query ($kinds: [StreamKind!]) { stream(first: 100, kinds: $kinds) { cursor messages { __typename kind } } }"
    )
    everything = (await sample.client(query)).data["stream"]
    assert {message["kind"] for message in everything["messages"]} == {kind.name for kind in Kind}
    types = {message["kind"]: message["__typename"] for message in everything["messages"]}
    assert types == {kind.name: facts.graphql_type for kind, facts in KINDS.items()}
    secret = await sample.client.key(ALL - {lacking})
    page = (await sample.client(query, secret=secret)).data["stream"]
    readable = {kind.name for kind, facts in KINDS.items() if facts.permission is not lacking}
    assert {message["kind"] for message in page["messages"]} == readable
    assert page["cursor"] == everything["cursor"]
    forbidden = [kind.name for kind, facts in KINDS.items() if facts.permission is lacking]
    page = (await sample.client(query, secret=secret, kinds=forbidden)).data["stream"]
    assert page["messages"] == []


async def test_event_is_recorded_without_permission_for_gates(sample: SampleHub) -> None:
    secret = await sample.client.key(ALL - {Permission.GROUP_READ})
    response = await sample.client(call_of("CreateEventPayload.gates", sample.ids), secret=secret)
    assert response.codes == ["FORBIDDEN"]
    created = response.body["data"]["createEvent"]
    assert created["gates"] is None
    newest = (await sample.client("{ events(first: 1) { nodes { cursor } } }")).data["events"]["nodes"]
    assert newest == [{"cursor": created["cursor"]}]


async def test_reporter_sees_only_the_events_id(sample: SampleHub) -> None:
    secret = await sample.client.key([Permission.EVENT_CREATE])
    document = "mutation ($input: CreateEventInput!) { createEvent(input: $input) { id cursor %s } }"
    response = await sample.client(document % "", secret=secret, input=new_event(sample.ids["BUILD"]))
    assert response.data["createEvent"]["id"]
    response = await sample.client(document % "event { name }", secret=secret, input=new_event(sample.ids["BUILD"]))
    assert (response.codes, response.body["data"]["createEvent"]["event"]) == (["FORBIDDEN"], None)
