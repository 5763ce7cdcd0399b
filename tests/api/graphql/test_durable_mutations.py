"""Mutations that need no separate task, because their service continues without the caller."""

import asyncio
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from xzepr.api.graphql import schema
from xzepr.api.graphql.context import Context
from xzepr.api.graphql_server.documents import DocumentLimits, Documents
from xzepr.api.graphql_server.operations import Call, GraphQLRequest, GraphQLService
from xzepr.api.graphql_server.plans.execution import core_schema
from xzepr.core.actor import SYSTEM, Actor
from xzepr.core.errors import InvalidToken

CREATE = (
    'createEvent(input: {name: "a", version: "1", release: "r", platformId: "p", package: "k", description: "d", '
    'payload: null, success: true, eventReceiverId: "x"}) { cursor }'
)


class WaitingRecorder:
    """A recorder whose calls wait until they are cancelled."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.cancelled = False

    async def record(self, *_: object) -> None:
        """Waits."""
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


async def _no_credential(_: str) -> Actor:
    raise InvalidToken()


@pytest.mark.parametrize(
    ("document", "has_own_task"),
    [
        (f"mutation {{ {CREATE} }}", False),
        (f"mutation {{ a: {CREATE} b: {CREATE} }}", True),
        (f"mutation {{ ...F }} fragment F on Mutation {{ {CREATE} }}", True),
    ],
)
async def test_only_single_create_runs_in_task_of_caller(document: str, has_own_task: bool):
    recorder = WaitingRecorder()
    hub = cast(Any, SimpleNamespace(recorder=recorder))
    built = core_schema(schema.build())
    service = GraphQLService(
        schema=built,
        documents=Documents(built, DocumentLimits()),
        authenticate=_no_credential,
        new_context=partial(Context.new, hub),
        durable_mutations=schema.DURABLE_MUTATIONS,
    )
    operation = service.prepare(GraphQLRequest(document), SYSTEM)
    caller = asyncio.create_task(service.run(operation, Call(SYSTEM, "r")))
    await recorder.started.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert recorder.cancelled is not has_own_task
    assert len(service.drain.mutations) == has_own_task
    for task in list(service.drain.mutations):
        task.cancel()
