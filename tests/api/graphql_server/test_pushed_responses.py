"""Responses to source events that are pushed instead of iterated."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import strawberry

from tests.api.graphql_server.small_schema import ADA, FakeBackend
from tests.support.hub import until
from xzepr.api.graphql_server.documents import DocumentLimits, Documents
from xzepr.api.graphql_server.operations import Call, GraphQLRequest, GraphQLResponse, GraphQLService
from xzepr.api.graphql_server.plans.execution import core_schema
from xzepr.core.actor import Actor

release = asyncio.Event()


@strawberry.type
class Item:
    """An item, some of whose fields are rendered with effort."""

    number: int

    @strawberry.field
    @staticmethod
    async def slow(root: strawberry.Parent["Item"]) -> int:
        """Waits for the test."""
        await release.wait()
        return root.number

    @strawberry.field
    @staticmethod
    def failing(root: strawberry.Parent["Item"]) -> int | None:
        """Fails."""
        raise RuntimeError(f"failed for {root.number}")


class Source:
    """Source events that the test sends, or pushes."""

    def __init__(self) -> None:
        self.deliver: Callable[[object], bool] | None = None
        self.events: asyncio.Queue[Item] = asyncio.Queue()

    def __aiter__(self) -> AsyncIterator[Item]:
        return self

    async def __anext__(self) -> Item:
        return await self.events.get()

    async def aclose(self) -> None:
        """Ends nothing."""


@strawberry.type
class Query:
    """Required by GraphQL."""

    unused: int = 0


@strawberry.type
class Subscription:
    """Streams."""

    @strawberry.subscription
    @staticmethod
    def items(info: strawberry.Info[Any, None]) -> AsyncIterator[Item]:
        return info.context


class Subscribed:
    """A subscription, the responses that were pushed to it, and the task that iterates."""

    def __init__(self, service: GraphQLService, source: Source, fields: str) -> None:
        self.accepts = True
        self.pushed: list[GraphQLResponse] = []
        self.iterated: list[GraphQLResponse] = []
        self._source = source
        request = GraphQLRequest(f"subscription {{ items {{ {fields} }} }}")
        self._responses = service.stream(service.prepare(request, ADA), Call(ADA, "r"), self._push)
        self.task = asyncio.create_task(self._iterate())

    def _push(self, response: GraphQLResponse) -> bool:
        if self.accepts:
            self.pushed.append(response)
        return self.accepts

    async def _iterate(self) -> None:
        async for response in self._responses:
            self.iterated.append(response)

    async def deliver(self, item: Item) -> bool:
        """Pushes an item as the source does while the iteration waits."""
        await until(lambda: self._source.deliver is not None)
        assert self._source.deliver is not None
        return self._source.deliver(item)


@pytest.fixture
def source() -> Source:
    release.clear()
    return Source()


@pytest.fixture
def service(source: Source) -> GraphQLService:
    def new_context(
        actor: Actor, request_id: str, extensions: Mapping[str, object], last_event_id: str | None
    ) -> Source:
        del actor, request_id, extensions, last_event_id
        return source

    schema = core_schema(strawberry.Schema(Query, subscription=Subscription))
    return GraphQLService(
        schema=schema,
        documents=Documents(schema, DocumentLimits(), 10),
        authenticate=FakeBackend().authenticate,
        new_context=new_context,
        shared_key=lambda item: item.number if isinstance(item, Item) and item.number else None,
    )


async def test_pushed_response_is_rendered_once(service: GraphQLService, source: Source) -> None:
    first = Subscribed(service, source, "number")
    item = Item(number=7)
    assert await first.deliver(item)
    source.deliver = None
    second = Subscribed(service, source, "number")
    assert await second.deliver(item)
    assert first.pushed[0] is second.pushed[0]
    assert first.pushed[0].to_json() == b'{"data":{"items":{"number":7}}}'
    assert not first.iterated + second.iterated
    for subscribed in (first, second):
        subscribed.task.cancel()


async def test_refused_response_can_still_be_iterated(service: GraphQLService, source: Source) -> None:
    subscribed = Subscribed(service, source, "number")
    subscribed.accepts = False
    item = Item(number=7)
    assert not await subscribed.deliver(item)
    source.events.put_nowait(item)
    await until(lambda: len(subscribed.iterated) == 1)
    assert subscribed.iterated[0].to_json() == b'{"data":{"items":{"number":7}}}'
    subscribed.task.cancel()


async def test_response_that_must_wait_is_not_pushed(service: GraphQLService, source: Source) -> None:
    subscribed = Subscribed(service, source, "slow")
    item = Item(number=7)
    assert not await subscribed.deliver(item)
    assert not await subscribed.deliver(item)
    source.events.put_nowait(item)
    release.set()
    await until(lambda: len(subscribed.iterated) == 1)
    assert subscribed.iterated[0].to_json() == b'{"data":{"items":{"slow":7}}}'
    assert not subscribed.pushed
    subscribed.task.cancel()


async def test_failed_response_is_pushed_and_not_kept(service: GraphQLService, source: Source) -> None:
    subscribed = Subscribed(service, source, "failing")
    item = Item(number=7)
    assert await subscribed.deliver(item)
    assert await subscribed.deliver(item)
    assert subscribed.pushed[0] is not subscribed.pushed[1]
    assert all(response.errors for response in subscribed.pushed)
    subscribed.task.cancel()


async def test_event_without_a_shared_key_is_iterated(service: GraphQLService, source: Source) -> None:
    subscribed = Subscribed(service, source, "number")
    assert not await subscribed.deliver(Item(number=0))
    assert not subscribed.pushed
    subscribed.task.cancel()
