"""Executes operations by their compiled programs, and with graphql-core where a program does not suffice.

graphql-core defines the correct result. It takes over an operation that was not compiled, and one in which a resolver
failed or a value was not plain: it coerces such values, and reports errors with their locations. The resolvers of root
fields that have run are not called again.
"""

from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any, cast

import graphql.execution as graphql_execution
import strawberry
from graphql import ExecutionResult, GraphQLError, GraphQLSchema, MiddlewareManager
from strawberry.execution import optimized_is_awaitable
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from xzepr.api.graphql_server.plans.conversions import NotPlain
from xzepr.api.graphql_server.plans.levels import Run
from xzepr.api.graphql_server.plans.plan import Plan
from xzepr.api.graphql_server.plans.program import Outcome, Outcomes
from xzepr.api.graphql_server.plans.variables import RequestVariables
from xzepr.infra.concurrency import shielded

# Untyped, because graphql-core's executors are generic over a parameter that its own functions leave open.
_core: Any = graphql_execution

# Receives the reason for which graphql-core executes an operation: `operation`, `value` or `error`.
FellBack = Callable[[str], None]


def core_schema(schema: strawberry.Schema) -> GraphQLSchema:
    """Returns the graphql-core schema that Strawberry built, for which it has no public name."""
    return cast(GraphQLSchema, vars(schema)["_schema"])


def _ignore(_: str) -> None:
    return None


class Execution:
    """The execution of one operation of a request.

    `run` executes a query or a mutation. `subscribe` returns the source events of a subscription, and `event` the
    response to one of them.
    """

    __slots__ = ("_context", "_fell_back", "_plan", "_program", "_variables")

    def __init__(self, plan: Plan, context: object, variables: RequestVariables, fell_back: FellBack = _ignore) -> None:
        self._plan = plan
        self._context = context
        self._variables = variables
        self._fell_back = fell_back
        self._program = plan.program(variables)

    async def run(self) -> ExecutionResult:
        """Returns the result of a query or a mutation."""
        outcomes: Outcomes = {}
        if self._program is None:
            self._fell_back("operation")
        else:
            try:
                return ExecutionResult(await self._program.run(Run(self._context, self._variables), outcomes), None)
            except Exception as error:
                self._fell_back(_reason(error))
        return await _awaited(self._core(self._context, outcomes).execute_operation())

    def event(self, event: object, context: object) -> ExecutionResult | Awaitable[ExecutionResult]:
        """Returns the result for one source event of a subscription; an awaitable of it if a resolver has to wait.

        `context` belongs to this event, not to the subscription.
        """
        if self._program is None:
            self._fell_back("operation")
            return self._core_event(event, context)
        try:
            data = self._program.event(Run(context, self._variables), event)
        except Exception as error:
            self._fell_back(_reason(error))
            return self._core_event(event, context)
        return ExecutionResult(data, None) if isinstance(data, dict) else self._waiting_event(data, event, context)

    async def _waiting_event(
        self, data: Awaitable[dict[str, object]], event: object, context: object
    ) -> ExecutionResult:
        try:
            return ExecutionResult(await data, None)
        except Exception as error:
            self._fell_back(_reason(error))
        return await _awaited(self._core_event(event, context))

    async def subscribe(self) -> AsyncIterable[object] | ExecutionResult:
        """Returns the source events of a subscription, or the errors of its resolver."""
        return await _awaited(_core.create_source_event_stream(self._core(self._context, {})))

    def _core_event(self, event: object, context: object) -> Any:
        execution = self._core(context, {}).build_per_event_executor(event)
        return _core.execute_subscription_event(execution)

    def _core(self, context: object, outcomes: Outcomes) -> Any:
        plan = self._plan
        return _CoreExecution(
            plan.schema,
            plan.fragment_definitions,
            plan.fragments,
            None,
            context,
            plan.operation,
            self._variables.for_core(),
            _core.default_field_resolver,
            _core.default_type_resolver,
            _core.default_field_resolver,
            middleware_manager=MiddlewareManager(_recorded(outcomes)) if outcomes else None,
            is_awaitable=optimized_is_awaitable,
            operation_extensions={},
        )


def prepare(
    plan: Plan, context: object, variables: dict[str, object] | None, fell_back: FellBack = _ignore
) -> Execution | list[GraphQLError]:
    """Returns the execution of an operation, or the errors in its variables."""
    request_variables = plan.variables.of(variables or {})
    if isinstance(request_variables, list):
        return request_variables
    return Execution(plan, context, request_variables, fell_back)


class _CoreExecution(StrawberryGraphQLCoreExecutionContext):
    """graphql-core's execution of an operation.

    If a field fails, graphql-core cancels its sibling fields. The cancellation would also reach other fields that await
    the same future, such as a loader's. CancelledError is no `Exception`, so no handler would catch it, and the client
    would get no response. Shared futures are therefore shielded.
    """

    async def complete_awaitable_value(
        self, return_type: Any, field_details_list: Any, info: Any, path: Any, result: Any, position_context: Any
    ) -> Any:
        """Returns the response value for a resolver's awaitable. Does not cancel a shared future."""
        core = cast(Any, super())
        return await core.complete_awaitable_value(
            return_type, field_details_list, info, path, shielded(result), position_context
        )


def _recorded(outcomes: Outcomes) -> Callable[..., object]:
    """Returns a middleware that replaces resolvers of root fields by the outcomes of their calls."""

    def resolve(call: Callable[..., object], source: object, info: Any, /, **arguments: object) -> object:
        outcome = outcomes.get(info.path.key) if info.path.prev is None else None
        if outcome is None:
            return call(source, info, **arguments)
        return _later(outcome) if outcome.awaited else _now(outcome)

    return resolve


def _now(outcome: Outcome) -> object:
    if outcome.error is not None:
        raise outcome.error
    return outcome.value


async def _later(outcome: Outcome) -> object:
    # In the order of graphql-core, errors that were awaited come after those that were not.
    return _now(outcome)


def _reason(error: Exception) -> str:
    return "value" if isinstance(error, NotPlain) else "error"


async def _awaited(value: Any) -> Any:
    return await value if optimized_is_awaitable(value) else value
