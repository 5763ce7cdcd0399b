"""A JSON Schema as a graph, with its references resolved.

The nodes are subschemas. An edge leads to a subschema that is applied together with its node: in place, that is to the
same value (`allOf`, `$ref` …), or to a child of the value (`properties`, `items` …). `$defs` and `definitions` apply
nothing.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias, TypeGuard, cast
from urllib.parse import unquote, urljoin, urlsplit

from xzepr.core.errors import Violation
from xzepr.core.exact_json import pointer

Schema: TypeAlias = dict[str, Any]

_IN_PLACE_SINGLE = ("not", "if", "then", "else")
_IN_PLACE_MANY = ("allOf", "anyOf", "oneOf", "dependentSchemas", "dependencies")
_CHILD_SINGLE = (
    *("items", "additionalItems", "unevaluatedItems", "contains", "contentSchema"),
    *("additionalProperties", "unevaluatedProperties", "propertyNames"),
)
_CHILD_MANY = ("properties", "patternProperties", "prefixItems")
_DEFINITIONS = ("$defs", "definitions")

# By keyword: whether its value can be a single schema (else it is a map or list of schemas), and whether it is applied
# in place (None if it is not applied).
_KEYWORDS: dict[str, tuple[bool, bool | None]] = {
    **dict.fromkeys(_IN_PLACE_SINGLE, (True, True)),
    **dict.fromkeys(_IN_PLACE_MANY, (False, True)),
    **dict.fromkeys(_CHILD_SINGLE, (True, False)),
    **dict.fromkeys(_CHILD_MANY, (False, False)),
    **dict.fromkeys(_DEFINITIONS, (False, None)),
}
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_INDEX = re.compile("0|[1-9][0-9]{0,6}")
_PRINTABLE_ASCII = re.compile("[!-~]*")
_NORMAL_FORM = "lower-case scheme and host, no default port, no escapes, no dot segments"
_DOCUMENT_URI = "http://document.invalid/"


@dataclass(frozen=True, slots=True)
class Dialect:
    """The differences between the drafts that matter for references."""

    unknown_keywords: frozenset[str]
    """Keywords of other drafts. The draft ignores identifiers inside their values."""
    id_keyword: str = "$id"
    ref_hides_siblings: bool = False
    """Whether `$ref` hides the keywords beside it, as in drafts up to 7."""


class Edge(NamedTuple):
    """A step from a subschema to one that it applies."""

    target: "Node"
    in_place: bool
    keys: Sequence[str] = ()
    """The keyword, and the name or index in its value. Empty for a reference."""


@dataclass(slots=True, eq=False)
class Node:
    """A subschema that is an object, and the subschemas that it applies."""

    schema: Schema
    base: str
    """The base URI of its references."""
    location: str
    """The JSON pointer to it, after the name of the field."""
    edges: list[Edge] = field(default_factory=list[Edge])
    booleans: int = 0
    """The number of subschemas `true` and `false` that it applies."""


class UnresolvedReferenceError(Exception):
    """A reference that does not resolve to a schema in the document. The message gives the reason."""


class Document:
    """The graph of a schema. `violations` lists the invalid references and identifiers."""

    def __init__(self, schema: Schema, dialect: Dialect, *, field: str) -> None:
        self.violations: list[Violation] = []
        self._dialect = dialect
        self._id_keyword = dialect.id_keyword
        self._nodes: dict[int, Node] = {}
        self._queue: list[Node] = []
        self._resources: dict[str, Node] = {}
        self._anchors: dict[tuple[str, str], Node] = {}
        # By dynamic anchor: a node that applies all subschemas with the anchor, because any of them may be the target.
        self._dynamic_targets: dict[str, Node] = {}
        self.root = self._add(schema, _DOCUMENT_URI, field, has_ids=True)
        self._resources.setdefault(_DOCUMENT_URI, self.root)
        for node in self._queue:  # grows while references lead to schemas below unknown keywords
            self._add_edges(node)

    def _add(self, schema: Schema, base: str, location: str, *, has_ids: bool) -> Node:
        """Adds a subschema and all below it. `has_ids` is False where the draft ignores identifiers."""
        first = None
        stack = [(schema, base, location, has_ids)]
        while stack:
            subschema, base, location, has_ids = stack.pop()
            node = Node(subschema, base, location)
            first = first or node
            self._nodes[id(subschema)] = node
            self._queue.append(node)
            self._register_names(node, has_ids=has_ids)
            for keys, child, _ in subschemas(subschema):
                if is_object(child) and id(child) not in self._nodes:
                    is_known = keys[0] not in self._dialect.unknown_keywords
                    stack.append((child, node.base, pointer(location, keys), has_ids and is_known))
        assert first is not None, "the stack starts with one schema"
        return first

    def _report(self, node: Node, keyword: str, message: str) -> None:
        self.violations.append(Violation(pointer(node.location, [keyword]), message))

    def _register_names(self, node: Node, *, has_ids: bool) -> None:
        """Registers the identifier and the anchors of a subschema."""
        schema_id = node.schema.get(self._id_keyword)
        anchors = [
            (key, node.schema[key]) for key in ("$anchor", "$dynamicAnchor") if isinstance(node.schema.get(key), str)
        ]
        if isinstance(schema_id, str) and schema_id.startswith("#"):
            anchors.append((self._id_keyword, schema_id[1:]))
        elif isinstance(schema_id, str):
            self._register_id(node, schema_id)
        if node.schema.get("$recursiveAnchor") is True:
            self._dynamic_target("").edges.append(Edge(node, in_place=True))
        for keyword, anchor in anchors:
            if self._anchors.setdefault((node.base, anchor), node) is not node:
                self._report(node, keyword, f"the anchor {anchor!r} is defined twice")
            if keyword == "$dynamicAnchor":
                self._dynamic_target(anchor).edges.append(Edge(node, in_place=True))
        if not has_ids and (anchors or isinstance(schema_id, str)):
            message = "an identifier is allowed only where a keyword of the schema's draft expects a schema"
            self._report(node, self._id_keyword, message)

    def _register_id(self, node: Node, uri: str) -> None:
        if self._dialect.ref_hides_siblings and "$ref" in node.schema and self._queue[0] is not node:
            self._report(node, self._id_keyword, f"{self._id_keyword} beside $ref has no effect before draft 2019-09")
        try:
            base, _, fragment = _join(node.base, uri).partition("#")
        except UnresolvedReferenceError as error:
            self._report(node, self._id_keyword, str(error))
            return
        if fragment:
            self._report(node, self._id_keyword, "an identifier must not have a fragment")
        elif not _is_normal(base):
            self._report(node, self._id_keyword, f"{base!r} is not in normal form: {_NORMAL_FORM}")
        elif self._resources.setdefault(base, node) is not node:
            self._report(node, self._id_keyword, f"the identifier {base!r} is defined twice")
        node.base = base

    def _add_edges(self, node: Node) -> None:
        """Adds the edges of a node: its subschemas and the targets of its references."""
        for keys, child, in_place in subschemas(node.schema):
            if in_place is not None:
                self._apply(node, child, in_place=in_place, keys=keys)
        for keyword in _REFERENCES:
            reference = node.schema.get(keyword)
            if isinstance(reference, str):
                try:
                    self._follow(node, keyword, reference)
                except UnresolvedReferenceError as error:
                    self._report(node, keyword, str(error))

    def _apply(self, node: Node, child: object, *, in_place: bool, keys: Sequence[str] = ()) -> None:
        if is_object(child):
            node.edges.append(Edge(self._nodes[id(child)], in_place, keys))
        else:
            node.booleans += 1

    def _follow(self, node: Node, keyword: str, reference: str) -> None:
        target = self._resolve(node, reference)
        name = unquote(reference.partition("#")[2])
        if keyword == "$dynamicRef" and is_object(target) and target.get("$dynamicAnchor") == name:
            node.edges.append(Edge(self._dynamic_target(name), in_place=True))
        elif keyword == "$recursiveRef" and is_object(target) and target.get("$recursiveAnchor") is True:
            node.edges.append(Edge(self._dynamic_target(""), in_place=True))
        else:
            self._apply(node, target, in_place=True)

    def _dynamic_target(self, name: str) -> Node:
        return self._dynamic_targets.setdefault(name, Node({}, "", ""))

    def _resolve(self, node: Node, reference: str) -> object:
        """Returns the target of a reference: a boolean, or an object that has a node.

        Raises UnresolvedReferenceError.
        """
        uri, _, fragment = _join(node.base, reference).partition("#")
        resource = self._resources.get(uri)
        if resource is None:
            raise UnresolvedReferenceError(
                f"{reference!r} points outside the document; only references inside the document are allowed"
            )
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            anchor = self._anchors.get((uri, fragment))
            if anchor is None:
                raise UnresolvedReferenceError(f"{reference!r} cannot be resolved: the document has no such anchor")
            return anchor.schema
        return self._resolve_pointer(resource, fragment, reference)

    def _resolve_pointer(self, resource: Node, path: str, reference: str) -> object:
        value: object = resource.schema
        keys = [key.replace("~1", "/").replace("~0", "~") for key in path.split("/")[1:]]
        for index, key in enumerate(keys):
            if index and is_object(value) and isinstance(value.get(self._id_keyword), str):
                raise UnresolvedReferenceError(
                    f"{reference!r} passes through a subschema with its own identifier: refer to that identifier"
                )
            value = _step(value, key, reference)
        if is_object(value):
            if id(value) not in self._nodes:
                self._add(value, resource.base, pointer(resource.location, keys), has_ids=False)
        elif not isinstance(value, bool):
            raise UnresolvedReferenceError(f"{reference!r} points to a value that is not a schema")
        return value


def subschemas(schema: Schema) -> Iterator[tuple[list[str], object, bool | None]]:
    """Yields the schemas directly below a schema.

    Each has the keys that lead to it, the schema (an object or a boolean), and whether it is applied in place (None if
    it is not applied).
    """
    for keyword, value in schema.items():
        if keyword not in _KEYWORDS:
            continue
        can_be_single, in_place = _KEYWORDS[keyword]
        if can_be_single and isinstance(value, dict | bool):
            yield [keyword], cast(object, value), in_place
            continue
        for key, child in _entries(value):
            if isinstance(child, dict | bool):
                yield [keyword, key], cast(object, child), in_place


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Returns whether a JSON value is an object."""
    return isinstance(value, dict)


