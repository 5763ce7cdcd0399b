"""graphql-core as we use it: an execution in which no field's failure takes the whole answer with it."""

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

# graphql-core's executors are generic over a parameter that its own functions leave open.
_core: Any = graphql_execution


def core_schema(schema: strawberry.Schema) -> GraphQLSchema:
    """The graphql-core schema that Strawberry built; it has no public name for it."""
    return cast(GraphQLSchema, vars(schema)["_schema"])


class Execution(StrawberryGraphQLCoreExecutionContext):
    """One operation about to be executed.

    When a row fails, graphql-core cancels the fields beside it. Such a cancellation reaches everybody who waits for the
    same future, for instance a loader's, and is no `Exception`: it would pass every handler and leave no answer at all.

    What its plan knows to be plain is read and written without graphql-core; see `plan.py`. The methods are named by
    graphql-core, which calls them.
    """

    def __init__(self, plan: Plan, *args: Any, **kwargs: Any) -> None:
        """The other arguments are graphql-core's."""
        super().__init__(*args, **kwargs)
        memory = self._cache = plan.selection_cache()
        self._relevant_sub_fields: Any = memory.sub_fields

    # As graphql-core has it, but the fields at the root are collected once.
    def execute_operation(self, serially: bool | None = None) -> Any:
        """The result, or an awaitable of it."""
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
        """The fields of one object by their names, or an awaitable of them."""
        core, fields = cast(Any, super()), grouped_field_set
        readers = self._cache.readers.get(id(fields))
        if readers is None:
            found = field_readers(cast(Any, self).schema, parent_type, fields, cast(Any, self).collect_subfields)
            readers = self._cache.readers[id(fields)] = found
        ready = read_all(readers, source_value)
        if len(ready) == len(fields):
            return ready
        rest = {name: selected for name, selected in fields.items() if name not in ready}
        done = core.execute_fields(parent_type, source_value, path, rest, position_context)
        return _merged(fields, ready, done)

    def complete_value(
        self, return_type: Any, field_details_list: Any, info: Any, path: Any, result: Any, position_context: Any
    ) -> Any:
        """What the response shows of a resolver's result, or an awaitable of it."""
        core = cast(Any, super())
        if field_details_list[0].node.selection_set is not None:
            key = id(return_type), id(field_details_list)
            writers = self._cache.converters
            if key not in writers:
                executor = cast(Any, self)
                writers[key] = output_converter(
                    executor.schema, return_type, field_details_list, executor.collect_subfields
                )
            write = writers[key]
            if write is not None and (shown := try_convert(write, result)) is not Undefined:
                return shown
        return core.complete_value(return_type, field_details_list, info, path, result, position_context)

    async def complete_awaitable_value(
        self, return_type: Any, field_details_list: Any, info: Any, path: Any, result: Any, position_context: Any
    ) -> Any:
        """The completed value of a resolver's awaitable; shared futures are waited for without cancelling them."""
        core = cast(Any, super())
        return await core.complete_awaitable_value(
            return_type, field_details_list, info, path, _shielded(result), position_context
        )


def _merged(order: Iterable[str], ready: dict[str, object], done: Any) -> Any:
    """Both parts of an object in the order of the selection; an awaitable if `done` is one."""
    if not optimized_is_awaitable(done):
        return {name: ready[name] if name in ready else done[name] for name in order if name in ready or name in done}

    async def merge() -> Any:
        return _merged(order, ready, await done)

    return merge()


async def _shielded(awaitable: Awaitable[object]) -> object:
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


def prepare(plan: Plan, context: object, variables: dict[str, object] | None) -> Execution | list[GraphQLError]:
    """The execution of an operation, or the errors of its variables."""
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
    """The result of a query or a mutation."""
    return await _awaited(cast(Any, execution).execute_operation())


def execute_event(execution: Execution, event: object, context: object) -> ExecutionResult | Awaitable[ExecutionResult]:
    """The result of a subscription for one event of its source, with a context of its own; at once if no resolver
    waits for anything."""
    one = cast(Any, execution).build_per_event_executor(event)
    one.context_value = context
    return _core.execute_subscription_event(one)


async def subscribe(execution: Execution) -> AsyncIterable[object] | ExecutionResult:
    """The events behind a subscription, or the errors of its resolver."""
    return await _awaited(_core.create_source_event_stream(execution))


async def _awaited(value: Any) -> Any:
    return await value if optimized_is_awaitable(value) else value
