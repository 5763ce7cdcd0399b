"""Who may do what: every field that names a permission is called by somebody who has all but that one."""

import hashlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

import psycopg
import pytest
from graphql import GraphQLObjectType, build_schema, get_named_type, is_leaf_type
from psycopg import sql

from tests.contract.guarded_fields import CALLS, GuardedField, call_of, guarded_fields
from tests.support.requests import PASSWORD, UNIT, Asking, asking, new_event
from xzepr.api.graphql.schema import printed
from xzepr.core.actor import ROLES, SYSTEM, Permission, Role
from xzepr.features.stream.kinds import KINDS, Kind
from xzepr.features.users.model import NewUser

REQUIRING = [field for field in guarded_fields() if field.guard == "requires"]
ALL = frozenset(Permission)


@dataclass(frozen=True, slots=True)
class World:
    """A hub with one of everything."""

    ask: Asking
    ids: Mapping[str, str]
    database_url: str

    async def state(self) -> dict[str, str]:
        """A digest of every table but the one in which the hub's processes describe themselves once a second."""
        async with await psycopg.AsyncConnection.connect(self.database_url) as connection:
            found = await connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'processes'"
            )
            tables = [str(row[0]) for row in await found.fetchall()]
            return {table: await _digest(connection, table) for table in sorted(tables)}


async def _digest(connection: "psycopg.AsyncConnection[tuple[object, ...]]", table: str) -> str:
    query = sql.SQL("SELECT t::text FROM {} AS t ORDER BY 1").format(sql.Identifier(table))
    rows = await (await connection.execute(query)).fetchall()
    return hashlib.sha256(repr(rows).encode()).hexdigest()


@pytest.fixture
async def world(database_url: str) -> AsyncGenerator[World]:
    async with asking(database_url) as ask:
        build, spare = await ask.receiver("build"), await ask.receiver("spare")
        group = await ask.group(build)
        event = await ask.event(build)
        other = await ask.hub.users.create(SYSTEM, NewUser("other", PASSWORD, (Role.USER,)))
        ids = {"EVENT": event["id"], "BUILD": build, "SPARE": spare, "GROUP": group, "OTHER": other.id}
        yield World(ask, ids, database_url)


def test_every_guarded_field_has_a_call() -> None:
    assert set(CALLS) == {field.place for field in REQUIRING}


async def test_call_without_permission_changes_nothing(world: World) -> None:
    keys = {permission: await world.ask.key(ALL - {permission}) for permission in Permission}
    wrong: dict[str, object] = {}
    for field in REQUIRING:
        secret = keys[Permission(str(field.permission))]
        before = await world.state()
        answer = await world.ask(call_of(field.place, world.ids), secret=secret)
        changed = await world.state() != before
        # An event that somebody may record is recorded, although they may not see what it does to gates.
        may_change = field.place == "CreateEventPayload.gates"
        refused = set(answer.codes) == {"FORBIDDEN"} and str(field.permission) in answer.errors[0]["message"]
        if not refused or changed != may_change:
            wrong[field.place] = (answer.body, changed)
    assert wrong == {}


async def test_permissions_of_a_path_are_sufficient(world: World) -> None:
    # Deletions last: what they delete is what others are about.
    places = sorted(REQUIRING, key=lambda field: ("delete" in field.field, field.type != "Query"))
    wrong: dict[str, object] = {}
    for field in places:
        secret = await world.ask.key(_leading_to(field))
        answer = await world.ask(call_of(field.place, world.ids), secret=secret)
        of_a_route = field.field == "resumeRelay" or field.field.endswith("eadLetters")
        no_relay_led_a_route_here = of_a_route and answer.codes == ["NOT_FOUND"]
        if answer.codes and not no_relay_led_a_route_here:
            wrong[field.place] = answer.body
    assert wrong == {}


def _leading_to(field: GuardedField) -> set[Permission]:
    """The field's own permission, those of the fields above it in its call, and what one gives to others."""
    by_place = {one.place: one for one in REQUIRING}
    call = CALLS[field.place]
    root = call.removeprefix("mutation").strip("{ ").split("(")[0].split(" ")[0]
    above = by_place[f"{'Mutation' if call.startswith('mutation') else 'Query'}.{root}"]
    given = ROLES[Role.USER] if field.field == "createUser" else frozenset[Permission]()
    return {Permission(str(one.permission)) for one in (field, above)} | given


