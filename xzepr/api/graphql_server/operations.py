"""GraphQL operations, whatever brought them: who may ask, once or as a stream, and what is answered."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Protocol, cast

from graphql import ExecutionResult, GraphQLSchema, OperationDefinitionNode, OperationType
from graphql.execution.async_iterables import aclosing

from xzepr.api.auth import Authenticate
from xzepr.api.drain import Drain
from xzepr.api.errors import Internal, JsonObject, RequestRejected, error_objects
from xzepr.api.graphql_server.documents import Document, Documents
from xzepr.api.graphql_server.errors import FieldName, field_errors, mask, variable_error
from xzepr.api.graphql_server.execution import Execution, execute, execute_event, prepare, subscribe
from xzepr.api.graphql_server.responses import (
    GraphQLResponse,
    ResponseGroup,
    SharedResponses,
    response_key,
    shaping_variables,
)
from xzepr.core.actor import Actor, ActorKind
from xzepr.core.errors import Problem, Unauthenticated


def _not_shared(_: object) -> Hashable | None:
    return None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphQLService:
    """One schema and what it needs to be served."""

    schema: GraphQLSchema
    documents: Documents
    authenticate: Authenticate
    new_context: NewContext
    public_mutations: frozenset[str] = frozenset()
    """Mutations open to clients without credentials; of queries only `__typename` is."""
    field_name: FieldName = str
    """Returns the schema's name of a field that a Problem names."""
    shared_key: Callable[[object], Hashable | None] = _not_shared
    """Returns the key under which subscribers share the response for a source event; None if they do not."""
    observe: Observe | None = None
    drain: Drain = field(default_factory=Drain)
    request_in_flight: Callable[[], AbstractContextManager[None]] = nullcontext
    """Entered while somebody waits for the answer to a query or a mutation; what can wait does so meanwhile."""
    shared_responses: SharedResponses = field(default_factory=SharedResponses)

    def prepare(self, request: GraphQLRequest, actor: Actor) -> Operation:
        """The operation that the request names. Raises a Problem when it cannot run, or not for this actor.

        Callers who are not known learn nothing about the schema: they are refused before their document is validated.
        """
        try:
            document = self.documents.parse(request.query)
            node = document.operation(request.operation_name)
            stranger = actor.kind is ActorKind.ANONYMOUS
            if stranger and not self._is_public(document, node):
                raise Unauthenticated()
            # Strangers could otherwise push everybody else's documents out of the memory.
            self.documents.validate(document, cache=not stranger)
        except Problem as problem:
            self._observe("unknown", error_objects(problem))
            raise
        return Operation(document, node, request)

    def _is_public(self, document: Document, node: OperationDefinitionNode) -> bool:
        public = {"__typename"}
        if node.operation is OperationType.MUTATION:
            public |= self.public_mutations
        elif node.operation is not OperationType.QUERY:
            return False
        return document.root_fields(node) <= public

    async def run(self, operation: Operation, call: Call) -> GraphQLResponse:
        """The answer to a query or a mutation. Raises a Problem when its variables do not fit.

        A mutation goes on when the caller is cancelled.
        """
        running = self._run_observed(operation, self._await_response(execute(self._execution(operation, call)), call))
        if operation.node.operation is not OperationType.MUTATION:
            return await running
        task = asyncio.ensure_future(running)
        self.drain.mutations.add(task)
        task.add_done_callback(self.drain.mutations.discard)
        return await asyncio.shield(task)

    def stream(self, operation: Operation, call: Call) -> AsyncGenerator[GraphQLResponse, None]:
        """The answers of a subscription until it ends. Raises a Problem when its variables do not fit.

        The iteration raises a Problem when the stream cannot begin or go on; close it when the caller has gone.
        """
        return self._stream(self._execution(operation, call), operation, call)

    async def _stream(
        self, execution: Execution, operation: Operation, call: Call
    ) -> AsyncGenerator[GraphQLResponse, None]:
        begun = perf_counter()
        errors: list[JsonObject] = []
        group = self._group(operation, call.actor)
        try:
            async with aclosing(await self._subscribe(execution, call)) as source:
                async for event in source:
                    make = partial(self._render_event, execution, event, operation, call)
                    key = None if group is None else self.shared_key(event)
                    if group is not None and key is not None:
                        yield await self.shared_responses.response(group, key, make)
                    else:
                        yield made if isinstance(made := make(), GraphQLResponse) else await made
        except Exception as error:
            problem = error if isinstance(error, Problem) else _internal_problem(error, call)
            errors = error_objects(problem)
            raise problem from None
        finally:
            self._observe("subscription", errors, begun)

    def _observe(self, operation_type: str, errors: list[JsonObject], begun: float | None = None) -> None:
        if self.observe is not None:
            outcome = str(cast(JsonObject, errors[0]["extensions"])["code"]) if errors else "ok"
            self.observe(operation_type, outcome, 0 if begun is None else perf_counter() - begun)

    def _execution(self, operation: Operation, call: Call) -> Execution:
        extensions = operation.request.extensions
        context = self.new_context(call.actor, call.request_id, extensions, call.last_event_id)
        begun = prepare(operation.document.plan(self.schema, operation.node), context, operation.request.variables)
        if isinstance(begun, list):
            problem = variable_error(begun)
            self._observe(operation.type, error_objects(problem))
            raise problem
        return begun

    def _group(self, operation: Operation, actor: Actor) -> ResponseGroup | None:
        """Who is sent the same as this subscriber; None where that cannot be told."""
        request = operation.request
        plan = operation.document.plan(self.schema, operation.node)
        names = shaping_variables(operation.node, list(plan.fragment_definitions.values()))
        try:
            said = response_key(names, request.variables or {}, request.extensions)
        except TypeError:
            return None
        return self.shared_responses.group(plan, said, actor.permissions)

    def _render_event(
        self, execution: Execution, event: object, operation: Operation, call: Call
    ) -> GraphQLResponse | Awaitable[GraphQLResponse]:
        """What tells the event, at once if nothing has to be looked up."""
        context = self.new_context(call.actor, call.request_id, operation.request.extensions, None)
        cursor = getattr(event, "cursor", None)
        shown = None if cursor is None else str(cursor)
        try:
            result = execute_event(execution, event, context)
        except Exception as error:
            return _internal_error_response(error, call, shown)
        return (
            self._response(result, call, shown)
            if isinstance(result, ExecutionResult)
            else self._await_response(result, call, shown)
        )

    async def _run_observed(self, operation: Operation, running: Awaitable[GraphQLResponse]) -> GraphQLResponse:
        begun = perf_counter()
        with self.request_in_flight():
            answer = await running
        self._observe(operation.type, answer.errors, begun)
        return answer

    async def _await_response(
        self, running: Awaitable[ExecutionResult], call: Call, cursor: str | None = None
    ) -> GraphQLResponse:
        """Returns the response once the operation has run. An exception that escapes it is an internal error."""
        try:
            return self._response(await running, call, cursor)
        except Exception as error:
            return _internal_error_response(error, call, cursor)

    def _response(self, result: ExecutionResult, call: Call, cursor: str | None) -> GraphQLResponse:
        body: JsonObject = {}
        if result.errors:
            body["errors"] = field_errors(result.errors, call.request_id, self.field_name)
        body["data"] = result.data
        return GraphQLResponse(body, call.request_id, cursor)

    async def _subscribe(self, execution: Execution, call: Call) -> AsyncIterable[object]:
        """Returns the source events of a subscription. Raises RequestRejected if its resolver fails."""
        source = await subscribe(execution)
        if isinstance(source, ExecutionResult):
            raise RequestRejected(field_errors(source.errors or [], call.request_id, self.field_name))
        return source


def _internal_error_response(error: Exception, call: Call, cursor: str | None) -> GraphQLResponse:
    return GraphQLResponse({"errors": [mask(error, call.request_id)], "data": None}, call.request_id, cursor)


def _internal_problem(error: Exception, call: Call) -> Problem:
    mask(error, call.request_id)
    return Internal(call.request_id)
