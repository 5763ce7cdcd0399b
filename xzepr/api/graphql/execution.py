"""graphql-core as we use it: an execution in which no field's failure takes the whole answer with it."""

import asyncio
from asyncio import CancelledError
from collections.abc import AsyncIterable, Awaitable
from typing import Any, cast

import graphql.execution as graphql_execution
import strawberry
from graphql import DocumentNode, ExecutionResult, GraphQLError, GraphQLSchema
from strawberry.execution import optimized_is_awaitable
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

# graphql-core's executors are generic over a parameter that its own functions leave open.
_core: Any = graphql_execution


def core_schema(schema: strawberry.Schema) -> GraphQLSchema:
    """The graphql-core schema that Strawberry built; it has no public name for it."""
    return cast(GraphQLSchema, vars(schema)["_schema"])


class Execution(StrawberryGraphQLCoreExecutionContext):
    """One operation about to be executed.

    When a row fails, graphql-core cancels the fields beside it. Such a cancellation reaches everybody who waits for the
    same future, for instance a loader's, and is no `Exception`: it would pass every handler and leave no answer at all.
    """

    # Named by graphql-core, which calls it for whatever a resolver returns that must be awaited.
    async def complete_awaitable_value(
        self, return_type: Any, field_details_list: Any, info: Any, path: Any, result: Any, position_context: Any
    ) -> Any:
        """The completed value of a resolver's awaitable; shared futures are waited for without cancelling them."""
        core = cast(Any, super())
        return await core.complete_awaitable_value(
            return_type, field_details_list, info, path, _never_cancelled_by_others(result), position_context
        )


async def _never_cancelled_by_others(awaitable: Awaitable[object]) -> object:
    """What is awaited. That somebody else cancelled it is an error like any other; that we are cancelled is not."""
    if asyncio.isfuture(awaitable):
        awaitable = asyncio.shield(cast("asyncio.Future[object]", awaitable))
    try:
        return await awaitable
    except CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RuntimeError("what this field waited for was cancelled") from None


def begin(
    schema: GraphQLSchema,
    document: DocumentNode,
    context: object,
    variables: dict[str, object] | None,
    operation_name: str | None,
) -> Execution | list[GraphQLError]:
    """The execution of an operation, or the errors of its variables."""
    return cast(Any, Execution).build(
        schema,
        document,
        None,
        context,
        variables,
        operation_name,
        is_awaitable=optimized_is_awaitable,
        operation_extensions={},
    )


async def executed(execution: Execution) -> ExecutionResult:
    """The result of a query or a mutation."""
    return await _awaited(cast(Any, execution).execute_operation())


async def executed_for(execution: Execution, event: object, context: object) -> ExecutionResult:
    """The result of a subscription for one event of its source, with a context of its own."""
    one = cast(Any, execution).build_per_event_executor(event)
    one.context_value = context
    return await _awaited(_core.execute_subscription_event(one))


async def source_of(execution: Execution) -> AsyncIterable[object] | ExecutionResult:
    """The events behind a subscription, or the errors of its resolver."""
    return await _awaited(_core.create_source_event_stream(execution))


async def _awaited(value: Any) -> Any:
    return await value if optimized_is_awaitable(value) else value
