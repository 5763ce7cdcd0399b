"""The number of subschemas that judge one place of a value: a finer bound than the expanded size of the schema.

Subschemas that apply to different properties or elements never meet, so their numbers do not add up. `entry` below is a
subschema that is applied to a child of a value. Everything that it applies in place judges that child too.

- `properties` of different names never meet, nor do the elements of `prefixItems`.
- `additionalProperties` meets no property that its own schema lists, and `additionalItems` no such element.
- `patternProperties` meets all properties, because patterns are not compared with names. `items` and `contains` meet
  all elements.

A schema is accepted if at most 10,000 subschemas judge one place, and if at most one recursive entry is applied to each
place. With two, the work can double with each level of the value.
"""

from collections import Counter
from collections.abc import Callable, Collection, Container, Iterator, Mapping
from typing import TypeAlias, cast

from xzepr.features.receivers.references import Node, is_object

MAX_STEPS = 100_000  # of the check, about a fifth of a second
UNEVALUATED_FACTOR = 3  # the validator's work grows 2.7-fold with each level of `unevaluatedProperties`

Components: TypeAlias = Callable[[Node, bool, Container[Node]], Iterator[list[Node]]]
_Entries: TypeAlias = Counter[Node]
_Layers: TypeAlias = list[int]  # the number of subschemas that judge a value, its children, their children …

_MAX_INDEXES = 50  # of a list; further elements are taken as not listed, which is stricter
_LISTING = ("properties", "items", "prefixItems")
# What a keyword applies its subschemas to. Places of different kinds are different places.
_KIND = {
    **dict.fromkeys(("properties", "patternProperties", "additionalProperties", "unevaluatedProperties"), "property"),
    **dict.fromkeys(("items", "prefixItems", "additionalItems", "unevaluatedItems", "contains"), "element"),
    "propertyNames": "name",
    "contentSchema": "content",
}
_KINDS = ("property", "element", "name", "content")


class TooManyStepsError(Exception):
    """The check would take too long."""


