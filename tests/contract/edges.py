"""The edges of the schema: its fields with objects, the permissions that guard each, and a document that reads it."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from graphql import (
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    get_named_type,
    is_leaf_type,
    is_required_argument,
)

from tests.contract.guarded_fields import guards_of

SIGNED_IN = "signedIn"
ROOTS = ("Query", "Mutation", "Subscription")

# The permission to read objects of a type, wherever they are reached.
READ_PERMISSIONS: dict[str, str] = {
    "Event": "event:read",
    "Unit": "event:read",
    "EventReceiver": "receiver:read",
    "EventReceiverSnapshot": "receiver:read",
    "EventReceiverGroup": "group:read",
    "EventReceiverGroupSnapshot": "group:read",
    "Gate": "group:read",
    "GateMember": "group:read",
    "User": "user:manage",
    "ApiKey": SIGNED_IN,
    "Me": SIGNED_IN,
    "StreamStatus": "stream:admin",
    "StreamProgress": "stream:admin",
    "HubProcess": "stream:admin",
    "ProcessClients": "stream:admin",
    "ProcessRelay": "stream:admin",
    "RelayRoute": "stream:admin",
    "DeadLetter": "stream:admin",
}
# Types that hold only other objects, or nothing that needs a permission. Messages have one by themselves.
OPEN_TYPES = {"Actor", "Checkpoint", "PageInfo", "Problem", "StreamPage", "CreateEventsResult"}
OPEN_ENDINGS = ("Connection", "Edge", "Payload")
# The user whose password was given.
OPEN_EDGES = {("LoginPayload", "user")}


@dataclass(frozen=True, slots=True)
class Edge:
    """A field of an object type, and one of the object types that it can return."""

    parent: str
    field: str
    target: str
    guards: frozenset[str]
    """The permissions that the field and the target require by themselves."""
    is_fragment: bool
    """Whether the field returns an interface, so that the target is selected by a fragment."""

    @property
    def path(self) -> str:
        """The parent, the field and the target, such as `Query.event: Event`."""
        return f"{self.parent}.{self.field}: {self.target}"


def edges_of(schema: GraphQLSchema) -> Iterator[Edge]:
    """Yields every edge of the schema."""
    for parent in schema.type_map.values():
        if not isinstance(parent, GraphQLObjectType) or parent.name.startswith("__"):
            continue
        for name, field in parent.fields.items():
            target = cast(GraphQLNamedType, get_named_type(field.type))
            own = _permissions(field.ast_node)
            if isinstance(target, GraphQLObjectType):
                yield Edge(parent.name, name, target.name, own | _permissions(target.ast_node), is_fragment=False)
            elif isinstance(target, GraphQLInterfaceType | GraphQLUnionType):
                for each in schema.get_possible_types(target):
                    yield Edge(parent.name, name, each.name, own | _permissions(each.ast_node), is_fragment=True)


def _permissions(node: object) -> frozenset[str]:
    if node is None:
        return frozenset()
    guards = guards_of(node)  # pyright: ignore[reportArgumentType] a field or an object
    return frozenset(permission or guard for guard, permission in guards if guard != "anyone")


def side_doors(schema: GraphQLSchema) -> list[str]:
    """Returns the edges that reach an object without the permission to read it, on some path from a root."""
    edges = list(edges_of(schema))
    everything = frozenset[str]().union(*(edge.guards for edge in edges))
    held = {edge.target: everything for edge in edges} | {root: frozenset[str]() for root in ROOTS}
    while True:
        after = dict.fromkeys(held, everything) | {root: frozenset[str]() for root in ROOTS}
        for edge in edges:
            after[edge.target] &= held.get(edge.parent, everything) | edge.guards
        if after == held:
            break
        held = after
    return [
        edge.path
        for edge in edges
        if (edge.parent, edge.field) not in OPEN_EDGES
        and not _suffices(held.get(edge.parent, everything) | edge.guards, READ_PERMISSIONS.get(edge.target))
    ]


def _suffices(held: frozenset[str], needed: str | None) -> bool:
    return needed is None or needed in held or (needed == SIGNED_IN and bool(held))


@dataclass(frozen=True, slots=True)
class Walk:
    """A document that reads one edge by the shortest path from a root, with the fields of its object."""

    edge: Edge
    document: str
    needed: frozenset[str]
    """The permissions that the path requires."""


def walks(schema: GraphQLSchema, root: str, arguments: Mapping[str, str]) -> Iterator[Walk]:
    """Yields a walk for each edge that is reached from a root type.

    `arguments` are the arguments of fields, as text in parentheses, by paths such as `Query.event`. A walk
    continues through the first edge that reached a type.
    """
    edges: dict[str, list[Edge]] = {}
    for edge in edges_of(schema):
        edges.setdefault(edge.parent, []).append(edge)
    paths: dict[str, list[Edge]] = {root: []}
    waiting = deque([root])
    while waiting:
        for edge in edges.get(parent := waiting.popleft(), ()):
            path = [*paths[parent], edge]
            yield _walk(schema, root, path, arguments)
            if edge.target not in paths:
                paths[edge.target] = path
                waiting.append(edge.target)


def _walk(schema: GraphQLSchema, root: str, path: list[Edge], arguments: Mapping[str, str]) -> Walk:
    target = schema.type_map[path[-1].target]
    assert isinstance(target, GraphQLObjectType)
    leaves = [
        name
        for name, field in target.fields.items()
        if is_leaf_type(get_named_type(field.type)) and not any(map(is_required_argument, field.args.values()))
    ]
    selection = " ".join(["__typename", *leaves])
    for edge in reversed(path):
        if edge.is_fragment:
            selection = f"... on {edge.target} {{ {selection} }}"
        selection = f"{edge.field}{arguments.get(f'{edge.parent}.{edge.field}', '')} {{ {selection} }}"
    needed = frozenset[str]().union(*(edge.guards for edge in path))
    return Walk(path[-1], f"{root.lower()} {{ {selection} }}", needed)
