"""A small schema in both forms: prepared for plans, and as Strawberry builds it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import strawberry
from graphql import ExecutionResult, GraphQLSchema, OperationDefinitionNode, parse, validate
from strawberry.schema.config import StrawberryConfig
from strawberry.types.scalar import ScalarDefinition

from tests.api.graphql_server.plans.results import comparable, core, described
from xzepr.api.graphql.scalars import SCALARS
from xzepr.api.graphql_server.plans.batches import Batches
from xzepr.api.graphql_server.plans.execution import core_schema, prepare
from xzepr.api.graphql_server.plans.plan import Plan
from xzepr.api.graphql_server.plans.rendered import RenderedObjects
from xzepr.api.graphql_server.plans.resolvers import install


@dataclass
class Data:
    """The context of an execution."""

    value: Any = None
    """What resolvers return, or a function that returns it for each call."""
    calls: list[Any] = field(default_factory=list[Any])
    batches: Batches = field(default_factory=Batches)

    def get(self) -> Any:
        """Returns the value for one call."""
        return self.value() if callable(self.value) else self.value


Info = strawberry.Info[Data, None]
Parent = strawberry.Parent[Any]


def resolved_by(resolver: Callable[..., Any], graphql_type: Any, **options: Any) -> Any:
    """Returns a field with a resolver, which may return a value of any type."""
    return strawberry.field(resolver=resolver, graphql_type=graphql_type, **options)


class SchemaPair:
    """A schema in both forms. Its plans are kept, so that later executions use the same programs."""

    def __init__(
        self,
        query: type,
        mutation: type | None = None,
        *,
        types: Sequence[type] = (),
        scalars: Mapping[object, ScalarDefinition] | None = None,
        rendered: RenderedObjects | None = None,
    ) -> None:
        config = StrawberryConfig(scalar_map={**SCALARS, **(scalars or {})})
        self._plain, self.fast = (
            core_schema(strawberry.Schema(query, mutation, types=types, config=config)) for _ in range(2)
        )
        install(self.fast)
        self._rendered = rendered
        self._plans: dict[str, Plan] = {}
        self.reasons: list[str] = []
        """The reasons of fallbacks."""

    def plan(self, text: str) -> Plan:
        """Returns the plan of a document with one operation."""
        if text not in self._plans:
            self._plans[text] = plan_of(self.fast, text, self._rendered)
        return self._plans[text]

    async def run(self, text: str, data: Data | None = None, variables: dict[str, object] | None = None) -> Any:
        """Returns the result of the plan."""
        execution = prepare(self.plan(text), data or Data(), variables or {}, self.reasons.append)
        return ExecutionResult(None, execution) if isinstance(execution, list) else await execution.run()

    async def compare(
        self, text: str, data: Callable[[], Data] = Data, variables: dict[str, object] | None = None
    ) -> ExecutionResult:
        """Returns the result of the plan. Asserts that graphql-core has the same data, errors and calls."""
        fast, slow = data(), data()
        result = await self.run(text, fast, variables)
        expected: Any = core.execute(self._plain, parse(text), None, slow, variables)
        expected = await expected if asyncio.iscoroutine(expected) else expected
        assert comparable(result.data) == comparable(expected.data)
        assert described(result.errors) == described(expected.errors)
        # A plan and graphql-core begin the fields of a query in different orders.
        assert fast.calls == slow.calls if text.startswith("mutation") else sorted(fast.calls) == sorted(slow.calls)
        return cast(ExecutionResult, result)


def plan_of(schema: GraphQLSchema, text: str, rendered: RenderedObjects | None = None) -> Plan:
    """Returns the plan of the only operation in a document. Asserts that it is valid."""
    document = parse(text)
    operation = next(node for node in document.definitions if isinstance(node, OperationDefinitionNode))
    assert not validate(schema, document)
    return Plan(schema, document, operation, rendered)
