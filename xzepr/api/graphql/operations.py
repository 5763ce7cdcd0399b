"""GraphQL operations, whatever brought them: who may ask, once or as a stream, and what is answered."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Protocol, cast

from graphql import ExecutionResult, GraphQLSchema, OperationDefinitionNode, OperationType
from graphql.execution.async_iterables import aclosing

from xzepr.api.auth import Authenticate
from xzepr.api.drain import Drain
from xzepr.api.errors import Internal, JsonObject, Refused, described
from xzepr.api.graphql.answers import Answer
from xzepr.api.graphql.documents import Document, Documents
from xzepr.api.graphql.execution import Execution, begin, executed, executed_for, source_of
from xzepr.api.graphql.problems import field_errors, masked, not_coerced
from xzepr.api.graphql.sharing import Group, SharedAnswers, shaping, written
from xzepr.core.actor import Actor, ActorKind
from xzepr.core.errors import Problem, Unauthenticated
from xzepr.features.stream.model import Message

_FOR_ANYONE = {
    OperationType.QUERY: frozenset({"__typename"}),
    OperationType.MUTATION: frozenset({"__typename", "login"}),
}


class NewContext(Protocol):
    """Makes the `info.context` of one operation, or of one message of a subscription: with loaders of its own."""

    def __call__(
        self, actor: Actor, request_id: str, extensions: Mapping[str, object], last_event_id: str | None
    ) -> object:
        """`last_event_id` is the cursor from which an SSE client resumes; it outranks the argument `after`."""
        ...


class Observe(Protocol):
    """Hears of each operation when it has ended, or was refused."""

    def __call__(self, operation_type: str, outcome: str, seconds: float) -> None:
        """`operation_type` is query, mutation, subscription or unknown; `outcome` is ok or the first error's code."""
        ...


@dataclass(frozen=True, slots=True)
class GraphQLRequest:
    """What a client asks for, not yet looked at."""

    query: str
    variables: dict[str, object] | None = None
    operation_name: str | None = None
    extensions: Mapping[str, object] = field(default_factory=dict[str, object])
    """What the client says beside the operation, as it sent it: for resolvers, and whatever is put around them."""


