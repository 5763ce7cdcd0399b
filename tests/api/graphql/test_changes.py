"""Changes of receivers, groups and accounts through GraphQL, and the errors of rejected changes."""

from collections.abc import AsyncGenerator

import pytest

from tests.support.requests import PASSWORD, InProcessClient, Response, in_process_client

UPDATE = """
mutation ($input: UpdateEventReceiverInput!) {
  updateEventReceiver(input: $input) { eventReceiver { name description schema revision resourceVersion } }
}
"""
DELETE = (
    "mutation ($input: DeleteEventReceiverInput!) { deleteEventReceiver(input: $input) { eventReceiver { name } } }"
)
CREATE_GROUP = """
mutation ($input: CreateEventReceiverGroupInput!) {
  createEventReceiverGroup(input: $input) { eventReceiverGroup { eventReceiverIds enabled } }
}
"""
UPDATE_GROUP = """
mutation ($input: UpdateEventReceiverGroupInput!) {
  updateEventReceiverGroup(input: $input) { eventReceiverGroup { name eventReceiverIds enabled resourceVersion } }
}
"""
ENABLE = """
mutation ($input: SetEventReceiverGroupEnabledInput!) {
  setEventReceiverGroupEnabled(input: $input) { eventReceiverGroup { enabled resourceVersion } }
}
"""
DELETE_GROUP = """
mutation ($input: DeleteEventReceiverGroupInput!) {
  deleteEventReceiverGroup(input: $input) { id eventReceiverGroup { name eventReceiverIds } }
}
"""
STREAM = """
{ stream(first: 100) { messages {
  kind ... on ReceiverMessage { eventReceiver { name schema } } ... on GroupMessage { eventReceiverGroup { name } }
} } }
"""
NAMED = {"name": "gate", "type": "t", "version": "1", "description": "d"}


@pytest.fixture
async def client(database_url: str) -> AsyncGenerator[InProcessClient]:
    async with in_process_client(database_url) as client:
        yield client


async def head(client: InProcessClient) -> int:
    return (await client.hub.stream.head()).position


def errors_of(response: Response) -> list[tuple[str, str | None]]:
    """Returns the code and field of each error."""
    return list(zip(response.codes, response.fields, strict=True))


async def test_partial_update_keeps_omitted_fields(client: InProcessClient) -> None:
    id = await client.receiver(schema={"type": "object"})
    changed = (await client(UPDATE, input={"id": id, "name": "new"})).data["updateEventReceiver"]["eventReceiver"]
    assert changed == {
        "name": "new",
        "description": "made by a test",
        "schema": {"type": "object"},
        "revision": 1,
        "resourceVersion": 2,
    }
    changed = (await client(UPDATE, input={"id": id, "schema": True, "expectedVersion": 2})).data["updateEventReceiver"]
    assert changed["eventReceiver"]["schema"] is True
    assert (changed["eventReceiver"]["revision"], changed["eventReceiver"]["resourceVersion"]) == (2, 3)


async def test_rejected_change_writes_nothing(client: InProcessClient) -> None:
    id, other = await client.receiver("used"), await client.receiver("member")
    await client.event(id)
    await client.group(other)
    before = await head(client)
    missing = "01KAG3VVVVVVVVVVVVVVVVVVVV"
    assert errors_of(await client(UPDATE, input={"id": id, "name": "x", "expectedVersion": 7})) == [
        ("CONFLICT", "expectedVersion")
    ]
    assert errors_of(await client(UPDATE, input={"id": id, "schema": None})) == [("INVALID_INPUT", "schema")]
    assert errors_of(await client(UPDATE, input={"id": id, "name": " ", "version": "v" * 256})) == [
        ("INVALID_INPUT", "name"),
        ("INVALID_INPUT", "version"),
    ]
    assert errors_of(await client(UPDATE, input={"id": missing, "name": "x"})) == [("NOT_FOUND", "id")]
    assert errors_of(await client(DELETE, input={"id": id})) == [("CONFLICT", "id")]
    assert errors_of(await client(DELETE, input={"id": other})) == [("CONFLICT", "id")]
    assert await head(client) == before


