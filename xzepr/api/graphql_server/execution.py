"""Executes operations with graphql-core, with fast paths for plain values."""

import asyncio
from asyncio import CancelledError
from collections.abc import AsyncIterable, Awaitable, Iterable
from typing import Any, cast

import graphql.execution as graphql_execution
import strawberry
from graphql import ExecutionResult, GraphQLError, GraphQLSchema, OperationType, Undefined
from graphql.execution.collect_fields import collect_fields
from strawberry.execution import optimized_is_awaitable
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from xzepr.api.graphql_server.plan import Plan, field_readers, output_converter, read_all, try_convert

# Untyped, because graphql-core's executors are generic over a parameter that its own functions leave open.
_core: Any = graphql_execution


def core_schema(schema: strawberry.Schema) -> GraphQLSchema:
    """Returns the graphql-core schema that Strawberry built, for which it has no public name."""
    return cast(GraphQLSchema, vars(schema)["_schema"])


class Execution(StrawberryGraphQLCoreExecutionContext):
    """The execution of one operation.

    If a field fails, graphql-core cancels its sibling fields. The cancellation would also reach other fields that await
    the same future, such as a loader's. CancelledError is no `Exception`, so no handler would catch it, and the client
    would get no response. Shared futures are therefore shielded.

    Values that the plan expects to be plain are converted without graphql-core; see `plan.py`. graphql-core calls the
    public methods and defines their names.
    """

    def __init__(self, plan: Plan, *args: Any, **kwargs: Any) -> None:
        """All arguments except the plan are graphql-core's."""
        super().__init__(*args, **kwargs)
        cache = self._cache = plan.selection_cache()
        self._relevant_sub_fields: Any = cache.sub_fields

    # A copy of graphql-core's method that collects the root fields only once for each plan.
    def execute_operation(self, serially: bool | None = None) -> Any:
        """Returns the result, or an awaitable of it."""
        core = cast(Any, self)
        root = core.schema.get_root_type(core.operation.operation)
        if self._cache.roots is None:
            fragments, values = core.fragments, core.variable_values
            self._cache.roots = collect_fields(core.schema, fragments, values, root, core.operation)
        fields, deferred, _ = self._cache.roots
        if serially is None:
            serially = core.operation.operation is OperationType.MUTATION
        try:
            data = core.execute_collected_root_fields(root, core.root_value, fields, serially, deferred)
        except GraphQLError as error:
            return self._failed(error)
        return self._response(data) if optimized_is_awaitable(data) else core.build_response(data)

    async def _response(self, data: Awaitable[Any]) -> Any:
        try:
            return cast(Any, self).build_response(await data)
        except GraphQLError as error:
            return self._failed(error)

    def _failed(self, error: GraphQLError) -> Any:
        core = cast(Any, self)
        core.collected_errors.add(error, None)
        return core.build_response(None)

    def execute_fields(
        self, parent_type: Any, source_value: Any, path: Any, grouped_field_set: Any, position_context: Any
    ) -> Any:
        """Returns the fields of one object by their response names, or an awaitable of them."""
        core, fields = cast(Any, super()), grouped_field_set
        readers = self._cache.readers.get(id(fields))
        if readers is None:
            executor = cast(Any, self)
            readers = field_readers(executor.schema, parent_type, fields, executor.collect_subfields)
            self._cache.readers[id(fields)] = readers
        plain = read_all(readers, source_value)
        if len(plain) == len(fields):
            return plain
        rest = {name: selected for name, selected in fields.items() if name not in plain}
        completed = core.execute_fields(parent_type, source_value, path, rest, position_context)
        return _merged(fields, plain, completed)

    def complete_value(
        self, return_type: Any, field_details_list: Any, info: Any, path: Any, result: Any, position_context: Any
    ) -> Any:
        """Returns the response value for a resolver's result, or an awaitable of it."""
        core = cast(Any, super())
        if field_details_list[0].node.selection_set is not None:
            key = id(return_type), id(field_details_list)
            converters = self._cache.converters
            if key not in converters:
                executor = cast(Any, self)
                converters[key] = output_converter(
                    executor.schema, return_type, field_details_list, executor.collect_subfields
                )
            convert = converters[key]
            if convert is not None and (value := try_convert(convert, result)) is not Undefined:
                return value
        return core.complete_value(return_type, field_details_list, info, path, result, position_context)

    async def complete_awaitable_value(
        self, return_type: Any, field_details_list: Any, info: Any, path: Any, result: Any, position_context: Any
    ) -> Any:
        """Returns the response value for a resolver's awaitable. Does not cancel a shared future."""
        core = cast(Any, super())
        return await core.complete_awaitable_value(
            return_type, field_details_list, info, path, _shielded(result), position_context
        )


def _merged(order: Iterable[str], plain: dict[str, object], completed: Any) -> Any:
    """Merges the two parts of an object in the order of the selection. Returns an awaitable if `completed` is one."""
    if not optimized_is_awaitable(completed):
        return {
            name: plain[name] if name in plain else completed[name]
            for name in order
            if name in plain or name in completed
        }

    async def merge() -> Any:
        return _merged(order, plain, await completed)

    return merge()


async def _shielded(awaitable: Awaitable[object]) -> object:
    """Awaits a value and does not cancel a shared future.

    If another task cancels the future, that is an ordinary error. If this task is cancelled, it raises CancelledError.
    """
    if asyncio.isfuture(awaitable):
        awaitable = asyncio.shield(cast("asyncio.Future[object]", awaitable))
    try:
        return await awaitable
    except CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RuntimeError("a future that this field awaited was cancelled by another task") from None


def prepare(plan: Plan, context: object, variables: dict[str, object] | None) -> Execution | list[GraphQLError]:
    """Returns the execution of an operation, or the errors in its variables."""
    values = plan.variables.values(variables or {})
    if isinstance(values, list):
        return values
    return Execution(
        plan,
        plan.schema,
        plan.fragment_definitions,
        plan.fragments,
        None,
        context,
        plan.operation,
        values,
        _core.default_field_resolver,
        _core.default_type_resolver,
        _core.default_field_resolver,
        is_awaitable=optimized_is_awaitable,
        operation_extensions={},
    )


async def execute(execution: Execution) -> ExecutionResult:
    """Returns the result of a query or a mutation."""
    return await _awaited(cast(Any, execution).execute_operation())


def execute_event(execution: Execution, event: object, context: object) -> ExecutionResult | Awaitable[ExecutionResult]:
    """Returns the result for one source event of a subscription; an awaitable of it if a resolver has to wait.

    `context` belongs to this event, not to the subscription.
    """
    event_execution = cast(Any, execution).build_per_event_executor(event)
    event_execution.context_value = context
    return _core.execute_subscription_event(event_execution)


async def subscribe(execution: Execution) -> AsyncIterable[object] | ExecutionResult:
    """Returns the source events of a subscription, or the errors of its resolver."""
    return await _awaited(_core.create_source_event_stream(execution))


async def _awaited(value: Any) -> Any:
    return await value if optimized_is_awaitable(value) else value