async def test_anonymous_caller_may_only_log_in(world: World) -> None:
    before = await world.state()
    schema = build_schema(printed())
    wrong: dict[str, object] = {}
    for root in (schema.query_type, schema.mutation_type):
        assert root is not None
        for name in root.fields:
            if name == "login":
                continue
            document = CALLS.get(f"{root.name}.{name}")
            text = call_of(f"{root.name}.{name}", world.ids) if document else _bare_call(root, name)
            answer = await world.ask(text, secret="")
            if (answer.status, answer.codes) != (401, ["UNAUTHENTICATED"]):
                wrong[name] = (answer.status, answer.body)
    for document in ("{ __schema { types { name } } }", '{ __type(name: "Event") { name } }', "{ nonsense }"):
        assert (await world.ask(document, secret="")).codes == ["UNAUTHENTICATED"]
    assert wrong == {}
    assert await world.state() == before
    assert (await world.ask("{ __typename }", secret="")).data == {"__typename": "Query"}
    login = 'mutation { login(input: {username: "ada", password: "correct horse battery"}) { token user { id } } }'
    assert (await world.ask(login, secret="")).data["login"]["token"]


def _bare_call(root: GraphQLObjectType, name: str) -> str:
    """A call without arguments: who is not known is refused before anybody looks for them."""
    leaf = is_leaf_type(get_named_type(root.fields[name].type))
    operation = "mutation" if root.name == "Mutation" else "query"
    return f"{operation} {{ {name}{'' if leaf else ' { __typename }'} }}"


@pytest.mark.parametrize("lacking", sorted({facts.permission for facts in KINDS.values()}))
async def test_unreadable_message_kinds_are_omitted(world: World, lacking: Permission) -> None:
    build, group = world.ids["BUILD"], world.ids["GROUP"]
    await world.ask.event(build, success=False)
    for id in (build, group):
        field = "updateEventReceiver" if id == build else "updateEventReceiverGroup"
        await world.ask(f'mutation {{ {field}(input: {{id: "{id}", name: "y"}}) {{ __typename }} }}')
    for place in ("Mutation.deleteEventReceiverGroup", "Mutation.deleteEventReceiver"):
        assert (await world.ask(call_of(place, world.ids))).data
    page = "query ($kinds: [StreamKind!]) { stream(first: 100, kinds: $kinds) { cursor messages { __typename kind } } }"
    everything = (await world.ask(page)).data["stream"]
    assert {message["kind"] for message in everything["messages"]} == {kind.name for kind in Kind}
    types = {message["kind"]: message["__typename"] for message in everything["messages"]}
    assert types == {kind.name: facts.graphql_type for kind, facts in KINDS.items()}
    secret = await world.ask.key(ALL - {lacking})
    seen = (await world.ask(page, secret=secret)).data["stream"]
    readable = {kind.name for kind, facts in KINDS.items() if facts.permission is not lacking}
    assert {message["kind"] for message in seen["messages"]} == readable
    assert seen["cursor"] == everything["cursor"]
    forbidden = [kind.name for kind, facts in KINDS.items() if facts.permission is lacking]
    asked = (await world.ask(page, secret=secret, kinds=forbidden)).data["stream"]
    assert asked["messages"] == []


async def test_event_is_recorded_without_permission_for_gates(world: World) -> None:
    secret = await world.ask.key(ALL - {Permission.GROUP_READ})
    answer = await world.ask(call_of("CreateEventPayload.gates", world.ids), secret=secret)
    assert answer.codes == ["FORBIDDEN"]
    created = answer.body["data"]["createEvent"]
    assert created["gates"] is None
    newest = (await world.ask("{ events(first: 1) { nodes { cursor } } }")).data["events"]["nodes"]
    assert newest == [{"cursor": created["cursor"]}]


async def test_reporter_sees_the_reported_event(world: World) -> None:
    secret = await world.ask.key([Permission.EVENT_CREATE])
    document = "mutation ($input: CreateEventInput!) { createEvent(input: $input) { cursor event { id name } } }"
    answer = await world.ask(document, secret=secret, input=new_event(world.ids["BUILD"]))
    assert answer.data["createEvent"]["event"]["name"] == UNIT["name"]
