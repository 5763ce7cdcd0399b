"""A served hub from end to end: log in, create receivers, follow the stream, report events and see them arrive."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import Client
from tests.support.requests import UNIT, new_event
from tests.support.server import ServedHub

CREATE = """
mutation ($input: CreateEventInput!) {
  createEvent(input: $input) { cursor event { id } gates { complete } }
}
"""
PAGE = """
query ($after: String, $first: Int!) {
  stream(after: $after, first: $first) { cursor hasNext messages { kind cursor id } }
}
"""


@pytest.fixture
async def client(served_hub: ServedHub) -> Client:
    return await Client(served_hub.url).logged_in("admin", served_hub.admin_password)


async def report(client: Client, receiver: str, **fields: Any) -> dict[str, Any]:
    return (await client(CREATE, input=new_event(receiver, **fields))).data["createEvent"]


@pytest.mark.parametrize("transport", ["socket", "events"])
async def test_subscriber_receives_reported_events(client: Client, transport: str) -> None:
    build, scan = await client.receiver("build"), await client.receiver("scan")
    group = await client.group(build, scan)
    follow = client.socket if transport == "socket" else client.events
    async with follow() as frames:
        beginning = await frames.next()
        assert beginning["__typename"] == "Checkpoint"
        first = await report(client, build, name=transport, payload={"b": 1, "a": [2.5]})
        second = await report(client, scan, name=transport)
        third = await report(client, build, name=transport, success=False)
        frames_received = await frames.messages(5)
    assert [gate["complete"] for created in (first, second, third) for gate in created["gates"]] == [False, True, False]
    kinds = ["EVENT_RECORDED", "EVENT_RECORDED", "GATE_COMPLETED", "EVENT_RECORDED", "GATE_REGRESSED"]
    assert [frame["kind"] for frame in frames_received] == kinds
    assert [frames_received[at]["event"]["id"] for at in (0, 1, 3)] == [
        created["event"]["id"] for created in (first, second, third)
    ]
    assert [frames_received[at]["cursor"] for at in (0, 1, 3)] == [
        created["cursor"] for created in (first, second, third)
    ]
    assert list(frames_received[0]["event"]["payload"].items()) == [("b", 1), ("a", [2.5])]
    assert {frame["actor"]["name"] for frame in frames_received} == {"admin"}
    assert [(frames_received[at]["transition"], frames_received[at]["eventReceiverGroupId"]) for at in (2, 4)] == [
        (True, group)
    ] * 2
    if transport == "events":
        assert [frame["sse_id"] for frame in frames_received] == [frame["cursor"] for frame in frames_received]


@pytest.mark.parametrize("transport", ["socket", "events"])
async def test_returning_subscriber_resumes_after_its_cursor(client: Client, transport: str) -> None:
    receiver = await client.receiver("resumed")
    before = [await report(client, receiver, version=str(n)) for n in range(4)]
    follow = client.socket if transport == "socket" else client.events
    async with follow(after=before[1]["cursor"], filter={"eventReceiverIds": [receiver]}) as frames:
        first = await frames.next()
        assert (first["__typename"], first["cursor"]) == ("Checkpoint", before[1]["cursor"])
        missed = await frames.messages(2)
        live = await report(client, receiver, version="live")
        missed.append(await frames.message())
    assert [frame["event"]["id"] for frame in missed] == [created["event"]["id"] for created in (*before[2:], live)]


async def test_last_event_id_overrides_after(client: Client) -> None:
    receiver = await client.receiver("sse")
    before = [await report(client, receiver, version=str(n)) for n in range(3)]
    variables = {"filter": {"eventReceiverIds": [receiver]}, "kinds": ["EVENT_RECORDED"]}
    async with client.events(last_event_id=before[1]["cursor"], after=before[0]["cursor"], **variables) as frames:
        assert (await frames.message())["event"]["id"] == before[2]["event"]["id"]


async def test_stream_pages_hold_every_message(client: Client) -> None:
    receiver = await client.receiver("paged")
    start = (await report(client, receiver))["cursor"]
    cursors = [(await report(client, receiver, version=str(n)))["cursor"] for n in range(5)]
    seen: list[str] = []
    after, pages = start, 0
    while True:
        page = (await client(PAGE, after=after, first=2)).data["stream"]
        seen += [message["cursor"] for message in page["messages"]]
        after, pages = page["cursor"], pages + 1
        if not page["hasNext"]:
            break
    assert ([cursor for cursor in seen if cursor in cursors], pages) == (cursors, 3)
    assert after == cursors[-1]
    empty = (await client(PAGE, after=after, first=2)).data["stream"]
    assert empty == {"cursor": after, "hasNext": False, "messages": []}


async def test_cursor_of_another_stream_is_rejected(client: Client) -> None:
    cursor = (await report(client, await client.receiver("diverged")))["cursor"]
    position, _, tail = cursor.partition("-")
    for other in (f"{position}-{tail[::-1]}", f"{10**9}-{tail}", "0-AAAAAAAA"):
        assert (await client(PAGE, after=other, first=1)).codes == ["STREAM_DIVERGED"]
    for malformed in ("x", "", "-1", f"{position}-", "1" * 30 + "-AAAAAAAA"):
        response = await client(PAGE, after=malformed, first=1)
        assert (response.codes, response.fields) == (["INVALID_INPUT"], ["after"])


async def test_unit_shows_its_timeline_with_gates(client: Client) -> None:
    build, scan = await client.receiver("build"), await client.receiver("scan")
    group = await client.group(build, scan)
    key = {**UNIT, "name": Path(__file__).name}
    events = [await report(client, build, **key), await report(client, scan, **{**key, "success": False})]
    unit = (
        "query ($key: UnitInput!) { unit(unit: $key) "
        "{ events { nodes { id } } gates { complete eventReceiverGroup { id } } } }"
    )
    unit_data = (await client(unit, key=key)).data["unit"]
    assert [node["id"] for node in unit_data["events"]["nodes"]] == [event["event"]["id"] for event in reversed(events)]
    assert unit_data["gates"] == [{"complete": False, "eventReceiverGroup": {"id": group}}]
    unknown_unit = (await client(unit, key={**key, "version": "never"})).data["unit"]
    assert (unknown_unit["events"]["nodes"], unknown_unit["gates"]) == ([], [])
