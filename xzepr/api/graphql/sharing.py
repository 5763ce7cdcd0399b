"""Answers that subscriptions share: what a message looks like is worked out once for all who ask the same.

All of an answer follows from the operation, those variables that shape what is shown (not the cursor or filter that a
subscriber came with), what the client said beside it, what the actor may do, and the message. Where nothing but the
message had to be read it stays the same for ever and is kept for a while; where something was looked up it is as of
now, and shared by those who ask for it at the same moment.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from weakref import WeakValueDictionary

import orjson
from graphql import FieldNode, FragmentDefinitionNode, OperationDefinitionNode, VariableNode, Visitor, visit

from xzepr.api.graphql.answers import Answer
from xzepr.features.stream.model import Cursor

_BYTES = 16 * 1024 * 1024
"""About how much is kept of the answers that were made last."""
_OVERHEAD = 500

Make = Callable[[], Answer | Awaitable[Answer]]
"""Works an answer out; gives it at once unless something has to be looked up."""


@dataclass(eq=False, slots=True, weakref_slot=True)
class Group:
    """Subscriptions that are sent the same."""

    kept: dict[Cursor, Answer] = field(default_factory=dict[Cursor, Answer])
    making: "dict[Cursor, asyncio.Task[Answer]]" = field(default_factory=lambda: dict[Cursor, asyncio.Task[Answer]]())


class SharedAnswers:
    """The answers that were made last, of all groups."""

    def __init__(self, most_bytes: int = _BYTES) -> None:
        self._most_bytes = most_bytes
        self._groups: WeakValueDictionary[Hashable, Group] = WeakValueDictionary()
        self._oldest = deque[tuple[Group, Cursor, int]]()
        self._bytes = 0

    def group(self, *key: Hashable) -> Group:
        """The group of all subscriptions with an equal key."""
        if (group := self._groups.get(key)) is None:
            group = self._groups[key] = Group()
        return group

    async def answer(self, group: Group, cursor: Cursor, make: Make) -> Answer:
        """The answer that tells a group of the message at a cursor."""
        if (kept := group.kept.get(cursor)) is not None:
            return kept
        if (making := group.making.get(cursor)) is None:
            made = make()
            if isinstance(made, Answer):
                return self._keep(group, cursor, made)
            making = group.making[cursor] = asyncio.ensure_future(made)
            making.add_done_callback(lambda _: group.making.pop(cursor))
        return await asyncio.shield(making)  # who asked first may go; the others still wait for it

    def _keep(self, group: Group, cursor: Cursor, answer: Answer) -> Answer:
        if not answer.errors:
            answer = Answer({}, answer.request_id, answer.cursor, answer.text())
            size = _OVERHEAD + len(answer.text())
            group.kept[cursor] = answer
            self._oldest.append((group, cursor, size))
            self._bytes += size
            while self._bytes > self._most_bytes:
                old, its_cursor, its_size = self._oldest.popleft()
                del old.kept[its_cursor]
                self._bytes -= its_size
        return answer


def shaping(operation: OperationDefinitionNode, fragments: Sequence[FragmentDefinitionNode]) -> frozenset[str]:
    """The names of the variables that shape an answer: all but those that are only arguments of fields at the root."""
    shapes: list[Any] = [*fragments, *(operation.directives or ())]
    for selection in operation.selection_set.selections:
        if isinstance(selection, FieldNode):
            shapes += selection.directives or ()
            shapes += [selection.selection_set] if selection.selection_set else []
        else:
            shapes.append(selection)
    finder = _Variables()
    for shape in shapes:
        visit(shape, finder)
    return frozenset(finder.found)


def written(names: frozenset[str], variables: Mapping[str, object], extensions: Mapping[str, object]) -> bytes:
    """What a client said that shapes its answers, equal for equal ones. Raises TypeError for what JSON cannot hold."""
    shown = {name: variables[name] for name in names if name in variables}
    return orjson.dumps([shown, cast(dict[str, Any], extensions)], option=orjson.OPT_SORT_KEYS)


class _Variables(Visitor):
    """Finds variables; its method is named by graphql-core."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def enter_variable(self, node: VariableNode, *_: object) -> None:
        """Notes one."""
        self.found.add(node.name.value)
