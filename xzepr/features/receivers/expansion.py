"""How much work a JSON Schema can make: what it expands to when each reference counts as all it leads to.

Refused are

- an expansion of more than 10,000 subschemas. A recursion counts as one turn of itself, and what stands in place beside
  `unevaluatedProperties` or `unevaluatedItems` three times (the validator's work grows 2.7-fold with each such level);
- a recursion that never descends into the value, which would not end;
- a recursion in more than one branch: when more than one of the edges from a subschema that leads back to itself
  reaches a recursion (its own or another), the work can double with each level of the value. A list, or a tree with one
  recursive keyword such as `children: {items: {$ref: "#"}}`, recurses in one branch.

A recursion is a strongly connected component of the graph of `references.py`; by the last rule it is a simple cycle.
Everything is computed once for each subschema, so a refusal costs no more than reading the schema.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from xzepr.features.receivers.references import Node

MAX_SUBSCHEMAS = 10_000
_UNEVALUATED_FACTOR = 3


@dataclass(frozen=True, slots=True)
class _Measured:
    """What is known of a node whose component is complete."""

    weight: int
    recurses: bool


def exceeded_limit(root: Node) -> str | None:
    """Why the schema of that root is refused, or None."""
    known: dict[Node, _Measured] = {}
    for component in _components(root):
        inside = set(component)
        cyclic = len(component) > 1 or any(target in inside for target, _ in component[0].edges)
        if cyclic and (why := _recursion_error(component, inside, known)) is not None:
            return why
        weight = min(sum(_weight(node, inside, known) for node in component), MAX_SUBSCHEMAS + 1)
        if weight > MAX_SUBSCHEMAS:
            return f"expands to more than {MAX_SUBSCHEMAS:,} subschemas when each reference counts as all it leads to"
        recurses = cyclic or any(known[target].recurses for node in component for target, _ in node.edges)
        known.update((node, _Measured(weight, recurses)) for node in component)
    return None


def _recursion_error(component: list[Node], inside: set[Node], known: dict[Node, _Measured]) -> str | None:
    descends = False
    for node in component:
        recursive = [
            (target, in_place) for target, in_place in node.edges if target in inside or known[target].recurses
        ]
        if len(recursive) > 1:
            return f"recurses in more than one branch at {node.location or 'a dynamic reference'}"
        descends = descends or not recursive[0][1]
    return None if descends else f"refers to itself without end at {component[0].location or 'a dynamic reference'}"


def _weight(node: Node, inside: set[Node], known: dict[Node, _Measured]) -> int:
    """What one node expands to, without those of its own recursion."""
    unevaluated = "unevaluatedProperties" in node.schema or "unevaluatedItems" in node.schema
    factor = _UNEVALUATED_FACTOR if unevaluated else 1
    applied = ((known[target].weight, in_place) for target, in_place in node.edges if target not in inside)
    return 1 + node.booleans + sum(weight * factor if in_place else weight for weight, in_place in applied)


def _components(root: Node) -> Iterator[list[Node]]:
    """The strongly connected components that can be reached, each after all it leads to (Tarjan, without recursion)."""
    index: dict[Node, int] = {root: 0}
    low: dict[Node, int] = {root: 0}
    open_nodes: list[Node] = [root]
    is_open = {root}
    path = [(root, iter(root.edges))]
    while path:
        node, edges = path[-1]
        for target, _ in edges:
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
