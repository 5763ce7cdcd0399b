"""Where the references of a JSON Schema lead: the schema as a graph.

Its nodes are subschemas. Its edges lead to the subschemas that are applied with one: in place (`allOf`, `$ref` …,
judging the same value) or to parts of the value (`properties`, `items` …). `$defs` and `definitions` apply nothing.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeGuard, cast
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

# Whether a keyword's object is one schema (else it maps names to schemas), and whether it applies in place (None: not
# at all).
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
    """What differs between the drafts for who follows references."""

    unknown_keywords: frozenset[str]
    """Keywords of other drafts: what they hold is never an identified schema."""
    id_keyword: str = "$id"
    ref_hides_siblings: bool = False
    """`$ref` hides what is beside it, as up to draft 7."""


@dataclass(slots=True, eq=False)
class Node:
    """A subschema that is an object, with what it applies."""

    schema: Schema
    base: str
    location: str
    edges: "list[tuple[Node, bool]]" = field(default_factory=list["tuple[Node, bool]"])
    """What is applied with it, and whether in place."""
    booleans: int = 0
    """How many of the subschemas it applies are `true` or `false`."""


class UnresolvedReferenceError(Exception):
    """A reference that leads to no schema in the document; the message says why."""


class Document:
    """A schema's nodes and edges; `violations` says what was wrong with its references and identifiers."""

    def __init__(self, schema: Schema, dialect: Dialect, *, field: str) -> None:
        self.violations: list[Violation] = []
        self._dialect = dialect
        self._id_keyword = dialect.id_keyword
        self._nodes: dict[int, Node] = {}
        self._queue: list[Node] = []
        self._resources: dict[str, Node] = {}
        self._anchors: dict[tuple[str, str], Node] = {}
        # For each dynamic anchor a node that applies all who bear it: which of them it is depends on the way there.
        self._dynamic_targets: dict[str, Node] = {}
        self.root = self._add(schema, _DOCUMENT_URI, field, named=True)
        self._resources.setdefault(_DOCUMENT_URI, self.root)
        for node in self._queue:  # grows while references lead to places that no keyword names
            self._add_edges(node)

    def _add(self, schema: Schema, base: str, place: str, *, named: bool) -> Node:
        """Add a subschema and all below it; `named` is False where the draft looks for no identifiers."""
        first = None
        stack = [(schema, base, place, named)]
        while stack:
            found, base, place, named = stack.pop()
            node = Node(found, base, place)
            first = first or node
            self._nodes[id(found)] = node
            self._queue.append(node)
            self._register_names(node, named=named)
            for keys, child, _ in subschemas(found):
                if is_object(child) and id(child) not in self._nodes:
                    known = keys[0] not in self._dialect.unknown_keywords
                    stack.append((child, node.base, pointer(place, keys), named and known))
        assert first is not None, "the stack began with one schema"
        return first

    def _report(self, node: Node, keyword: str, message: str) -> None:
        self.violations.append(Violation(pointer(node.location, [keyword]), message))

    def _register_names(self, node: Node, *, named: bool) -> None:
        """Take down by which identifiers a subschema can be referred to."""
        own = node.schema.get(self._id_keyword)
        names = [
            (key, node.schema[key]) for key in ("$anchor", "$dynamicAnchor") if isinstance(node.schema.get(key), str)
        ]
        if isinstance(own, str) and own.startswith("#"):
            names.append((self._id_keyword, own[1:]))
        elif isinstance(own, str):
            self._register_id(node, own)
        if node.schema.get("$recursiveAnchor") is True:
            self._dynamic_target("").edges.append((node, True))
        for keyword, name in names:
            if self._anchors.setdefault((node.base, name), node) is not node:
                self._report(node, keyword, f"the name {name!r} is given twice")
            if keyword == "$dynamicAnchor":
                self._dynamic_target(name).edges.append((node, True))
        if not named and (names or isinstance(own, str)):
            self._report(
                node, self._id_keyword, "an identifier must stand where a keyword of its draft expects a schema"
            )

    def _register_id(self, node: Node, uri: str) -> None:
        if self._dialect.ref_hides_siblings and "$ref" in node.schema and self._queue[0] is not node:
            self._report(node, self._id_keyword, f"{self._id_keyword} beside $ref has no meaning before draft 2019-09")
        try:
            base, _, fragment = _join(node.base, uri).partition("#")
        except UnresolvedReferenceError as error:
            self._report(node, self._id_keyword, str(error))
            return
        if fragment:
            self._report(node, self._id_keyword, "an identifier has no fragment")
        elif not _is_normal(base):
            self._report(node, self._id_keyword, f"{base!r} is not in normal form: {_NORMAL_FORM}")
        elif self._resources.setdefault(base, node) is not node:
            self._report(node, self._id_keyword, f"the identifier {base!r} is given twice")
        node.base = base

    def _add_edges(self, node: Node) -> None:
        """Add the edges of a node."""
        for _, child, in_place in subschemas(node.schema):
            if in_place is not None:
                self._apply(node, child, in_place=in_place)
        for keyword in _REFERENCES:
            reference = node.schema.get(keyword)
            if isinstance(reference, str):
                try:
                    self._follow(node, keyword, reference)
                except UnresolvedReferenceError as error:
                    self._report(node, keyword, str(error))

    def _apply(self, node: Node, child: object, *, in_place: bool) -> None:
        if is_object(child):
            node.edges.append((self._nodes[id(child)], in_place))
        else:
            node.booleans += 1

    def _follow(self, node: Node, keyword: str, reference: str) -> None:
        target = self._resolve(node, reference)
        name = unquote(reference.partition("#")[2])
        if keyword == "$dynamicRef" and is_object(target) and target.get("$dynamicAnchor") == name:
            node.edges.append((self._dynamic_target(name), True))
        elif keyword == "$recursiveRef" and is_object(target) and target.get("$recursiveAnchor") is True:
            node.edges.append((self._dynamic_target(""), True))
        else:
            self._apply(node, target, in_place=True)

    def _dynamic_target(self, name: str) -> Node:
        return self._dynamic_targets.setdefault(name, Node({}, "", ""))

    def _resolve(self, node: Node, reference: str) -> object:
        """What a reference leads to: a schema that is a node now, or a boolean. Raises NowhereError."""
        uri, _, fragment = _join(node.base, reference).partition("#")
        resource = self._resources.get(uri)
        if resource is None:
            raise UnresolvedReferenceError(
                f"{reference!r} leads out of the document; references resolve inside the document only"
            )
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            anchor = self._anchors.get((uri, fragment))
            if anchor is None:
                raise UnresolvedReferenceError(f"{reference!r} leads nowhere: the document has no such anchor")
            return anchor.schema
        return self._resolve_pointer(resource, fragment, reference)

    def _resolve_pointer(self, resource: Node, path: str, reference: str) -> object:
        value: object = resource.schema
        keys = [key.replace("~1", "/").replace("~0", "~") for key in path.split("/")[1:]]
        for at, key in enumerate(keys):
            if at and is_object(value) and isinstance(value.get(self._id_keyword), str):
                raise UnresolvedReferenceError(
                    f"{reference!r} passes through a subschema with an identifier of its own: refer to that"
                )
            value = _step(value, key, reference)
        if is_object(value):
            if id(value) not in self._nodes:
                self._add(value, resource.base, pointer(resource.location, keys), named=False)
        elif not isinstance(value, bool):
            raise UnresolvedReferenceError(f"{reference!r} leads to something that is no schema")
        return value


