"""Answers that subscriptions share: made once for who asks the same, never for who asks or may do something else."""

import asyncio

import pytest
from graphql import FragmentDefinitionNode, OperationDefinitionNode, parse

from xzepr.api.graphql.answers import Answer
from xzepr.api.graphql.sharing import SharedAnswers, shaping, written
from xzepr.features.stream.model import Cursor


def at(position: int) -> Cursor:
    return Cursor(position, "ABCDEFGH")


class Maker:
    """Makes answers, at once or after a while, and counts them."""

    def __init__(self, *, waits: bool = False, fails: bool = False) -> None:
        self.made = 0
        self.go = asyncio.Event()
        self._waits = waits
        self._fails = fails

    def __call__(self) -> "Answer | asyncio.Task[Answer]":
        self.made += 1
        answer = Answer({"errors": [{}]} if self._fails else {"data": self.made}, "r", str(self.made))
        return asyncio.create_task(self._after_a_while(answer)) if self._waits else answer

    async def _after_a_while(self, answer: Answer) -> Answer:
        await self.go.wait()
        return answer


async def test_group_shares_one_response():
    shared, make = SharedAnswers(), Maker()
    group = shared.group("document", b"", frozenset("ab"))
    first = await shared.answer(group, at(1), make)
    second = await shared.answer(shared.group("document", b"", frozenset("ba")), at(1), make)
    assert first.text() == second.text() == b'{"data":1}'
    assert first.cursor == second.cursor == "1"
    assert make.made == 1


@pytest.mark.parametrize("key", [("other", b"", "ab"), ("document", b"other", "ab"), ("document", b"", "a")])
async def test_different_requests_are_in_different_groups(key: tuple[str, bytes, str]):
    shared, make = SharedAnswers(), Maker()
    await shared.answer(shared.group("document", b"", frozenset("ab")), at(1), make)
    document, said, rights = key
    other = await shared.answer(shared.group(document, said, frozenset(rights)), at(1), make)
    assert other.text() == b'{"data":2}'


async def test_other_message_or_generation_gets_own_response():
    shared, make = SharedAnswers(), Maker()
    group = shared.group("document")
    for cursor in (at(1), at(2), Cursor(1, "HGFEDCBA")):
        await shared.answer(group, cursor, make)
    assert make.made == 3


async def test_concurrent_requests_share_one_execution():
    shared, make = SharedAnswers(), Maker(waits=True)
    group = shared.group("document")
    first, second, third = (asyncio.create_task(shared.answer(group, at(1), make)) for _ in range(3))
    await asyncio.sleep(0)
    first.cancel()
    make.go.set()
    assert (await second).body == (await third).body == {"data": 1}
    assert (await shared.answer(group, at(1), make)).body == {"data": 2}


async def test_failed_response_is_not_kept():
    shared, make = SharedAnswers(), Maker(fails=True)
    group = shared.group("document")
    for expected in ("1", "2"):
        assert (await shared.answer(group, at(1), make)).cursor == expected


async def test_oldest_responses_are_evicted_beyond_byte_limit():
    shared, make = SharedAnswers(most_bytes=10 * 600), Maker()
    groups = [shared.group(name) for name in "ab"]
    for position in range(100):
        await shared.answer(groups[position % 2], at(position), make)
    assert sum(len(group.kept) for group in groups) in (10, 11)
    assert await shared.answer(groups[1], at(99), make) is groups[1].kept[at(99)]
    assert make.made == 100


DOCUMENT = """
subscription ($after: String, $kinds: [StreamKind!], $first: Int, $deep: Int, $skip: Boolean!, $asked: Boolean!) {
  stream(after: $after, kinds: $kinds) @include(if: $asked) {
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
    names = shaping(operation, [fragment])
    assert names == {"first", "deep", "skip", "asked"}
    said = [written(names, {"after": after, "first": 1, "skip": False}, {}) for after in ("1-A", "2-B")]
    assert said[0] == said[1]
    assert written(names, {"first": 2, "skip": False}, {}) != said[0]
    assert written(names, {"first": 1, "skip": False}, {"x": 1}) != said[0]


def test_all_variables_split_groups_if_root_is_a_fragment():
    text = "subscription ($after: String) { ...F } fragment F on Subscription { stream(after: $after) { cursor } }"
    operation, fragment = parse(text).definitions
    assert isinstance(operation, OperationDefinitionNode)
    assert isinstance(fragment, FragmentDefinitionNode)
    assert shaping(operation, [fragment]) == {"after"}