@dataclass(frozen=True, slots=True)
class Call:
    """Who asks, and the id under which the log tells of it."""

    actor: Actor
    request_id: str
    last_event_id: str | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation that may run: its document is valid and its caller may ask."""

    document: Document
    node: OperationDefinitionNode
    request: GraphQLRequest

    @property
    def type(self) -> str:
        """query, mutation or subscription."""
        return self.node.operation.value

    @property
    def is_subscription(self) -> bool:
        """Whether it answers more than once."""
        return self.node.operation is OperationType.SUBSCRIPTION


@dataclass(frozen=True, slots=True)
class GraphQLService:
    """One schema and what it needs to be served."""

    schema: GraphQLSchema
    documents: Documents
    authenticate: Authenticate
    new_context: NewContext
    observe: Observe | None = None
    drain: Drain = field(default_factory=Drain)
    hurry: Callable[[], AbstractContextManager[None]] = nullcontext
    """Entered while somebody waits for the answer to a query or a mutation; what can wait does so meanwhile."""
    shared: SharedAnswers = field(default_factory=SharedAnswers)

    def prepare(self, request: GraphQLRequest, actor: Actor) -> Operation:
        """The operation that the request names. Raises a Problem when it cannot run, or not for this actor.

        Callers who are not known learn nothing about the schema: they are refused before their document is validated.
        """
        try:
            document = self.documents.parsed(request.query)
            node = document.operation(request.operation_name)
            stranger = actor.kind is ActorKind.ANONYMOUS
            if stranger and not _is_for_anyone(document, node):
                raise Unauthenticated()
            # Strangers could otherwise push everybody else's documents out of the memory.
            self.documents.must_be_valid(document, remember=not stranger)
        except Problem as problem:
            self._heard("unknown", described(problem))
            raise
        return Operation(document, node, request)

    async def run(self, operation: Operation, call: Call) -> Answer:
        """The answer to a query or a mutation. Raises a Problem when its variables do not fit.

        A mutation goes on when the caller is cancelled.
        """
        running = self._observed(operation, _answered(executed(self._execution(operation, call)), call))
        if operation.node.operation is not OperationType.MUTATION:
            return await running
        task = asyncio.ensure_future(running)
        self.drain.mutations.add(task)
        task.add_done_callback(self.drain.mutations.discard)
        return await asyncio.shield(task)

    def stream(self, operation: Operation, call: Call) -> AsyncGenerator[Answer, None]:
        """The answers of a subscription until it ends. Raises a Problem when its variables do not fit.

        The iteration raises a Problem when the stream cannot begin or go on; close it when the caller has gone.
        """
        return self._stream(self._execution(operation, call), operation, call)

    async def _stream(self, execution: Execution, operation: Operation, call: Call) -> AsyncGenerator[Answer, None]:
        begun = perf_counter()
        errors: list[JsonObject] = []
        group = self._group(operation, call.actor)
        try:
            async with aclosing(await _source(execution, call)) as source:
                async for event in source:
                    make = partial(self._message, execution, event, operation, call)
                    if isinstance(event, Message) and group is not None:
                        yield await self.shared.answer(group, event.cursor, make)
                    else:
                        yield made if isinstance(made := make(), Answer) else await made
        except Exception as error:
            problem = error if isinstance(error, Problem) else _internal(error, call)
            errors = described(problem)
            raise problem from None
        finally:
            self._heard("subscription", errors, begun)

    def _heard(self, operation_type: str, errors: list[JsonObject], begun: float | None = None) -> None:
        if self.observe is not None:
            outcome = str(cast(JsonObject, errors[0]["extensions"])["code"]) if errors else "ok"
            self.observe(operation_type, outcome, 0 if begun is None else perf_counter() - begun)

    def _execution(self, operation: Operation, call: Call) -> Execution:
        extensions = operation.request.extensions
        context = self.new_context(call.actor, call.request_id, extensions, call.last_event_id)
        begun = begin(operation.document.plan(self.schema, operation.node), context, operation.request.variables)
        if isinstance(begun, list):
            problem = not_coerced(begun)
            self._heard(operation.type, described(problem))
            raise problem
        return begun

    def _group(self, operation: Operation, actor: Actor) -> Group | None:
        """Who is sent the same as this subscriber; None where that cannot be told."""
        request = operation.request
        plan = operation.document.plan(self.schema, operation.node)
        names = shaping(operation.node, list(plan.fragment_definitions.values()))
        try:
            said = written(names, request.variables or {}, request.extensions)
        except TypeError:
            return None
        return self.shared.group(plan, said, actor.permissions)

    def _message(
        self, execution: Execution, event: object, operation: Operation, call: Call
    ) -> Answer | Awaitable[Answer]:
        """What tells the event, at once if nothing has to be looked up."""
        context = self.new_context(call.actor, call.request_id, operation.request.extensions, None)
        cursor = getattr(event, "cursor", None)
        shown = None if cursor is None else str(cursor)
        try:
            result = executed_for(execution, event, context)
        except Exception as error:
            return _failed(error, call, shown)
        return _told(result, call, shown) if isinstance(result, ExecutionResult) else _answered(result, call, shown)

    async def _observed(self, operation: Operation, running: Awaitable[Answer]) -> Answer:
        begun = perf_counter()
        with self.hurry():
            answer = await running
        self._heard(operation.type, answer.errors, begun)
        return answer


def _is_for_anyone(document: Document, node: OperationDefinitionNode) -> bool:
    return document.root_fields(node) <= _FOR_ANYONE.get(node.operation, frozenset())


async def _answered(running: Awaitable[ExecutionResult], call: Call, cursor: str | None = None) -> Answer:
    """The answer, with all errors told; whatever escapes the execution is our own fault and told as such."""
    try:
        return _told(await running, call, cursor)
    except Exception as error:
        return _failed(error, call, cursor)


def _failed(error: Exception, call: Call, cursor: str | None) -> Answer:
    return Answer({"errors": [masked(error, call.request_id)], "data": None}, call.request_id, cursor)


def _told(result: ExecutionResult, call: Call, cursor: str | None) -> Answer:
    body: JsonObject = {"errors": field_errors(result.errors, call.request_id)} if result.errors else {}
    body["data"] = result.data
    return Answer(body, call.request_id, cursor)


async def _source(execution: Execution, call: Call) -> AsyncIterable[object]:
    """The events behind a subscription. Raises Refused when its resolver fails."""
    source = await source_of(execution)
    if isinstance(source, ExecutionResult):
        raise Refused(field_errors(source.errors or [], call.request_id))
    return source


def _internal(error: Exception, call: Call) -> Problem:
    masked(error, call.request_id)
    return Internal(call.request_id)
