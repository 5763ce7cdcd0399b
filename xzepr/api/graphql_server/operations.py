"""Runs GraphQL operations for every transport: authorises them, executes them and reports their outcome."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from types import MappingProxyType
from typing import NamedTuple, Protocol, cast

from graphql import ExecutionResult, GraphQLSchema, OperationDefinitionNode, OperationType
from graphql.execution.async_iterables import aclosing

from xzepr.api.auth import Authenticate
from xzepr.api.drain import Drain
from xzepr.api.errors import Internal, JsonObject, RequestRejected, error_objects
from xzepr.api.graphql_server.documents import Document, Documents
from xzepr.api.graphql_server.errors import FieldName, field_errors, mask, unexplained, variable_error
from xzepr.api.graphql_server.plans.execution import Execution, FellBack, prepare
from xzepr.api.graphql_server.plans.plan import Plan
from xzepr.api.graphql_server.plans.rendered import RenderedObjects
from xzepr.api.graphql_server.responses import (
    GraphQLResponse,
    Push,
    PushSource,
    ResponseGroup,
    SharedResponses,
    response_key,
    shaping_variables,
)
from xzepr.core.actor import Actor, ActorKind
from xzepr.core.errors import Problem, Unauthenticated


def _not_shared(_: object) -> Hashable | None:
    return None


def _not_counted(_: str) -> None:
    return None


class NewContext(Protocol):
    """Creates the `info.context` of one operation, or of one source event of a subscription."""

    def __call__(
        self, actor: Actor, request_id: str, extensions: Mapping[str, object], last_event_id: str | None
    ) -> object:
        """`last_event_id` is the cursor from which an SSE client resumes; it takes precedence over any argument."""
        ...


class Observe(Protocol):
    """Receives the outcome of each operation that has ended or was rejected."""

    def __call__(self, operation_type: str, outcome: str, seconds: float) -> None:
        """`operation_type` is query, mutation, subscription or unknown; `outcome` is ok or the first error's code."""
        ...


class GraphQLRequest(NamedTuple):
    """The members of a GraphQL request. The document is not parsed yet."""

    query: str
    variables: dict[str, object] | None = None
    operation_name: str | None = None
    extensions: Mapping[str, object] = MappingProxyType({})
    """The `extensions` of the request, unchanged, for resolvers and the context."""


class Call(NamedTuple):
    """The caller of an operation, and the request's id in the log."""

    actor: Actor
    request_id: str
    last_event_id: str | None = None


