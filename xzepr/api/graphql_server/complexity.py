"""Bounds on a parsed document, checked before validation and in linear time, however fragments use each other."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
)

from xzepr.api.errors import DocumentTooComplex

_MAX_LEVELS = 300
_MAX_PAIRS = 20_000


@dataclass(frozen=True, slots=True)
class DocumentLimits:
    """What a document may be at most; whatever fragments hold counts wherever they are used."""

    max_chars: int = 100_000
    max_tokens: int = 10_000
    max_depth: int = 30
    """Fields within fields."""
    max_aliases: int = 500
    max_selections: int = 10_000
    """Fields and uses of fragments, in all operations together."""


def check_limits(
    limits: DocumentLimits,
    operations: Sequence[OperationDefinitionNode],
    fragments: Mapping[str, FragmentDefinitionNode],
) -> None:
    """Raises DocumentTooComplex, naming the limit, for a document that is too deep, too wide or too repetitive."""
    measure = _Measure(fragments)
    roots = [operation.selection_set for operation in operations]
    used = _reachable_fragments(roots, fragments)
    unused = [fragment.selection_set for name, fragment in fragments.items() if name not in used]
    sizes = [measure.selections(root, 0) for root in (*roots, *unused)]
    for what, found, most in (
        ("nests fields deeper than", max((size.depth for size in sizes), default=0), limits.max_depth),
        ("has, fragments followed, more aliases than", sum(size.aliases for size in sizes), limits.max_aliases),
        ("has, fragments followed, more selections than", sum(size.count for size in sizes), limits.max_selections),
    ):
        if found > most:
            raise DocumentTooComplex(f"the document {what} {most}")
    walks = [_Walk(root, fragments) for root in roots] + [_Walk(root, {}) for root in unused]
    if sum(walk.pairs(limits.max_selections) for walk in walks) > _MAX_PAIRS:
        raise DocumentTooComplex("the document selects the same fields too often")


@dataclass(frozen=True, slots=True)
class _Size:
    depth: int
    aliases: int
    count: int


_EMPTY = _Size(0, 0, 0)
_MAX_SUM = 10**9


class _Measure:
    """Looks at each selection once: a fragment's size is kept after the first visit."""

    def __init__(self, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        self._fragments = fragments
        self._sizes: dict[str, _Size] = {}

    def selections(self, selections: SelectionSetNode, level: int) -> _Size:
        """The size of a selection set with all that is below it."""
        if level > _MAX_LEVELS:
            raise DocumentTooComplex(f"the document nests selections and fragments deeper than {_MAX_LEVELS}")
        depth = aliases = count = 0
        for selection in selections.selections:
            size, count = _EMPTY, count + 1
            if isinstance(selection, FieldNode):
                if selection.selection_set:
                    size = self.selections(selection.selection_set, level + 1)
                size = _Size(size.depth + 1, size.aliases + (selection.alias is not None), size.count)
            elif isinstance(selection, FragmentSpreadNode):
                size = self._fragment(selection.name.value, level + 1)
            elif isinstance(selection, InlineFragmentNode):
                size = self.selections(selection.selection_set, level + 1)
            depth = max(depth, size.depth)
            aliases += size.aliases
            count += size.count
        # Sums double with each level of doubled fragments: capped, so that they stay small numbers.
        return _Size(depth, min(aliases, _MAX_SUM), min(count, _MAX_SUM))

    def _fragment(self, name: str, level: int) -> _Size:
        known = self._sizes.get(name)
        if known is not None:
            return known
        fragment = self._fragments.get(name)
        if fragment is None:
            return _EMPTY
        self._sizes[name] = _EMPTY  # a circle ends here; validation names it
        size = self._sizes[name] = self.selections(fragment.selection_set, level)
        return size


def _reachable_fragments(
    roots: Iterable[SelectionSetNode], fragments: Mapping[str, FragmentDefinitionNode]
) -> set[str]:
    """The names of the fragments that the roots reach."""
    found: set[str] = set()
    todo = list(roots)
    while todo:
        for selection in todo.pop().selections:
            if isinstance(selection, FragmentSpreadNode):
                name = selection.name.value
                if name in fragments and name not in found:
                    found.add(name)
                    todo.append(fragments[name].selection_set)
            elif isinstance(selection, FieldNode | InlineFragmentNode) and selection.selection_set:
                todo.append(selection.selection_set)
    return found


class _Walk:
    """Counts the fields that answer in the same place: validation compares them all, each with each.

    Fragments that no operation uses are walked without those that they use.
    """

    def __init__(self, root: SelectionSetNode, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        self._fragments = fragments
        self._places: dict[tuple[int, str], int] = {}
        self._times = [0]
        self._todo: list[tuple[SelectionSetNode, frozenset[str], int]] = [(root, frozenset(), 0)]

    def pairs(self, max_selections: int) -> int:
        """How many pairs of fields answer in the same place. More selections than were counted come from circles."""
        left = max_selections
        while self._todo:
            selections, within, place = self._todo.pop()
            left -= len(selections.selections)
            if left < 0:
                raise DocumentTooComplex("the document's fragments use each other in circles")
            for selection in selections.selections:
                if isinstance(selection, FragmentSpreadNode):
                    name = selection.name.value
                    if name in self._fragments and name not in within:
                        self._todo.append((self._fragments[name].selection_set, within | {name}, place))
                elif isinstance(selection, InlineFragmentNode):
                    self._todo.append((selection.selection_set, within, place))
                elif isinstance(selection, FieldNode):
                    self._field(selection, within, place)
        return sum(n * (n - 1) // 2 for n in self._times)

    def _field(self, field: FieldNode, within: frozenset[str], place: int) -> None:
        answer = (field.alias or field.name).value
        here = self._places.setdefault((place, answer), len(self._times))
        if here == len(self._times):
            self._times.append(0)
        self._times[here] += 1
        if field.selection_set:
            self._todo.append((field.selection_set, within, here))
