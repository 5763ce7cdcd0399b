"""Executes operations by their plans and with graphql-core, and compares data and errors."""

import asyncio
from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, cast

from graphql import (
    DocumentNode,
    ExecutionResult,
    Executor,
    OperationDefinitionNode,
    OperationType,
    parse,
    validate,
)

from tests.api.graphql_server.plans.results import Described, comparable, core, described
from tests.api.graphql_server.plans.toy_operations import FAST, PLAIN, TYPES
from tests.api.graphql_server.plans.toy_schema import Context
from tests.api.graphql_server.plans.toy_values import World
from xzepr.api.graphql_server.plans.execution import prepare
from xzepr.api.graphql_server.plans.plan import Plan
from xzepr.api.graphql_server.plans.rendered import RenderedObjects


@dataclass
class Tally:
    """Counts executions by their outcome."""

    runs: int = 0
    errors: int = 0
    """Runs with errors in the same order."""
    reordered: int = 0
    """Runs with errors in another order, or of other siblings."""
    fallbacks: Counter[str] = field(default_factory=lambda: Counter[str]())
    """Runs that graphql-core took over, by reason."""

    @property
    def compiled(self) -> int:
        """Runs that needed no fallback."""
        return self.runs - self.fallbacks.total()


class WithoutPropagation(Executor[Any]):
    """Reports every error, because none makes the fields around it null."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        cast(Any, super()).__init__(*args, **kwargs)
        self.error_propagation = False


@dataclass
class Comparison:
    """Compares executions of one document, whose plan is used for all of them."""

    text: str
    tally: Tally
    rendered: RenderedObjects
    check: bool = True
    """Whether the document is validated, which takes longer than its executions."""
    plan: Plan = field(init=False)
    document: DocumentNode = field(init=False)

    def __post_init__(self) -> None:
        """Makes the plan. Asserts that the document is valid."""
        self.document = parse(self.text)
        assert not (self.check and validate(FAST, self.document))
        operation = next(node for node in self.document.definitions if isinstance(node, OperationDefinitionNode))
        self.plan = Plan(FAST, self.document, operation, self.rendered)

    async def run(self, table: bytes, variables: dict[str, object]) -> None:
        """Compares one execution. Asserts that data and errors are equal."""
        slow, fast = Context(World(TYPES, table), is_plan=False), Context(World(TYPES, table), is_plan=True)
        expected = await self._slow(slow, variables)
        actual = await self._fast(fast, variables)
        self._compare_calls(fast.calls, slow.calls, actual)
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert comparable(one.data) == comparable(other.data), (one, other)
            errors, others = described(one.errors), described(other.errors)
            if errors == others:
                self.tally.errors += bool(errors)
                continue
            # Fields that wait at the same time fail in any order, and the first one to fail cancels its siblings.
            assert max(slow.world.waits, fast.world.waits) > 1, (errors, others)
            self.tally.reordered += 1
            assert not set(errors) - await self._possible(table, variables)
            assert _by_null(errors, one.data) == _by_null(others, one.data)

    def _compare_calls(self, calls: list[str], expected: list[str], results: list[ExecutionResult]) -> None:
        """Asserts that each root field was called once."""
        if self.plan.operation.operation is OperationType.QUERY:
            # A query stops calling root fields if one of them fails before the next is called. A plan calls them all.
            assert not Counter(expected) - Counter(calls)
            assert all(result.data is None or len(calls) <= len(result.data) for result in results)
        else:
            assert calls == expected

    async def _fast(self, context: Context, variables: dict[str, object]) -> list[ExecutionResult]:
        """Returns the results of the plan: one, or one for each event."""
        execution = prepare(self.plan, context, deepcopy(variables), self._fell_back)
        if isinstance(execution, list):
            return [ExecutionResult(None, execution)]
        if self.plan.operation.operation is not OperationType.SUBSCRIPTION:
            self.tally.runs += 1
            results = [await execution.run()]
        elif isinstance(source := await execution.subscribe(), ExecutionResult):
            results = [source]
        else:
            results: list[ExecutionResult] = []
            async for event in source:
                self.tally.runs += 1
                result = execution.event(event, Context(context.world, is_plan=True))
                results.append(result if isinstance(result, ExecutionResult) else await result)
        await _finish(context)
        return results

    def _fell_back(self, reason: str) -> None:
        self.tally.fallbacks[reason] += 1

    async def _slow(
        self, context: Context, variables: dict[str, object], executor: type[Executor[Any]] | None = None
    ) -> list[ExecutionResult]:
        """Returns the results of graphql-core."""
        is_subscription = self.plan.operation.operation is OperationType.SUBSCRIPTION
        call = core.subscribe if is_subscription else core.execute
        result = call(PLAIN, self.document, None, context, deepcopy(variables), executor_class=executor)
        if asyncio.iscoroutine(result):
            result = await result
        results = [result] if isinstance(result, ExecutionResult) else [each async for each in result]
        await _finish(context)
        return results

    async def _possible(self, table: bytes, variables: dict[str, object]) -> set[Described]:
        """Returns the errors of all fields, whether or not graphql-core reports them."""
        context = Context(World(TYPES, table), is_plan=False)
        results = await self._slow(context, variables, WithoutPropagation)
        return {error for result in results for error in described(result.errors)}


async def _finish(context: Context) -> None:
    """Waits for the tasks that an execution has left behind."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)
    context.world.close()


def _by_null(errors: list[Described], data: Any) -> dict[tuple[str | int, ...], list[Described]]:
    """Returns the errors by the path of the null that stands for their position in the data.

    Those that reached the null from below depend on the order in which they happened, so they are left out.
    """
    grouped: dict[tuple[str | int, ...], list[Described]] = {}
    for error in errors:
        path = _null_above(error[1], data)
        grouped.setdefault(path, []).extend([error] if path == error[1] else [])
    return {path: sorted(group) for path, group in sorted(grouped.items(), key=str)}


def _null_above(path: tuple[str | int, ...], data: Any) -> tuple[str | int, ...]:
    for length, step in enumerate(path):
        if data is None:
            return path[:length]
        data = data[step]
    assert data is None, "an error without null in its place"
    return path


def rendered_objects() -> RenderedObjects:
    """Returns an empty cache for the objects of the toy schema that never change."""
    return RenderedObjects({"Fixed": attrgetter("id")})