class Operation(NamedTuple):
    """An operation that may run: its document is valid, and its caller is known or uses only public fields."""

    document: Document
    node: OperationDefinitionNode
    type: str
    """`query`, `mutation` or `subscription`."""
    request: GraphQLRequest

    @property
    def is_subscription(self) -> bool:
        """Whether the operation has a stream of responses."""
        return self.type == "subscription"


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphQLService:
    """Serves one schema: prepares and runs operations. Everything specific to the schema is passed in."""

    schema: GraphQLSchema
    documents: Documents
    authenticate: Authenticate
    new_context: NewContext
    public_mutations: frozenset[str] = frozenset()
    """Mutations that clients without credentials may call; the only query they may run is `__typename`."""
    durable_mutations: frozenset[str] = frozenset()
    """Mutations that take effect although their resolver is cancelled. An operation with one of them needs no task."""
    field_name: FieldName = str
    """Returns the schema's name of a field that a Problem names."""
    shared_key: Callable[[object], Hashable | None] = _not_shared
    """Returns the key under which subscribers share the response for a source event; None if they do not."""
    observe: Observe | None = None
    fell_back: FellBack = _not_counted
    """Called with the reason when an operation is left to graphql-core: `operation`, `value` or `error`."""
    rendered: RenderedObjects = field(default_factory=lambda: RenderedObjects({}))
    """The cache of objects that never change."""
    drain: Drain = field(default_factory=Drain)
    request_in_flight: Callable[[], AbstractContextManager[None]] = nullcontext
    """A context that is entered while a query or a mutation runs, so that less urgent work can yield."""
    shared_responses: SharedResponses = field(default_factory=SharedResponses)

    def prepare(self, request: GraphQLRequest, actor: Actor) -> Operation:
        """Returns the operation of a request. Raises a Problem if it cannot run, or if the actor may not run it.

        Anonymous callers learn nothing about the schema: they are rejected before their document is validated, and an
        invalid document with public fields gets no explanation.
        """
        try:
            document = self.documents.parse(request.query)
            node, operation_type = document.operation(request.operation_name)
            anonymous = actor.kind is ActorKind.ANONYMOUS
            if anonymous and not self._is_public(document, node):
                raise Unauthenticated()
            self.documents.validate(document, anonymous=anonymous)
        except Problem as problem:
            self._observe("unknown", error_objects(problem))
            raise
        return Operation(document, node, operation_type, request)

    def _is_public(self, document: Document, node: OperationDefinitionNode) -> bool:
        public = {"__typename"}
        if node.operation is OperationType.MUTATION:
            public |= self.public_mutations
        elif node.operation is not OperationType.QUERY:
            return False
        return document.root_fields(node) <= public

    async def run(self, operation: Operation, call: Call) -> GraphQLResponse:
        """Returns the response to a query or a mutation. Raises a Problem if the variables do not match their types.

        A mutation continues if the caller is cancelled.
        """
        execution = self._execution(operation, call)
        if operation.type != "mutation" or operation.document.only_root_field(operation.node) in self.durable_mutations:
            return await self._run(execution, operation, call)
        task = asyncio.ensure_future(self._run(execution, operation, call))
        self.drain.mutations.add(task)
        task.add_done_callback(self.drain.mutations.discard)
        return await asyncio.shield(task)

    async def _run(self, execution: Execution, operation: Operation, call: Call) -> GraphQLResponse:
        started_at = perf_counter()
        with self.request_in_flight():
            try:
                response = self._response(await execution.run(), call, None)
            except Exception as error:
                response = _internal_error_response(error, call, None)
        self._observe(operation.type, response.errors, started_at)
        return response

    def stream(
        self, operation: Operation, call: Call, push: Push | None = None
    ) -> AsyncGenerator[GraphQLResponse, None]:
        """Yields the responses of a subscription. Raises a Problem at once if the variables do not match their types.

        Responses that `push` accepts are not yielded: it is called while the iteration waits for the next one. The
        iteration raises a Problem if the stream cannot begin or continue. Close it if the client disconnects.
        """
        return self._stream(self._execution(operation, call), operation, call, push)

    async def _stream(
        self, execution: Execution, operation: Operation, call: Call, push: Push | None
    ) -> AsyncGenerator[GraphQLResponse, None]:
        started_at = perf_counter()
        errors: list[JsonObject] = []
        group = self._group(operation, call.actor)
        try:
            async with aclosing(await self._subscribe(execution, call)) as source:
                if push is not None and group is not None and isinstance(source, PushSource):
                    render_event = partial(self._render_event, execution, operation, call)
                    source.deliver = self.shared_responses.pusher(group, self.shared_key, render_event, push)
                async for event in source:
                    render = partial(self._render_event, execution, operation, call, event)
                    key = None if group is None else self.shared_key(event)
                    if group is not None and key is not None:
                        yield await self.shared_responses.response(group, key, render)
                    else:
                        yield rendered if isinstance(rendered := render(), GraphQLResponse) else await rendered
        except Exception as error:
            problem = error if isinstance(error, Problem) else _internal_problem(error, call)
            errors = error_objects(problem)
            raise problem from None
        finally:
            self._observe("subscription", errors, started_at)

    def _observe(self, operation_type: str, errors: list[JsonObject], started_at: float | None = None) -> None:
        if self.observe is not None:
            outcome = str(cast(JsonObject, errors[0]["extensions"])["code"]) if errors else "ok"
            self.observe(operation_type, outcome, 0 if started_at is None else perf_counter() - started_at)

    def _execution(self, operation: Operation, call: Call) -> Execution:
        """Returns an execution that is ready to run. Raises a Problem if the variables do not match their types."""
        extensions = operation.request.extensions
        context = self.new_context(call.actor, call.request_id, extensions, call.last_event_id)
        prepared = prepare(self._plan(operation), context, operation.request.variables, self.fell_back)
        if isinstance(prepared, list):
            problem = variable_error(prepared)
            if call.actor.kind is ActorKind.ANONYMOUS:
                problem = unexplained(problem)
            self._observe(operation.type, error_objects(problem))
            raise problem
        return prepared

    def _plan(self, operation: Operation) -> Plan:
        return operation.document.plan(self.schema, operation.node, self.rendered)

    def _group(self, operation: Operation, actor: Actor) -> ResponseGroup | None:
        """Returns the group of subscribers with the same responses; None if the request has no comparable key."""
        request = operation.request
        plan = self._plan(operation)
        names = shaping_variables(operation.node, list(plan.fragment_definitions.values()))
        try:
            key = response_key(names, request.variables or {}, request.extensions)
        except TypeError:
            return None
        return self.shared_responses.group(plan, key, actor.permissions)

    def _render_event(
        self, execution: Execution, operation: Operation, call: Call, event: object
    ) -> GraphQLResponse | Awaitable[GraphQLResponse]:
        """Returns the response for a source event; an awaitable of it if a resolver has to wait."""
        context = self.new_context(call.actor, call.request_id, operation.request.extensions, None)
        event_cursor = getattr(event, "cursor", None)
        cursor = None if event_cursor is None else str(event_cursor)
        try:
            result = execution.event(event, context)
        except Exception as error:
            return _internal_error_response(error, call, cursor)
        return (
            self._response(result, call, cursor)
            if isinstance(result, ExecutionResult)
            else self._await_response(result, call, cursor)
        )

    async def _await_response(
        self, pending: Awaitable[ExecutionResult], call: Call, cursor: str | None
    ) -> GraphQLResponse:
        """Returns the response once the operation has run. An exception that escapes it is an internal error."""
        try:
            return self._response(await pending, call, cursor)
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
        source = await execution.subscribe()
        if isinstance(source, ExecutionResult):
            raise RequestRejected(field_errors(source.errors or [], call.request_id, self.field_name))
        return source


def _internal_error_response(error: Exception, call: Call, cursor: str | None) -> GraphQLResponse:
    return GraphQLResponse({"errors": [mask(error, call.request_id)], "data": None}, call.request_id, cursor)


def _internal_problem(error: Exception, call: Call) -> Problem:
    mask(error, call.request_id)
    return Internal(call.request_id)
