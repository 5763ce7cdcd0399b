"""Limits on the size of a parsed document, checked before validation and in linear time."""

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

_MAX_LEVELS = 300  # of nested selections and fragments, which are measured recursively
_MAX_PAIRS = 20_000  # of fields with the same response path, which validation compares pairwise


@dataclass(frozen=True, slots=True)
class DocumentLimits:
    """The maximum size of a document. The contents of a fragment count each time it is used."""

    max_chars: int = 100_000
    max_tokens: int = 10_000
    max_depth: int = 30
    """Levels of nested fields."""
    max_aliases: int = 500
    max_selections: int = 10_000
    """Fields and uses of fragments, in all operations together."""


def check_limits(
    limits: DocumentLimits,
    operations: Sequence[OperationDefinitionNode],
    fragments: Mapping[str, FragmentDefinitionNode],
) -> None:
    """Raises DocumentTooComplex, which names the limit, if a document is too deep, too wide or too repetitive."""
    measure = _Measure(fragments)
    roots = [operation.selection_set for operation in operations]
    used = _reachable_fragments(roots, fragments)
    unused = [fragment.selection_set for name, fragment in fragments.items() if name not in used]
    sizes = [measure.size_of(root, 0) for root in (*roots, *unused)]
    depth = max((size.depth for size in sizes), default=0)
    aliases = sum(size.aliases for size in sizes)
    selections = sum(size.count for size in sizes)
    for excess, actual, limit in (
        ("nests fields deeper than", depth, limits.max_depth),
        ("has, with its fragments expanded, more aliases than", aliases, limits.max_aliases),
        ("has, with its fragments expanded, more selections than", selections, limits.max_selections),
    ):
        if actual > limit:
            raise DocumentTooComplex(f"the document {excess} {limit}")
    counters = [_PathCounter(root, fragments) for root in roots] + [_PathCounter(root, {}) for root in unused]
    if sum(counter.pairs(limits.max_selections) for counter in counters) > _MAX_PAIRS:
        raise DocumentTooComplex("the document selects the same fields too often")


@dataclass(frozen=True, slots=True)
class _Size:
    depth: int
    aliases: int
    count: int


_EMPTY = _Size(0, 0, 0)
_MAX_SUM = 10**9


class _Measure:
    """Measures selections, each fragment only once."""

    def __init__(self, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        self._fragments = fragments
        self._sizes: dict[str, _Size] = {}

    def size_of(self, selection_set: SelectionSetNode, level: int) -> _Size:
        """Returns the size of a selection set, including all nested selections and fragments."""
        if level > _MAX_LEVELS:
            raise DocumentTooComplex(f"the document nests selections and fragments deeper than {_MAX_LEVELS}")
        depth = aliases = count = 0
        for selection in selection_set.selections:
            size, count = _EMPTY, count + 1
            if isinstance(selection, FieldNode):
                if selection.selection_set:
                    size = self.size_of(selection.selection_set, level + 1)
                size = _Size(size.depth + 1, size.aliases + (selection.alias is not None), size.count)
            elif isinstance(selection, FragmentSpreadNode):
                size = self._fragment(selection.name.value, level + 1)
            elif isinstance(selection, InlineFragmentNode):
                size = self.size_of(selection.selection_set, level + 1)
            depth = max(depth, size.depth)
            aliases += size.aliases
            count += size.count
        # A fragment may use the next one twice, and so on, so the sums grow exponentially unless they are capped.
        return _Size(depth, min(aliases, _MAX_SUM), min(count, _MAX_SUM))

    def _fragment(self, name: str, level: int) -> _Size:
        measured = self._sizes.get(name)
        if measured is not None:
            return measured
        fragment = self._fragments.get(name)
        if fragment is None:
            return _EMPTY
        self._sizes[name] = _EMPTY  # a cycle of fragments ends here; validation reports it
        size = self._sizes[name] = self.size_of(fragment.selection_set, level)
        return size


def _reachable_fragments(
    roots: Iterable[SelectionSetNode], fragments: Mapping[str, FragmentDefinitionNode]
) -> set[str]:
    """Returns the names of the fragments that the roots use, directly or through other fragments."""
    names: set[str] = set()
    unvisited = list(roots)
    while unvisited:
        for selection in unvisited.pop().selections:
            if isinstance(selection, FragmentSpreadNode):
                name = selection.name.value
                if name in fragments and name not in names:
                    names.add(name)
                    unvisited.append(fragments[name].selection_set)
            elif isinstance(selection, FieldNode | InlineFragmentNode) and selection.selection_set:
                unvisited.append(selection.selection_set)
    return names


class _PathCounter:
    """Counts the selected fields of each response path, because validation compares those of one path pairwise.

    Fragments that no operation uses are walked without the fragments that they use.
    """

    def __init__(self, root: SelectionSetNode, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        self._fragments = fragments
        # A response path is a number: the root is 0, and a path below it is found by its parent and response name.
        self._paths: dict[tuple[int, str], int] = {}
        self._counts = [0]  # of fields, by path
        self._unvisited: list[tuple[SelectionSetNode, frozenset[str], int]] = [(root, frozenset(), 0)]

    def pairs(self, max_selections: int) -> int:
        """Returns the number of pairs of fields with the same response path.

        Raises DocumentTooComplex after `max_selections` selections, which only a cycle of fragments can exceed.
        """
        remaining = max_selections
        while self._unvisited:
            selection_set, within, path = self._unvisited.pop()
            remaining -= len(selection_set.selections)
            if remaining < 0:
                raise DocumentTooComplex("the document's fragments form a cycle")
            for selection in selection_set.selections:
                if isinstance(selection, FragmentSpreadNode):
                    name = selection.name.value
                    if name in self._fragments and name not in within:
                        self._unvisited.append((self._fragments[name].selection_set, within | {name}, path))
                elif isinstance(selection, InlineFragmentNode):
                    self._unvisited.append((selection.selection_set, within, path))
                elif isinstance(selection, FieldNode):
                    self._field(selection, within, path)
        return sum(count * (count - 1) // 2 for count in self._counts)

    def _field(self, field: FieldNode, within: frozenset[str], parent_path: int) -> None:
        response_name = (field.alias or field.name).value
        path = self._paths.setdefault((parent_path, response_name), len(self._counts))
        if path == len(self._counts):
            self._counts.append(0)
        self._counts[path] += 1
        if field.selection_set:
            self._unvisited.append((field.selection_set, within, path))