async def test_states_in_the_stream_have_ids_of_their_own(client: InProcessClient) -> None:
    """A normalising cache keeps one object for each type and id, so different states need different ids."""
    id = await client.receiver("first")
    for name in ("second", "third"):
        await client(UPDATE, input={"id": id, "name": name})
    query = (
        "{ stream { messages { ... on ReceiverMessage { eventReceiverId eventReceiver "
        "{ __typename id eventReceiverId name resourceVersion } } } } }"
    )
    messages = (await client(query)).data["stream"]["messages"]
    assert {message["eventReceiverId"] for message in messages} == {id}
    assert [message["eventReceiver"] for message in messages] == [
        {
            "__typename": "EventReceiverSnapshot",
            "id": f"{id}@{number}",
            "eventReceiverId": id,
            "name": name,
            "resourceVersion": number,
        }
        for number, name in enumerate(("first", "second", "third"), start=1)
    ]


async def test_group_keeps_member_order(client: InProcessClient) -> None:
    ids = [await client.receiver(f"r{n}") for n in range(3)]
    group = await client.group(*ids)
    changed = (await client(UPDATE_GROUP, input={"id": group, "eventReceiverIds": ids[::-1]})).data
    assert changed["updateEventReceiverGroup"]["eventReceiverGroup"] == {
        "name": "gate",
        "eventReceiverIds": ids[::-1],
        "enabled": True,
        "resourceVersion": 2,
    }
    disabled = (await client(ENABLE, input={"id": group, "enabled": False})).data["setEventReceiverGroupEnabled"]
    assert disabled["eventReceiverGroup"] == {"enabled": False, "resourceVersion": 3}
    stale = await client(ENABLE, input={"id": group, "enabled": True, "expectedVersion": 2})
    assert errors_of(stale) == [("CONFLICT", "expectedVersion")]
    deleted = (await client(DELETE_GROUP, input={"id": group})).data["deleteEventReceiverGroup"]
    assert deleted == {"id": group, "eventReceiverGroup": {"name": "gate", "eventReceiverIds": ids[::-1]}}
    assert errors_of(await client(DELETE_GROUP, input={"id": group})) == [("NOT_FOUND", "id")]


async def test_invalid_group_members_are_reported_by_index(client: InProcessClient) -> None:
    id = await client.receiver()
    before = await head(client)
    for members, fields in (
        ([], ["eventReceiverIds"]),
        ([id, id, " "], ["eventReceiverIds/1", "eventReceiverIds/2"]),
        ([id, "unknown", "01KAG3VVVVVVVVVVVVVVVVVVVV"], ["eventReceiverIds/1", "eventReceiverIds/2"]),
        ([str(n) for n in range(101)], ["eventReceiverIds"]),
    ):
        response = await client(CREATE_GROUP, input={**NAMED, "eventReceiverIds": members})
        assert errors_of(response) == [("INVALID_INPUT", field) for field in fields]
    assert await head(client) == before


async def test_stream_message_shows_state_at_its_time(client: InProcessClient) -> None:
    id = await client.receiver("first", schema={"title": "old", "a": 1})
    group = await client.group(id, name="before")
    await client(UPDATE, input={"id": id, "name": "second", "schema": {"title": "new"}})
    await client(UPDATE_GROUP, input={"id": group, "name": "after"})
    await client(DELETE_GROUP, input={"id": group})
    await client(DELETE, input={"id": id})
    messages = (await client(STREAM)).data["stream"]["messages"]
    old, new = {"title": "old", "a": 1}, {"title": "new"}
    assert messages == [
        {"kind": "RECEIVER_CREATED", "eventReceiver": {"name": "first", "schema": old}},
        {"kind": "GROUP_CREATED", "eventReceiverGroup": {"name": "before"}},
        {"kind": "RECEIVER_UPDATED", "eventReceiver": {"name": "second", "schema": new}},
        {"kind": "GROUP_UPDATED", "eventReceiverGroup": {"name": "after"}},
        {"kind": "GROUP_DELETED", "eventReceiverGroup": {"name": "after"}},
        {"kind": "RECEIVER_DELETED", "eventReceiver": {"name": "second", "schema": new}},
    ]