def _entries(value: object) -> Iterable[tuple[str, object]]:
    if is_object(value):
        return value.items()
    if isinstance(value, list):
        return ((str(index), child) for index, child in enumerate(cast(list[object], value)))
    return ()


def _join(base: str, reference: str) -> str:
    uri, hash_, fragment = reference.partition("#")
    if not _PRINTABLE_ASCII.fullmatch(uri) or ";" in uri:  # Python and the validator follow different standards for `;`
        raise UnresolvedReferenceError(f"{reference!r} contains a character that is not allowed in a reference")
    try:
        joined = uri if urlsplit(uri).scheme else urljoin(base, uri) if uri else base
    except ValueError:
        raise UnresolvedReferenceError(f"{reference!r} is not a URI reference") from None
    return joined + hash_ + fragment


def _is_normal(uri: str) -> bool:
    """Returns whether a URI is in the normal form of RFC 3986, section 6, which the validator compares."""
    parts = urlsplit(uri)
    return (
        uri.startswith(f"{parts.scheme}:")
        and parts.scheme != "json-schema"  # the validator's own base
        and parts.netloc == parts.netloc.lower()
        and not parts.netloc.endswith((":", ":80", ":443"))
        and "%" not in uri
        and not {".", ".."}.intersection(parts.path.split("/"))
    )


def _step(value: object, key: str, reference: str) -> object:
    if is_object(value) and key in value:
        return value[key]
    if isinstance(value, list) and _INDEX.fullmatch(key) and int(key) < len(cast(list[object], value)):
        return cast(list[object], value)[int(key)]
    raise UnresolvedReferenceError(f"{reference!r} cannot be resolved: the document has nothing at {key!r}")
