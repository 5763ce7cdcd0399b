"""Limits on the size of a JSON Schema with its references expanded, which bounds the work of the validator.

A schema within these limits is accepted at once; another one is accepted if `places.py` finds that its subschemas
rarely meet. These limits reject a schema with

- more than 10,000 subschemas, counting each reference as everything that it leads to. A recursion counts once.
  Subschemas applied in place beside `unevaluatedProperties` or `unevaluatedItems` count three times, because the
  validator's work grows 2.7-fold with each such level;
- a recursion that never descends into the value, and would not end;
- a recursion in more than one branch. A subschema that leads back to itself may have only one edge to a recursion, its
  own or another: with two, the work can double with each level of the value. A list recurses in one branch, and so does
  a tree with one recursive keyword such as `children: {items: {$ref: "#"}}`.

A recursion is a strongly connected component of the graph of `references.py`. The last rule makes it a simple cycle.
Each subschema is visited once, so the check takes linear time.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass

from xzepr.features.receivers.places import UNEVALUATED_FACTOR, PlaceCheck, TooManyStepsError, has_unevaluated, name
from xzepr.features.receivers.references import Node

MAX_SUBSCHEMAS = 10_000


@dataclass(frozen=True, slots=True)
class _Size:
    """The expanded size of a node: its number of subschemas, and whether it leads to a recursion."""

    subschemas: int
    recurses: bool


def exceeded_limit(root: Node) -> str | None:
    """Returns the limit that a schema exceeds, to be appended to "the schema", or None if it is accepted."""
    exceeded = _exceeded_as_whole(root)
    if exceeded is None:
        return None
    recursive = set[Node]()
    for component in _components(root):
        first = component[0]
        if len(component) > 1 or any(edge.target is first or edge.target in recursive for edge in first.edges):
            recursive.update(component)
    try:
        return PlaceCheck(recursive, _components).exceeded_limit(root, MAX_SUBSCHEMAS)
    except TooManyStepsError:
        return exceeded


def _exceeded_as_whole(root: Node) -> str | None:
    """Returns the limit that the whole expanded schema exceeds."""
    sizes: dict[Node, _Size] = {}
    for component in _components(root):
        members = set(component)
        is_cyclic = len(component) > 1 or any(edge.target in members for edge in component[0].edges)
        if is_cyclic and (error := _recursion_error(component, members, sizes)) is not None:
            return error
        count = min(sum(_subschemas(node, members, sizes) for node in component), MAX_SUBSCHEMAS + 1)
        if count > MAX_SUBSCHEMAS:
            return f"expands to more than {MAX_SUBSCHEMAS:,} subschemas, counting each reference as all it leads to"
        recurses = is_cyclic or any(sizes[edge.target].recurses for node in component for edge in node.edges)
        sizes.update((node, _Size(count, recurses)) for node in component)
    return None


def _recursion_error(component: list[Node], members: set[Node], sizes: dict[Node, _Size]) -> str | None:
    descends = False
    for node in component:
        recursive = [edge for edge in node.edges if edge.target in members or sizes[edge.target].recurses]
        if len(recursive) > 1:
            return f"recurses in more than one branch at {name(node)}"
        descends = descends or not recursive[0].in_place
    if descends:
        return None
    return f"recurses without descending into the value at {name(component[0])}"


def _subschemas(node: Node, members: set[Node], sizes: dict[Node, _Size]) -> int:
    """Returns the expanded number of subschemas of a node, not counting other members of its component."""
    factor = UNEVALUATED_FACTOR if has_unevaluated(node) else 1
    applied = ((sizes[edge.target].subschemas, edge.in_place) for edge in node.edges if edge.target not in members)
    return 1 + node.booleans + sum(count * factor if in_place else count for count, in_place in applied)


def _components(root: Node, only_in_place: bool = False, known: Container[Node] = ()) -> Iterator[list[Node]]:
    """Yields the strongly connected components, each after those that it leads to.

    `only_in_place` ignores edges to children of the value, and those to nodes in `known` are not followed. Tarjan's
    algorithm, without recursion.
    """
    index: dict[Node, int] = {root: 0}
    low: dict[Node, int] = {root: 0}
    open_nodes: list[Node] = [root]
    is_open = {root}
    path = [(root, iter(root.edges))]
    while path:
        node, edges = path[-1]
        for target, in_place, _ in edges:
            if target in known or (only_in_place and not in_place):
                continue
            if target not in index:
                index[target] = low[target] = len(index)
                open_nodes.append(target)
                is_open.add(target)
                path.append((target, iter(target.edges)))
                break
            if target in is_open:
                low[node] = min(low[node], index[target])
        else:
            path.pop()
            if path:
                low[path[-1][0]] = min(low[path[-1][0]], low[node])
            if low[node] == index[node]:
                component = [open_nodes.pop()]
                while component[-1] is not node:
                    component.append(open_nodes.pop())
                is_open.difference_update(component)
                yield component