async def test_narrowed_api_key_works_until_revoked(client: InProcessClient) -> None:
    token = await client.token()
    create = "mutation ($i: CreateApiKeyInput!) { createApiKey(input: $i) { secret apiKey { id name permissions } } }"
    created = (await client(create, secret=token, i={"name": "ci", "permissions": ["EVENT_READ"]})).data["createApiKey"]
    assert created["secret"].startswith("xzepr_")
    assert created["apiKey"]["permissions"] == ["EVENT_READ"]
    listed = await client("{ apiKeys { id name } me { username permissions } }", secret=created["secret"])
    assert listed.data["me"] == {"username": "ada", "permissions": ["EVENT_READ"]}
    assert created["apiKey"]["id"] in [key["id"] for key in listed.data["apiKeys"]]
    assert created["secret"].encode() not in listed.raw
    assert (await client(create, i={"name": "created by a key"})).codes == ["FORBIDDEN"]
    revoke = "mutation ($i: RevokeApiKeyInput!) { revokeApiKey(input: $i) { id } }"
    assert (await client(revoke, secret=token, i={"id": created["apiKey"]["id"]})).data
    response = await client("{ me { id } }", secret=created["secret"])
    assert (response.status, response.codes) == (401, ["INVALID_TOKEN"])


async def test_disabled_user_loses_access(client: InProcessClient) -> None:
    create = "mutation ($i: CreateUserInput!) { createUser(input: $i) { user { id username roles } } }"
    new_user = {"username": "Grace", "password": PASSWORD, "roles": ["EVENT_VIEWER"]}
    user = (await client(create, i=new_user)).data["createUser"]["user"]
    assert (user["username"], user["roles"]) == ("grace", ["EVENT_VIEWER"])
    assert errors_of(await client(create, i=new_user)) == [("CONFLICT", "username")]
    assert errors_of(await client(create, i={"username": "", "password": "x", "roles": []})) == [
        ("INVALID_INPUT", "username"),
        ("INVALID_INPUT", "password"),
        ("INVALID_INPUT", "roles"),
    ]
    login = "mutation ($i: LoginInput!) { login(input: $i) { token expiresAt user { username } } }"
    session = (await client(login, secret="", i={"username": "GRACE", "password": PASSWORD})).data["login"]
    assert (await client("{ events { nodes { id } } }", secret=session["token"])).data
    disable = "mutation ($i: SetUserEnabledInput!) { setUserEnabled(input: $i) { user { enabled } } }"
    response = await client(disable, i={"id": user["id"], "enabled": False})
    assert response.data["setUserEnabled"]["user"] == {"enabled": False}
    for username in ("grace", "unknown"):
        response = await client(login, secret="", i={"username": username, "password": PASSWORD})
        assert response.codes == ["INVALID_CREDENTIALS"]
    assert (await client("{ me { id } }", secret=session["token"])).codes == ["INVALID_TOKEN"]


async def test_input_error_names_field_without_echoing_values(client: InProcessClient) -> None:
    login = "mutation ($i: LoginInput!) { login(input: $i) { token } }"
    mistyped = {"username": "ada", "passwrd": "hunter2"}
    response = await client(login, i=mistyped)
    assert errors_of(response) == [("INVALID_INPUT", "password"), ("INVALID_INPUT", "passwrd")]
    assert b"hunter2" not in response.raw
    response = await client(login, secret="", i=mistyped)
    assert errors_of(response) == [("INVALID_INPUT", None)]
    assert b"hunter2" not in response.raw
    create_many = "mutation ($i: CreateEventsInput!) { createEvents(input: $i) { results { problems { code } } } }"
    response = await client(
        create_many, i={"events": [dict.fromkeys(("name", "version", "release", "platformId"), "x")]}
    )
    fields = [f"events/0/{name}" for name in ("package", "description", "success", "eventReceiverId")]
    assert errors_of(response) == [("INVALID_INPUT", field) for field in fields]


async def test_unrouted_request_returns_standard_error(client: InProcessClient) -> None:
    response = await client.http.get("/nothing")
    assert (response.status_code, response.json()["errors"][0]["extensions"]["code"]) == (404, "NOT_FOUND")
    response = await client.http.post("/health")
    assert (response.status_code, response.json()["errors"][0]["extensions"]["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert set(response.headers["allow"].split(", ")) == {"GET", "HEAD"}