def subschemas(schema: Schema) -> Iterator[tuple[list[str], object, bool | None]]:
    """The schemas directly below one: the way there, each (an object or a boolean), and whether it is applied in place
    (None: not at all)."""
    for keyword, value in schema.items():
        if keyword not in _KEYWORDS:
            continue
        is_one, in_place = _KEYWORDS[keyword]
        if is_one and isinstance(value, dict | bool):
            yield [keyword], cast(object, value), in_place
            continue
        for key, child in _entries(value):
            if isinstance(child, dict | bool):
                yield [keyword, key], cast(object, child), in_place


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether a JSON value is an object."""
    return isinstance(value, dict)


def _entries(value: object) -> Iterable[tuple[str, object]]:
    if is_object(value):
        return value.items()
    return ((str(at), child) for at, child in enumerate(cast(list[object], value))) if isinstance(value, list) else ()


def _join(base: str, reference: str) -> str:
    uri, hash_, fragment = reference.partition("#")
    if not _PRINTABLE_ASCII.fullmatch(uri) or ";" in uri:  # Python and the validator read `;` by different standards
        raise UnresolvedReferenceError(f"{reference!r} is not a URI reference that can be followed")
    try:
        joined = uri if urlsplit(uri).scheme else urljoin(base, uri) if uri else base
    except ValueError:
        raise UnresolvedReferenceError(f"{reference!r} is not a URI reference") from None
    return joined + hash_ + fragment


def _is_normal(uri: str) -> bool:
    """Whether no other spelling means the same resource to the validator, which compares normal forms (RFC 3986, 6)."""
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
    raise UnresolvedReferenceError(f"{reference!r} leads nowhere: the document has nothing at {key!r}")
