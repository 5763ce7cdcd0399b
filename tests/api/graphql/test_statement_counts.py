"""The number of SQL statements of an operation, which does not depend on the number of rows."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from tests.api.graphql.statement_counter import CountedDatabase
from tests.support.requests import UNIT, InProcessClient, Json, in_process_client, new_event
from xzepr.app import create_app

MANY = "mutation ($input: CreateEventsInput!) { createEvents(input: $input) { results { problems { message } } } }"


class Counter:
    """Executes operations on a hub and counts their SQL statements."""

    def __init__(self, client: InProcessClient, database: CountedDatabase) -> None:
        self.client = client
        self._database = database

    async def __call__(self, query: str, **variables: Any) -> tuple[Json, int]:
        """Returns the data and the number of statements."""
        self._database.statements.clear()
        response = await self.client(query, **variables)
        return response.data, len(self._database.statements)

    @asynccontextmanager
    async def before_any_read(self) -> AsyncGenerator["Counter"]:
        """Yields a counter for a hub on the same database that has read nothing."""
        client, hub = self.client, self._database.rewired(self.client.hub)
        await hub.feed.started()
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(create_app(hub)), base_url="http://localhost"
        ) as http:
            yield Counter(InProcessClient(hub, http, client.admin, client.secret), self._database)


@asynccontextmanager
async def counting(database_url: str) -> AsyncGenerator[Counter]:
    """Yields a counter for a hub on this database."""
    database = CountedDatabase(database_url)
    await database.open()
    try:
        async with in_process_client(database_url, rewired=database.rewired) as client:
            yield Counter(client, database)
    finally:
        await database.close()


@pytest.fixture
async def count(database_url: str) -> AsyncGenerator[Counter]:
    async with counting(database_url) as counter:
        yield counter


async def populate(client: InProcessClient, receivers: int, groups: int, units: int) -> tuple[list[str], list[str]]:
    """Creates receivers with an event for each unit, and groups of all receivers; returns the ids of both."""
    receiver_ids = [await client.receiver(f"r{n}") for n in range(receivers)]
    group_ids = [await client.group(*receiver_ids, name=f"g{n}") for n in range(groups)]
    events = [new_event(receiver_id, version=str(unit)) for unit in range(units) for receiver_id in receiver_ids]
    results = (await client(MANY, input={"events": events})).data["createEvents"]["results"]
    assert not any(result["problems"] for result in results)
    return receiver_ids, group_ids


# With the highest number of statements of a first read, and the number of the same read again: the positions of lists,
# and the token of the catalog once for each level that has receivers or groups.
QUERIES = {
    "events with their receivers and groups": (
        "{ events(first: 100) { nodes { eventReceiver { "
        "name eventReceiverGroups { name eventReceivers { name } } } } } }",
        5,
        4,
    ),
    "receivers with their newest events": (
        "{ eventReceivers { nodes { one: events(first: 1) { nodes { id } } "
        "two: events(first: 2) { nodes { id eventReceiver { id } } } } } }",
        6,
        4,
    ),
    "events with their units' timelines": (
        "{ events(first: 100) { nodes { unit { events(first: 3) { nodes { id } pageInfo { hasNextPage } } } } } }",
        3,
        2,
    ),
    "units with their gates and the events of members": (
        "{ events(first: 100) { nodes { unit { gates { complete eventReceiverGroup { name } "
        "members { state event { id } eventReceiver { name } } } } } } }",
        5,
        4,
    ),
    "groups with members": (
        "{ eventReceiverGroups { nodes { eventReceivers { name eventReceiverGroups { id } } } } }",
        3,
        3,
    ),
    "the stream": (
        "{ stream(first: 100) { messages { ... on EventRecorded { event { eventReceiver { name } } } "
        "... on GroupCreated { eventReceiverGroup { name } } } } }",
        3,
        3,
    ),
}


@pytest.mark.parametrize("title", QUERIES)
async def test_statement_count_is_independent_of_rows(count: Counter, title: str) -> None:
    query, first, repeated = QUERIES[title]
    await populate(count.client, receivers=1, groups=1, units=1)
    few, few_repeated = await counts(count, query)
    await populate(count.client, receivers=5, groups=4, units=10)
    many, many_repeated = await counts(count, query)
    assert max(few, many) <= first
    assert (few_repeated, many_repeated) == (repeated, repeated)


async def counts(count: Counter, query: str) -> tuple[int, int]:
    """Returns the number of statements of a query on a hub that has read nothing, and of the repeated query."""
    async with count.before_any_read() as fresh:
        return (await fresh(query))[1], (await fresh(query))[1]


async def test_group_members_are_read_in_one_batch(count: Counter) -> None:
    receiver_ids, (group,) = await populate(count.client, receivers=20, groups=1, units=1)
    data, statements = await count(
        "query ($id: ID!) { eventReceiverGroup(id: $id) { eventReceivers { id } } }", id=group
    )
    assert [receiver["id"] for receiver in data["eventReceiverGroup"]["eventReceivers"]] == receiver_ids
    assert statements == 2


async def test_gate_reads_member_events_in_one_batch(count: Counter) -> None:
    receiver_ids, (group,) = await populate(count.client, receivers=20, groups=1, units=1)
    gate = (
        "query ($id: ID!, $unit: UnitInput!) { gate(eventReceiverGroupId: $id, unit: $unit) "
        "{ complete members { state event { eventReceiverId } eventReceiver { id } } } }"
    )
    data, statements = await count(gate, id=group, unit={**UNIT, "version": "0"})
    assert data["gate"]["complete"] is True
    assert [member["event"]["eventReceiverId"] for member in data["gate"]["members"]] == receiver_ids
    assert statements == 4


async def test_batched_timeline_equals_single_timeline(count: Counter) -> None:
    await populate(count.client, receivers=2, groups=1, units=3)
    fields = "nodes { id } pageInfo { hasNextPage endCursor }"
    page = f"events(first: 2, after: $after) {{ {fields} }}"
    batched = f"query ($after: String) {{ eventReceivers {{ nodes {{ id {page} }} }} }}"
    single = (
        "query ($id: ID!, $after: String) {"
        f"  events(filter: {{eventReceiverId: $id}}, first: 2, after: $after) {{ {fields} }} }}"
    )
    for after in (None, "7", "5", "1"):
        for receiver in (await count(batched, after=after))[0]["eventReceivers"]["nodes"]:
            assert receiver["events"] == (await count(single, id=receiver["id"], after=after))[0]["events"]


async def test_failing_rows_do_not_break_the_batch(count: Counter) -> None:
    await populate(count.client, receivers=3, groups=1, units=1)
    response = await count.client(
        "{ eventReceivers { nodes { id a: events(first: 0) { nodes { id } } eventReceiverGroups { id } } } }"
    )
    assert set(response.codes) == {"INVALID_INPUT"}
