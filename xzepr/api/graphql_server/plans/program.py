"""The compiled form of an operation: calls its root fields and completes their results."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from types import CoroutineType
from typing import Any, cast

from strawberry.execution import optimized_is_awaitable

from xzepr.api.graphql_server.plans.arguments import Arguments
from xzepr.api.graphql_server.plans.levels import Level, Plain, Run
from xzepr.api.graphql_server.plans.resolvers import Call, Guard, ReadField
from xzepr.core.frozen import frozen
from xzepr.infra.concurrency import cancelled_by_another, is_cancelled, shielded


@frozen
class Outcome:
    """The outcome of a root field's resolver: a value, or an error.

    graphql-core uses it if the operation falls back, so that a resolver runs only once.
    """

    value: object = None
    error: Exception | None = None
    awaited: bool = False
    """Whether it was awaited, so that the value is final even if it is itself an awaitable."""


Outcomes = dict[str, Outcome]  # by response name


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A root field of an operation."""

    name: str
    type_name: str | None = None
    """The value of `__typename`, which has no call."""
    call: Call | None = None
    arguments: Arguments | None = None
    level: Level
    read: ReadField | None = None
    """Converts the source event of a subscription."""

    def arguments_of(self, run: Run) -> dict[str, Any]:
        """Returns the arguments of the call. Raises NotPlain for arguments that graphql-core has to report."""
        assert self.arguments is not None, "a call has arguments, though there may be none"
        return self.arguments.values(run.variables)

    async def outcome(self, run: Run, arguments: dict[str, Any]) -> Outcome:
        """Calls the resolver."""
        assert self.call is not None, "the root field of a subscription is read"
        awaited = False
        try:
            value = self.call(None, run.info, arguments)
            if isinstance(value, CoroutineType):  # needs no shield
                awaited = True
                value = await cast("CoroutineType[Any, Any, object]", value)
            elif awaited := optimized_is_awaitable(value):
                value = await shielded(cast("Awaitable[object]", value))
            return Outcome(value, None, awaited)
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            return Outcome(None, cancelled_by_another(), awaited)
        except Exception as error:
            return Outcome(None, error, awaited)

    async def complete(self, outcome: Outcome, run: Run) -> object:
        """Returns the response value of an outcome. Raises any Exception if graphql-core has to complete it."""
        if outcome.error is not None:
            raise outcome.error
        if isinstance(self.level, Plain):
            return self.level.convert(outcome.value)
        return (await self.level.complete([outcome.value], run))[0]


@dataclass(frozen=True, slots=True)
class Program:
    """The root fields of an operation, compiled for one combination of the variables of its directives."""

    roots: Sequence[Root]
    serial: bool
    """Whether each root field is complete before the next is called, as in a mutation."""
    guards: Sequence[Guard] = ()
    """The guards of its fields, other than those that their resolvers check."""
    denied: "Program | None" = None
    """The program for a caller that a guard rejects; None if there are no guards."""

    def _for(self, context: object) -> "Program":
        """Returns the program for the caller in this context."""
        try:
            for guard in self.guards:
                guard(context)
        except Exception:
            assert self.denied is not None, "a program with guards has one for denied callers"
            return self.denied
        return self

    async def run(self, run: Run, outcomes: Outcomes) -> dict[str, object]:
        """Returns the data of a query or a mutation, and adds the outcomes of its root fields to `outcomes`.

        Raises any Exception if graphql-core has to execute the operation, with these outcomes.
        """
        if self.guards and (program := self._for(run.context)) is not self:
            return await program.run(run, outcomes)
        called = [root for root in self.roots if root.type_name is None]
        if not self.serial and len(called) > 1:
            arguments = [root.arguments_of(run) for root in called]  # all of them, before the first call
            results = await asyncio.gather(
                *(root.outcome(run, own) for root, own in zip(called, arguments, strict=True))
            )
            outcomes.update(zip([root.name for root in called], results, strict=True))
        data: dict[str, object] = {}
        for root in self.roots:
            if root.type_name is not None:
                data[root.name] = root.type_name
                continue
            if (outcome := outcomes.get(root.name)) is None:
                outcome = outcomes[root.name] = await root.outcome(run, root.arguments_of(run))
            data[root.name] = await root.complete(outcome, run)
        return data

    def event(self, run: Run, event: Any) -> dict[str, object] | Awaitable[dict[str, object]]:
        """Returns the data for one source event of a subscription; an awaitable of it if a field has to wait.

        Raises any Exception if graphql-core has to execute the operation.
        """
        if self.guards and (program := self._for(run.context)) is not self:
            return program.event(run, event)
        (root,) = self.roots
        assert root.read is not None, "the root field of a subscription is read"
        item = root.read(event)
        if isinstance(root.level, Plain):
            return {root.name: root.level.convert(item)}
        return self._waiting_event(root, item, run)

    async def _waiting_event(self, root: Root, item: object, run: Run) -> dict[str, object]:
        return {root.name: (await root.level.complete([item], run))[0]}
