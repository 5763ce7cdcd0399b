"""Responses that subscriptions share if their requests and permissions are equal, and only then."""

import asyncio

import pytest
from graphql import FragmentDefinitionNode, OperationDefinitionNode, parse

from xzepr.api.graphql_server.responses import GraphQLResponse, SharedResponses, response_key, shaping_variables
from xzepr.features.stream.model import Cursor


def cursor_at(position: int) -> Cursor:
    return Cursor(position, "ABCDEFGH")


class ResponseFactory:
    """Creates responses, either at once or when released, and counts them."""

    def __init__(self, *, waits: bool = False, fails: bool = False) -> None:
        self.created = 0
        self.release = asyncio.Event()
        self._waits = waits
        self._fails = fails

    def __call__(self) -> "GraphQLResponse | asyncio.Task[GraphQLResponse]":
        self.created += 1
        response = GraphQLResponse({"errors": [{}]} if self._fails else {"data": self.created}, "r", str(self.created))
        return asyncio.create_task(self._after_release(response)) if self._waits else response

    async def _after_release(self, response: GraphQLResponse) -> GraphQLResponse:
        await self.release.wait()
        return response


async def test_group_shares_one_response():
    shared, create = SharedResponses(), ResponseFactory()
    group = shared.group("document", b"", frozenset("ab"))
    first = await shared.response(group, cursor_at(1), create)
    second = await shared.response(shared.group("document", b"", frozenset("ba")), cursor_at(1), create)
    assert first.to_json() == second.to_json() == b'{"data":1}'
    assert first.cursor == second.cursor == "1"
    assert create.created == 1


@pytest.mark.parametrize("key", [("other", b"", "ab"), ("document", b"other", "ab"), ("document", b"", "a")])
async def test_different_requests_are_in_different_groups(key: tuple[str, bytes, str]):
    shared, create = SharedResponses(), ResponseFactory()
    await shared.response(shared.group("document", b"", frozenset("ab")), cursor_at(1), create)
    document, variables, permissions = key
    other = await shared.response(shared.group(document, variables, frozenset(permissions)), cursor_at(1), create)
    assert other.to_json() == b'{"data":2}'


async def test_other_message_or_generation_gets_own_response():
    shared, create = SharedResponses(), ResponseFactory()
    group = shared.group("document")
    for cursor in (cursor_at(1), cursor_at(2), Cursor(1, "HGFEDCBA")):
        await shared.response(group, cursor, create)
    assert create.created == 3


async def test_concurrent_requests_share_one_execution():
    shared, create = SharedResponses(), ResponseFactory(waits=True)
    group = shared.group("document")
    first, second, third = (asyncio.create_task(shared.response(group, cursor_at(1), create)) for _ in range(3))
    await asyncio.sleep(0)
    first.cancel()
    create.release.set()
    assert (await second).body == (await third).body == {"data": 1}
    assert (await shared.response(group, cursor_at(1), create)).body == {"data": 2}


async def test_failed_response_is_not_kept():
    shared, create = SharedResponses(), ResponseFactory(fails=True)
    group = shared.group("document")
    for expected in ("1", "2"):
        assert (await shared.response(group, cursor_at(1), create)).cursor == expected


async def test_oldest_responses_are_evicted_beyond_byte_limit():
    shared, create = SharedResponses(max_bytes=10 * 600), ResponseFactory()
    groups = [shared.group(name) for name in "ab"]
    for position in range(100):
        await shared.response(groups[position % 2], cursor_at(position), create)
    assert sum(len(group.cached) for group in groups) in (10, 11)
    assert await shared.response(groups[1], cursor_at(99), create) is groups[1].cached[cursor_at(99)]
    assert create.created == 100


DOCUMENT = """
subscription ($after: String, $kinds: [StreamKind!], $first: Int, $deep: Int, $skip: Boolean!, $include: Boolean!) {
  stream(after: $after, kinds: $kinds) @include(if: $include) {
    cursor
    ... on EventRecorded { event { eventReceiver { events(first: $first) { edges { node { id } } } } } ...Rest }
  }
}
fragment Rest on EventRecorded {
  id @skip(if: $skip)
  event { eventReceiver { events(first: $deep) { pageInfo { hasNextPage } } } }
}
"""


def test_variables_that_select_messages_do_not_split_groups():
    operation, fragment = parse(DOCUMENT).definitions
    assert isinstance(operation, OperationDefinitionNode)
    assert isinstance(fragment, FragmentDefinitionNode)
    names = shaping_variables(operation, [fragment])
    assert names == {"first", "deep", "skip", "include"}
    keys = [response_key(names, {"after": after, "first": 1, "skip": False}, {}) for after in ("1-A", "2-B")]
    assert keys[0] == keys[1]
    assert response_key(names, {"first": 2, "skip": False}, {}) != keys[0]
    assert response_key(names, {"first": 1, "skip": False}, {"x": 1}) != keys[0]


def test_all_variables_split_groups_if_root_is_a_fragment():
    text = "subscription ($after: String) { ...F } fragment F on Subscription { stream(after: $after) { cursor } }"
    operation, fragment = parse(text).definitions
    assert isinstance(operation, OperationDefinitionNode)
    assert isinstance(fragment, FragmentDefinitionNode)
    assert shaping_variables(operation, [fragment]) == {"after"}
