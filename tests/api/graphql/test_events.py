"""Events through GraphQL: creation, idempotency, validation, lists and unaltered payloads."""

from collections.abc import AsyncGenerator
from itertools import product
from typing import cast

import orjson
import pytest

from tests.support.requests import UNIT, InProcessClient, Json, Response, in_process_client, new_event
from xzepr.core.exact_json import MAX_WRITE_DEPTH

CREATE = """
mutation ($input: CreateEventInput!) {
  createEvent(input: $input) {
    repeated cursor
    event { id cursor payload receiverRevision eventReceiverId unit { id } }
    gates { complete since eventReceiverGroup { id } members { state eventReceiverId event { id } } }
  }
}
"""
CREATE_MANY = """
mutation ($input: CreateEventsInput!) {
  createEvents(input: $input) {
    results { recorded { repeated cursor event { id name } gates { complete } } problems { code field message } }
  }
}
"""
LIST = """
query ($filter: EventFilterInput, $first: Int! = 50, $after: String) {
  events(filter: $filter, first: $first, after: $after) {
    edges { cursor node { id } } nodes { id name }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""


@pytest.fixture
async def client(database_url: str) -> AsyncGenerator[InProcessClient]:
    async with in_process_client(database_url) as client:
        yield client


async def head(client: InProcessClient) -> int:
    return (await client.hub.stream.head()).position


async def no_event_was_recorded(client: InProcessClient) -> bool:
    return not (await client(LIST)).data["events"]["nodes"]


async def create(client: InProcessClient, receiver_id: str, **fields: object) -> Response:
    return await client(CREATE, input=new_event(receiver_id, **fields))


async def test_created_event_returns_its_gates(client: InProcessClient) -> None:
    build, scan = await client.receiver("build"), await client.receiver("scan")
    both, single = await client.group(build, scan, name="both"), await client.group(build, name="single")
    await client.group(build, name="off", enabled=False)
    first = (await create(client, build)).data["createEvent"]
    assert first["repeated"] is False
    assert first["cursor"] == first["event"]["cursor"]
    assert first["event"]["eventReceiverId"] == build
    assert [(gate["eventReceiverGroup"]["id"], gate["complete"]) for gate in first["gates"]] == [
        (both, False),
        (single, True),
    ]
    assert first["gates"][0]["since"] is None
    assert [member["state"] for member in first["gates"][0]["members"]] == ["PASSED", "MISSING"]
    second = (await create(client, scan)).data["createEvent"]
    assert [(gate["eventReceiverGroup"]["id"], gate["complete"]) for gate in second["gates"]] == [(both, True)]
    events = [member["event"]["id"] for member in second["gates"][0]["members"]]
    assert events == [first["event"]["id"], second["event"]["id"]]
    third = (await create(client, build, success=False)).data["createEvent"]
    assert [gate["complete"] for gate in third["gates"]] == [False, False]
    assert [member["state"] for member in third["gates"][0]["members"]] == ["FAILED", "PASSED"]


async def test_idempotency_key_returns_first_event_or_conflict(client: InProcessClient) -> None:
    receiver = await client.receiver()
    first = (await create(client, receiver, idempotencyKey="k")).data["createEvent"]
    before = await head(client)
    repeat = (await create(client, receiver, idempotencyKey="k")).data["createEvent"]
    assert repeat == {**first, "repeated": True}
    conflict = await create(client, receiver, idempotencyKey="k", success=False)
    assert (conflict.codes, conflict.fields) == (["CONFLICT"], ["idempotencyKey"])
    assert await head(client) == before


async def test_mutations_in_one_document_fail_independently(client: InProcessClient) -> None:
    receiver = await client.receiver()
    document = (
        "mutation ($a: CreateEventInput!, $b: CreateEventInput!)"
        "{ a: createEvent(input: $a) { cursor } b: createEvent(input: $b) { cursor }"
        "  c: createEvent(input: $a) { cursor } }"
    )
    response = await client(document, a=new_event(receiver), b=new_event("unknown"))
    assert (response.codes, response.errors[0]["path"]) == (["NOT_FOUND"], ["b"])
    listed = (await client("{ events { nodes { cursor } } }")).data["events"]["nodes"]
    assert response.body["data"] == {"a": listed[1], "b": None, "c": listed[0]}


async def test_batch_results_keep_the_order_of_events(client: InProcessClient) -> None:
    receiver = await client.receiver(
        schema={"required": ["sha"], "properties": {"sha": {}}, "additionalProperties": False}
    )
    await client.group(receiver)
    good = {"payload": {"sha": "1"}, "idempotencyKey": "k"}
    items = [
        new_event(receiver, name="first", **good),
        new_event(receiver, name=" ", platformId="", payload={"sha": "1"}),
        new_event(receiver, payload={"extra": 1}),
        new_event("01KAG3VVVVVVVVVVVVVVVVVVVV", payload={}),
        new_event(receiver, name="first", **good),
        new_event(receiver, name="last", payload={"sha": "2"}, success=False),
        new_event(receiver, name="future", payload={"sha": "3"}, occurredAt="2999-01-01T00:00:00Z"),
    ]
    results = (await client(CREATE_MANY, input={"events": items})).data["createEvents"]["results"]
    assert [[(p["code"], p["field"]) for p in result["problems"]] for result in results] == [
        [],
        [("INVALID_INPUT", "name"), ("INVALID_INPUT", "platformId")],
        [("INVALID_INPUT", "payload"), ("INVALID_INPUT", "payload")],
        [("NOT_FOUND", "eventReceiverId")],
        [],
        [],
        [("INVALID_INPUT", "occurredAt")],
    ]
    recorded = [result["recorded"] and result["recorded"]["event"]["name"] for result in results]
    assert recorded == ["first", None, None, None, "first", "last", None]
    assert [results[at]["recorded"]["repeated"] for at in (0, 4, 5)] == [False, True, False]
    assert results[0]["recorded"]["cursor"] == results[4]["recorded"]["cursor"]
    listed = (await client(LIST)).data["events"]["nodes"]
    assert [node["name"] for node in listed] == ["last", "first"]


async def test_every_violation_is_reported_with_its_pointer(client: InProcessClient) -> None:
    schema = {"properties": {"a/b": {"type": "integer"}, "list": {"items": {"type": "string"}}}}
    receiver = await client.receiver(schema=schema)
    texts = await create(client, receiver, name="", version=" ", platformId="x" * 256, description="d" * 4001)
    assert set(texts.codes) == {"INVALID_INPUT"}
    assert texts.fields == ["name", "version", "platformId", "description"]
    payload = await create(client, receiver, payload={"a/b": "x", "list": ["y", 5]})
    assert set(payload.codes) == {"INVALID_INPUT"}
    assert sorted(map(str, payload.fields)) == ["payload/a~1b", "payload/list/1"]
    assert all(error["path"] == ["createEvent"] for error in texts.errors + payload.errors)
    assert await no_event_was_recorded(client)


async def test_event_for_unusable_receiver_is_rejected(client: InProcessClient) -> None:
    disabled = await client.receiver(enabled=False)
    for receiver_id, code in (
        (disabled, "CONFLICT"),
        ("unknown", "NOT_FOUND"),
        ("01KAG3VVVVVVVVVVVVVVVVVVVV", "NOT_FOUND"),
    ):
        response = await create(client, receiver_id)
        assert (response.codes, response.fields) == ([code], ["eventReceiverId"])
    assert await no_event_was_recorded(client)


PAYLOADS = [
    b'{"server":"x","artifactSize":1029354}',
    b'{"z":1,"a":{"y":[],"b":{}},"m":null}',
    b"[9223372036854775807,-9223372036854775808,18446744073709551615]",
    '{"text":"ünïcode 🎉 \\"quoted\\" \\\\ \\n","":""}'.encode(),
    b'"just text"',
    b"true",
    b"[1.5,0.1,1e+100,null]",
]


@pytest.mark.parametrize("payload", PAYLOADS)
async def test_payload_is_returned_byte_for_byte(client: InProcessClient, payload: bytes) -> None:
    receiver = await client.receiver()
    event = new_event(receiver, payload=None)
    body = orjson.dumps({"query": CREATE, "variables": {"input": {**event, "payload": orjson.Fragment(payload)}}})
    created = await client.send(body)
    id = created.data["createEvent"]["event"]["id"]
    read = await client("query ($id: ID!) { event(id: $id) { payload } events { nodes { payload } } }", id=id)
    expected = b'"payload":' + payload
    assert expected in created.raw
    assert read.raw.count(expected) == 2


async def test_schema_is_returned_with_key_order(client: InProcessClient) -> None:
    schema = {
        "type": "object",
        "required": ["b", "a"],
        "properties": {"b": {"maximum": 2**63}, "a": {"type": "string"}},
    }
    id = await client.receiver(schema=schema)
    read = await client("query ($id: ID!) { eventReceiver(id: $id) { schema } }", id=id)
    assert b'"schema":' + orjson.dumps(schema) in read.raw


@pytest.mark.parametrize(
    ("payload", "pointer"),
    [
        ('{"a":[0,1e400]}', "payload/a/1"),
        ('{"a":[0,18446744073709551616]}', "payload/a/1"),
        ('{"a":-9223372036854775809}', "payload/a"),
        ('{"a":' + "9" * 60 + "}", "payload/a"),
        ('{"a":' + "9" * 5000 + "}", "payload/a"),
        ('{"a":"x\\u0000y"}', "payload/a"),
        ('{"a":"\\ud800"}', "payload/a"),
        ('{"a":{"k\\u0000":1}}', "payload/a/k\\u0000"),
    ],
)
async def test_lossy_payload_value_is_rejected_with_pointer(
    client: InProcessClient, payload: str, pointer: str
) -> None:
    receiver = await client.receiver()
    body = orjson.dumps({"query": CREATE, "variables": {"input": {**new_event(receiver), "payload": 0}}})
    response = await client.send(body.replace(b'"payload":0', b'"payload":' + payload.encode()))
    assert (response.status, set(response.codes)) == (400, {"INVALID_INPUT"})
    assert response.fields == [pointer]
    assert await no_event_was_recorded(client)


def as_literal(value: object) -> str:
    """Writes a value as a GraphQL literal, which is JSON with bare names as keys."""
    if isinstance(value, dict):
        return "{{{}}}".format(", ".join(f"{name}: {as_literal(entry)}" for name, entry in cast(Json, value).items()))
    return orjson.dumps(value).decode()


def document_with_literals(receiver: str, **texts: str) -> str:
    """Returns a document that creates an event without variables; `texts` are GraphQL literals."""
    fields = {name: as_literal(value) for name, value in new_event(receiver).items()} | texts
    return "mutation {{ createEvent(input: {{{}}}) {{ event {{ payload }} }} }}".format(
        ",".join(f"{name}: {value}" for name, value in fields.items())
    )


@pytest.mark.parametrize(
    ("payload", "pointer"),
    [
        ("{a: [0, 1e400]}", "payload/a/1"),
        ("{a: [0, -1e400]}", "payload/a/1"),
        ("{a: 18446744073709551616}", "payload/a"),
        ("{a: -" + "9" * 60 + "}", "payload/a"),
        ("{a: " + "9" * 5000 + "}", "payload/a"),
        (r'{a: "x\u0000y"}', "payload/a"),
        (r'{a: """x\u0000y"""}', None),
    ],
)
async def test_literals_are_validated_like_variables(
    client: InProcessClient, payload: str, pointer: str | None
) -> None:
    receiver = await client.receiver()
    response = await client(document_with_literals(receiver, payload=payload))
    if pointer is None:  # in a block string, \u0000 is six ordinary characters
        assert response.data["createEvent"]["event"]["payload"] == {"a": r"x\u0000y"}
        return
    assert response.codes == ["INVALID_INPUT"]
    assert response.fields == [pointer]
    assert await no_event_was_recorded(client)


async def test_literal_payload_may_contain_variables(client: InProcessClient) -> None:
    receiver = await client.receiver()
    event = {**new_event(receiver), "payload": orjson.Fragment(b"0")}
    fields = ",".join(f"{name}: {orjson.dumps(value).decode()}" for name, value in event.items() if name != "payload")
    document = (
        f"mutation ($size: Int!, $more: JSON) {{ createEvent(input: {{{fields}, payload:"
        '{text: "x", size: $size, list: [true, null, -1, 2.5, {}], more: $more}}) { event { payload } } }'
    )
    response = await client(document, size=5, more={"b": 1, "a": 2})
    expected = b'{"text":"x","size":5,"list":[true,null,-1,2.5,{}],"more":{"b":1,"a":2}}'
    assert b'"payload":' + expected in response.raw


# Documents with a text that the hub looks up or stores.
WITH_TEXT = [
    'query { event(id: "%s") { id } }',
    'query { eventReceiver(id: "%s") { id } }',
    'query { eventReceiverGroup(id: "%s") { id } }',
    'query { gate(eventReceiverGroupId: "%s", '
    'unit: {name: "a", version: "b", release: "c", platformId: "d", package: "e"}) { complete } }',
    'query { unit(unit: {name: "%s", version: "b", release: "c", platformId: "d", package: "e"}) { id } }',
    'query { events(filter: {name: "%s"}) { nodes { id } } }',
    'query { events(filter: {eventReceiverId: "%s"}) { nodes { id } } }',
    'query { events(after: "%s") { nodes { id } } }',
    'query { eventReceivers(filter: {name: "%s"}) { nodes { id } } }',
    'query { eventReceiverGroups(filter: {type: "%s"}) { nodes { id } } }',
    'query { eventReceiverGroups(filter: {eventReceiverId: "%s"}) { nodes { id } } }',
    'query { stream(after: "%s") { cursor } }',
    'query { stream(filter: {name: "%s"}) { cursor } }',
    'query { stream(filter: {eventReceiverIds: ["%s"]}) { cursor } }',
    'mutation { login(input: {username: "%s", password: "x"}) { token } }',
    'mutation { login(input: {username: "x", password: "%s"}) { token } }',
    'mutation { createUser(input: {username: "%s", password: "long enough, sure", roles: [USER]}) { user { id } } }',
    'mutation { setUserEnabled(input: {id: "%s", enabled: false}) { user { id } } }',
    'mutation { revokeApiKey(input: {id: "%s"}) { id } }',
    'mutation { createApiKey(input: {name: "%s"}) { secret } }',
    'mutation { deleteEventReceiver(input: {id: "%s"}) { eventReceiver { id } } }',
    'mutation { deleteEventReceiverGroup(input: {id: "%s"}) { eventReceiverGroup { id } } }',
    'mutation { updateEventReceiver(input: {id: "%s", name: "x"}) { eventReceiver { id } } }',
    'mutation { setEventReceiverGroupEnabled(input: {id: "%s", enabled: true}) { eventReceiverGroup { id } } }',
    'mutation { createEventReceiver(input: {name: "%s", type: "t", version: "1", description: "d", schema: {}})'
    "{ eventReceiver { id } } }",
    'mutation { createEventReceiver(input: {name: "n", type: "t", version: "1", description: "d",'
    'schema: {title: "%s"}}) { eventReceiver { id } } }',
    'mutation { createEventReceiverGroup(input: {name: "n", type: "%s", version: "1", description: "d",'
    'eventReceiverIds: ["x"]}) { eventReceiverGroup { id } } }',
    'mutation { createEventReceiverGroup(input: {name: "n", type: "t", version: "1", description: "d",'
    'eventReceiverIds: ["%s"]}) { eventReceiverGroup { id } } }',
    'mutation { createEvent(input: {name: "%s", version: "b", release: "c", platformId: "d", package: "e",'
    'description: "d", payload: {}, success: true, eventReceiverId: "x"}) { cursor } }',
]


async def test_unstorable_text_never_causes_internal_error(client: InProcessClient) -> None:
    token, before = await client.token(), await head(client)
    expected_codes = {"INVALID_INPUT", "NOT_FOUND", "GRAPHQL_PARSE_FAILED", "INVALID_CREDENTIALS"}
    for document in WITH_TEXT:
        for text in (r"\u0000", r"\uD800", r"\uDC00\uD800"):
            response = await client(document % text, secret=token)
            assert response.codes, document
            assert set(response.codes) <= expected_codes, (document, response.raw)
    assert await head(client) == before


async def test_payload_beyond_size_or_depth_limit_is_rejected(client: InProcessClient) -> None:
    receiver = await client.receiver()
    deep: object = 0
    for _ in range(65):
        deep = [deep]
    for payload in ("x" * 524_287, deep):
        response = await create(client, receiver, payload=payload)
        assert (response.codes, response.fields) == (["INVALID_INPUT"], ["payload"])
    assert MAX_WRITE_DEPTH > 65
    assert await no_event_was_recorded(client)
    assert (await create(client, receiver, payload="x" * 524_286)).data


async def test_pages_list_each_event_once_while_others_arrive(client: InProcessClient) -> None:
    receiver = await client.receiver()
    ids = [(await client.event(receiver, name=f"n{n}"))["id"] for n in range(7)]
    seen: list[str] = []
    after = None
    while True:
        page = (await client(LIST, first=3, after=after)).data["events"]
        assert [edge["node"]["id"] for edge in page["edges"]] == [node["id"] for node in page["nodes"]]
        seen += [node["id"] for node in page["nodes"]]
        info = page["pageInfo"]
        assert info["hasPreviousPage"] is (after is not None)
        assert [info["startCursor"], info["endCursor"]] == [page["edges"][0]["cursor"], page["edges"][-1]["cursor"]]
        if not info["hasNextPage"]:
            break
        after = info["endCursor"]
        await client.event(receiver, name="newer")
    assert seen == ids[::-1]
    last = (await client(LIST, after=info["endCursor"])).data["events"]
    assert (last["nodes"], last["pageInfo"]["hasNextPage"], last["pageInfo"]["endCursor"]) == ([], False, None)


LISTS = ("events", "eventReceivers", "eventReceiverGroups")


async def test_page_size_outside_1_to_100_is_rejected(client: InProcessClient) -> None:
    for first, field in product((0, -1, 101, 2**31 - 1), LISTS):
        response = await client(f"query ($n: Int!) {{ {field}(first: $n) {{ nodes {{ id }} }} }}", n=first)
        assert (response.codes, response.fields) == (["INVALID_INPUT"], ["first"])
    for first in (0, 101):
        response = await client("query ($n: Int!) { stream(first: $n) { cursor } }", n=first)
        assert (response.codes, response.fields) == (["INVALID_INPUT"], ["first"])


async def test_invalid_list_cursor_is_rejected(client: InProcessClient) -> None:
    for after, field in product(("", "x", "-1", "1.5", "9" * 30, "1-ABCDEFGH", "\u0661"), LISTS):
        response = await client(
            f"query ($after: String) {{ {field}(after: $after) {{ nodes {{ id }} }} }}", after=after
        )
        assert (response.codes, response.fields) == (["INVALID_INPUT"], ["after"])


async def test_events_must_match_all_filters(client: InProcessClient) -> None:
    build, scan = await client.receiver("build"), await client.receiver("scan")
    match = await client.event(
        build, name="match", version="2", release="r", platformId="p", package="k", success=False
    )
    for other in ({"version": "3"}, {"success": True}, {"package": "K"}):
        await client.event(build, **{"name": "match", "version": "2", "release": "r", "success": False, **other})
    await client.event(scan, name="match", version="2", release="r", platformId="p", package="k", success=False)
    unit = {"name": "match", "version": "2", "release": "r", "platformId": "p", "package": "k"}
    everything = {**unit, "success": False, "eventReceiverId": build}
    for filter in (everything, {"unit": unit, "eventReceiverId": build}, {**everything, "unit": unit}):
        assert (await client(LIST, filter=filter)).data["events"]["nodes"] == [{"id": match["id"], "name": "match"}]
    counts = {
        name: len((await client(LIST, filter={name: value})).data["events"]["nodes"])
        for name, value in {**everything, "unit": unit}.items()
    }
    assert counts == {
        "name": 5,
        "version": 4,
        "release": 5,
        "platformId": 2,
        "package": 2,
        "success": 4,
        "eventReceiverId": 4,
        "unit": 2,
    }
    assert not (await client(LIST, filter={"name": "match", "unit": UNIT})).data["events"]["nodes"]


async def test_events_are_filtered_by_recording_time(client: InProcessClient) -> None:
    receiver = await client.receiver()
    for n in range(3):
        await client.event(receiver, name=f"n{n}", occurredAt="2001-02-03T04:05:06+02:00")
    listed = await client("{ events { nodes { name recordedAt occurredAt } } }")
    assert b'"occurredAt":"2001-02-03T02:05:06.000000Z"' in listed.raw
    times = {node["name"]: node["recordedAt"] for node in listed.data["events"]["nodes"]}
    for filter, names in (
        ({"recordedFrom": times["n1"]}, ["n2", "n1"]),
        ({"recordedBefore": times["n1"]}, ["n0"]),
        ({"recordedFrom": times["n1"], "recordedBefore": times["n2"]}, ["n1"]),
        ({"recordedFrom": times["n2"], "recordedBefore": times["n0"]}, []),
    ):
        nodes = (await client(LIST, filter=filter)).data["events"]["nodes"]
        assert [node["name"] for node in nodes] == names


INVALID_TIMES = [
    *("yesterday", "2026-11-20", "2026-11-20T21:15:27", "", 5, True, {"a": 1}),
    *("0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"),
]


async def test_invalid_time_is_rejected(client: InProcessClient) -> None:
    receiver = await client.receiver()
    for time in INVALID_TIMES:
        response = await create(client, receiver, occurredAt=time)
        assert (response.codes, response.fields) == (["INVALID_INPUT"], ["occurredAt"]), response.raw
        response = await client(LIST, filter={"recordedFrom": time})
        assert (response.codes, response.fields) == (["INVALID_INPUT"], ["recordedFrom"]), response.raw
        response = await client(f"{{ events(filter: {{recordedFrom: {as_literal(time)}}}) {{ nodes {{ id }} }} }}")
        assert response.codes == ["GRAPHQL_VALIDATION_FAILED"], response.raw
    assert await no_event_was_recorded(client)


async def test_event_from_the_future_is_rejected(client: InProcessClient) -> None:
    response = await create(client, await client.receiver(), occurredAt="2999-01-01T00:00:00Z")
    assert (response.codes, response.fields) == (["INVALID_INPUT"], ["occurredAt"])
    assert await no_event_was_recorded(client)


async def test_null_payload_is_accepted_but_missing_one_is_not(client: InProcessClient) -> None:
    receiver = await client.receiver(schema={"type": "null"})
    created = await create(client, receiver, payload=None)
    assert created.data["createEvent"]["event"]["payload"] is None
    assert b'"payload":null' in created.raw
    before = await head(client)
    event = {name: value for name, value in new_event(receiver).items() if name != "payload"}
    response = await client(CREATE, input=event)
    assert (response.codes, response.fields) == (["INVALID_INPUT"], ["payload"])
    response = await client(CREATE_MANY, input={"events": [new_event(receiver, payload=None), event]})
    assert (response.codes, response.fields) == (["INVALID_INPUT"], ["events/1/payload"])
    assert await head(client) == before