class PlaceCheck:
    """Counts the subschemas that meet. `recursive` has the nodes that lead to a recursion."""

    def __init__(self, recursive: set[Node], components: Components) -> None:
        self._recursive = recursive
        self._components = components
        self._closures: dict[Node, Counter[Node]] = {}
        self._layers: dict[Node, _Layers] = {}
        self._checked: dict[frozenset[tuple[Node, int]], _Layers] = {}
        self._steps = 0

    def exceeded_limit(self, root: Node, max_subschemas: int) -> str | None:
        """Returns the limit that is exceeded, to be appended to "the schema", or None.

        Raises TooManyStepsError.
        """
        too_many = f"applies more than {max_subschemas:,} subschemas to one place of a value"
        entries = {root}
        for node in self._nodes(root):
            entries.update(edge.target for edge in node.edges if not edge.in_place)
            if (endless := self._close(node, max_subschemas)) is not None:
                return endless
            if _weight(self._closures[node]) > max_subschemas:
                return too_many
        # While a value is descended, one recursive entry judges each level, and adds others that judge levels below.
        recursive, added = 0, list[int]()
        for node in self._nodes(root):
            if node not in entries:
                continue
            layers = self._layers_below(node)
            if isinstance(layers, str):
                return layers
            if node in self._recursive:
                recursive = max(recursive, _weight(self._closures[node]))
                _raise_to(added, layers)
            else:
                self._layers[node] = [_weight(self._closures[node]), *layers]
            if max((recursive + sum(added), *layers)) > max_subschemas:
                return too_many
        return None

    def _nodes(self, root: Node) -> Iterator[Node]:
        """Yields every node, each after those that it leads to, apart from recursion."""
        return (node for component in self._components(root, False, ()) for node in component)

    def _layers_below(self, node: Node) -> _Layers | str:
        """Returns the layers below a value that a node judges, or the limit that is exceeded."""
        descending = {member: count for member, count in self._closures[node].items() if _descends(member)}
        key = frozenset(descending.items())  # the same for a schema and for every reference to it
        layers = self._checked.get(key)
        if layers is None:
            layers = self._checked[key] = list[int]()
            for place in self._places(descending):
                if (branches := self._recursive_branches(place)) is not None:
                    return branches
                _raise_to(layers, self._sum_layers(place))
        return layers

    def _recursive_branches(self, place: _Entries) -> str | None:
        recursive = [entry for entry in place if entry in self._recursive]
        if sum(place[entry] for entry in recursive) > 1:
            return f"recurses in more than one branch at one place of a value, at {name(recursive[0])}"
        return None

    def _close(self, start: Node, max_subschemas: int) -> str | None:
        """Sets the closure of a node: what it applies in place, with itself and with multiplicity."""
        if start in self._closures:
            return None
        for component in self._components(start, True, self._closures):
            node = component[0]
            in_place = [edge.target for edge in node.edges if edge.in_place]
            if len(component) > 1 or node in in_place:
                return f"recurses without descending into the value at {name(node)}"
            factor = UNEVALUATED_FACTOR if has_unevaluated(node) else 1
            closure = Counter([node])
            for target in in_place:
                self._step(len(self._closures[target]))
                for member, count in self._closures[target].items():
                    closure[member] = min(closure[member] + count * factor, max_subschemas + 1)
            self._closures[node] = closure
        return None

    def _places(self, closure: Mapping[Node, int]) -> Iterator[_Entries]:
        """Yields the entries that meet at each place below a value that these nodes judge.

        All names that no schema lists are one place, and so are all such indexes.
        """
        listed: dict[str, dict[str | None, _Entries]] = {kind: {None: _Entries()} for kind in _KINDS}
        others: dict[str, list[tuple[Container[str | None], Node, int]]] = {kind: [] for kind in _KINDS}
        for member, count in closure.items():
            self._step(1 + len(member.edges))
            for edge in member.edges:
                if edge.in_place:
                    continue
                keyword = edge.keys[0]
                if keyword in _LISTING and len(edge.keys) == 2:
                    listed[_KIND[keyword]].setdefault(edge.keys[1], _Entries())[edge.target] += count
                else:
                    excluded = _listed_beside(keyword, member)
                    others[_KIND[keyword]].append((excluded, edge.target, count))
        for kind in _KINDS:
            for name, entries in listed[kind].items():
                self._step(1 + len(entries) + len(others[kind]))
                for excluded, target, count in others[kind]:
                    if name not in excluded:
                        entries[target] += count
                yield entries

    def _sum_layers(self, entries: _Entries) -> _Layers:
        total = list[int]()
        for entry, count in entries.items():
            layers = self._layers.get(entry, []) if entry not in self._recursive else []
            self._step(1 + len(layers))
            total.extend([0] * (len(layers) - len(total)))
            for depth, layer in enumerate(layers):
                total[depth] += layer * count
        return total

    def _step(self, steps: int) -> None:
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise TooManyStepsError


def _weight(closure: Counter[Node]) -> int:
    return sum(count * (1 + node.booleans) for node, count in closure.items())


def _raise_to(layers: _Layers, other: _Layers) -> None:
    layers.extend([0] * (len(other) - len(layers)))
    layers[: len(other)] = map(max, layers, other)


def _listed_beside(keyword: str, node: Node) -> Collection[str]:
    """Returns the names or indexes that a keyword skips, because the same schema lists them."""
    listed: object = None
    if keyword in ("additionalProperties", "unevaluatedProperties"):
        listed = node.schema.get("properties")
    elif keyword == "additionalItems":
        listed = node.schema.get("items")
    if isinstance(listed, list):
        return {str(index) for index in range(min(len(cast(list[object], listed)), _MAX_INDEXES))}
    return listed if is_object(listed) else ()


def _descends(node: Node) -> bool:
    return any(not edge.in_place for edge in node.edges)


def has_unevaluated(node: Node) -> bool:
    """Returns whether the validator has to find out what the schema has judged already."""
    return "unevaluatedProperties" in node.schema or "unevaluatedItems" in node.schema


def name(node: Node) -> str:
    """Returns the location of a node, for messages."""
    return node.location or "a dynamic reference"
