"""Pages that examine 20,000 entries and find fewer than they should have: clients continue, and miss nothing."""

from collections.abc import AsyncGenerator
from typing import LiteralString

import psycopg
import pytest

from tests.support.requests import InProcessClient, Json, in_process_client

LIST = """
query ($filter: EventFilterInput, $after: String) {
  events(filter: $filter, first: 2, after: $after) {
    nodes { name } pageInfo { hasNextPage startCursor endCursor }
  }
}
"""
STREAM = """
query ($filter: StreamFilterInput, $after: String) {
  stream(filter: $filter, first: 2, after: $after) {
    messages { ... on EventRecorded { event { name } } } cursor hasNext
  }
}
"""
COPIES = 20_050
# Copies of the newest event and its message, at the next positions.
_COPY: tuple[LiteralString, ...] = (
    """
    INSERT INTO events (position, id, unit_id, name, version, release, platform_id, package, description, payload,
                        success, receiver_id, receiver_revision, owner_id, created_at, recorded_at)
    SELECT position + n, lpad((position + n)::text, 26, '0'), unit_id, name, version, release, platform_id, package,
           description, payload, success, receiver_id, receiver_revision, owner_id, created_at, recorded_at
    FROM generate_series(1, %(copies)s) AS n, (SELECT * FROM events ORDER BY position DESC LIMIT 1) AS newest
    """,
    """
    INSERT INTO messages (position, id, kind, time, actor_kind, actor_id, actor_name, receiver_id, event_position)
    SELECT position + n, lpad((position + n)::text, 26, '0'), kind, time, actor_kind, actor_id, actor_name, receiver_id,
           position + n
    FROM generate_series(1, %(copies)s) AS n, (SELECT * FROM messages ORDER BY position DESC LIMIT 1) AS newest
    """,
)


@pytest.fixture
async def client(database_url: str) -> AsyncGenerator[InProcessClient]:
    """A client of a hub with 20,050 events between the third and the fourth event of a rare platform."""
    async with in_process_client(database_url) as client:
        receiver = await client.receiver()
        for n in range(3):
            await client.event(receiver, name=f"rare {n}", platformId="rare")
        await client.event(receiver, name="filled")
        with psycopg.connect(database_url) as connection:
            for statement in _COPY:
                connection.execute(statement, {"copies": COPIES})
        await client.event(receiver, name="rare 3", platformId="rare")
        yield client


async def _pages_of_events(client: InProcessClient, **filter: object) -> list[Json]:
    pages: list[Json] = []
    after: str | None = None
    while not pages or pages[-1]["pageInfo"]["hasNextPage"]:
        pages.append((await client(LIST, filter=filter, after=after)).data["events"])
        after = pages[-1]["pageInfo"]["endCursor"]
    return pages


async def test_short_page_of_events_says_where_it_ended(client: InProcessClient) -> None:
    pages = await _pages_of_events(client, platformId="rare")
    assert [[node["name"] for node in page["nodes"]] for page in pages] == [
        ["rare 3"],
        ["rare 2", "rare 1"],
        ["rare 0"],
    ]
    first = pages[0]["pageInfo"]
    assert int(first["startCursor"]) - int(first["endCursor"]) == 19_999


async def test_empty_page_of_events_has_a_next_one(client: InProcessClient) -> None:
    first, last = await _pages_of_events(client, package="unknown")
    assert (first["nodes"], first["pageInfo"]["startCursor"]) == ([], None)
    assert last == {"nodes": [], "pageInfo": {"hasNextPage": False, "startCursor": None, "endCursor": None}}


async def test_condition_with_an_index_finds_old_events(client: InProcessClient) -> None:
    (page,) = await _pages_of_events(client, name="rare 0", platformId="rare", success=True)
    assert [node["name"] for node in page["nodes"]] == ["rare 0"]


async def test_short_pages_of_the_stream_lead_to_its_end(client: InProcessClient) -> None:
    names: list[list[str]] = []
    after, has_next = None, True
    while has_next:
        page = (await client(STREAM, filter={"platformId": "rare"}, after=after)).data["stream"]
        names.append([message["event"]["name"] for message in page["messages"]])
        after, has_next = page["cursor"], page["hasNext"]
    assert names == [["rare 0", "rare 1"], ["rare 2"], ["rare 3"]]
    assert after == str((await client.hub.stream.head()).cursor)
