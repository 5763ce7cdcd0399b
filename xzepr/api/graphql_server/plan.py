"""Fast execution: what graphql-core finds out anew for every request is found out once for each operation.

Of what a response shows, a tree of plain fields, each read from its parent without arguments, `info` or waiting, is
written in one go: without a path, an info and a dispatch by type for each value, which for a list of 50 rows are most
of the work. A tree whose values are not all what the schema says they are is left to graphql-core as a whole, which
coerces what can be coerced, and raises and places the errors.
"""

from collections.abc import Callable
from datetime import datetime
from enum import Enum
from typing import Any, cast

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    GraphQLEnumType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    OperationDefinitionNode,
    TypeNameMetaFieldDef,
    Undefined,
    is_leaf_type,
)
from graphql.execution.collect_fields import CollectedFields, FieldDetails, FragmentDetails

from xzepr.api.graphql_server.plan_types import NotPlain, exactly, inner_type, list_of
from xzepr.api.graphql_server.resolvers import ReadField, reader_of
from xzepr.api.graphql_server.variables import Variables

OutputType = Any
"""A GraphQLOutputType, whose parts graphql-core leaves untyped."""
Selected = list[FieldDetails]
"""The places in a document that ask for one field of one object, merged."""
SubFields = Callable[[GraphQLObjectType, Selected], CollectedFields]
Write = Callable[[Any], object]
"""Takes what a resolver gave and gives what the response shows; raises any Exception for what is not plain."""


class SelectionCache:
    """What was found out about the selections of an operation; keys are the identities of what `sub_fields` holds."""

    def __init__(self) -> None:
        self.roots: CollectedFields | None = None
        self.sub_fields: dict[tuple[GraphQLObjectType, int], tuple[Selected, CollectedFields]] = {}
        self.converters: dict[tuple[int, int], Write | None] = {}
        self.readers: dict[int, dict[str, ReadField]] = {}


class Plan:
    """One operation of a document that is valid for a schema."""

    def __init__(self, schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode) -> None:
        self.schema = schema
        self.operation = operation
        self.fragment_definitions = {
            node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)
        }
        self.fragments = {name: FragmentDetails(node) for name, node in self.fragment_definitions.items()}
        self.variables = Variables(schema, operation)
        # Only directives make what is selected depend on variables.
        text = "@" if document.loc is None else document.loc.source.body
        self._shared_cache = None if "@" in text else SelectionCache()

    def selection_cache(self) -> SelectionCache:
        """Of all executions of the operation, or, where they may differ in what they select, of one."""
        return self._shared_cache or SelectionCache()


def field_readers(
    schema: GraphQLSchema, parent: GraphQLObjectType, fields: dict[str, Selected], sub_fields: SubFields
) -> dict[str, ReadField]:
    """How to read and write those fields of a selection that are plain, by their names in the response."""
    readers = {name: _field(schema, parent, selected, sub_fields) for name, selected in fields.items()}
    return {name: read for name, read in readers.items() if read is not None}


def read_all(readers: dict[str, ReadField], source: object) -> dict[str, object]:
    """The fields of one object that are plain; none of them if one turns out not to be."""
    try:
        return {name: read(source) for name, read in readers.items()}
    except Exception:
        return {}


def try_convert(write: Write, value: object) -> object:
    """What the response shows of the value; Undefined if it turns out not to be plain."""
    try:
        return write(value)
    except Exception:
        return Undefined


def output_converter(
    schema: GraphQLSchema, type_: OutputType, selected: Selected, sub_fields: SubFields
) -> Write | None:
    """How to write values of a type of which these fields are selected; None when that takes more than reading."""
    if isinstance(type_, GraphQLNonNull):
        return _not_null(schema, inner_type(type_), selected, sub_fields)
    write = _not_null(schema, type_, selected, sub_fields)
    return None if write is None else lambda value: None if value is None else write(value)


def _not_null(schema: GraphQLSchema, type_: OutputType, selected: Selected, sub_fields: SubFields) -> Write | None:
    if isinstance(type_, GraphQLList):
        write = output_converter(schema, inner_type(type_), selected, sub_fields)
        return None if write is None else list_of(write, or_tuple=True)
    if isinstance(type_, GraphQLObjectType):
        return _object(schema, type_, selected, sub_fields)
    if isinstance(type_, GraphQLEnumType):
        return _enum(type_)
    return _leaf(type_) if is_leaf_type(type_) else None


def _object(schema: GraphQLSchema, type_: GraphQLObjectType, selected: Selected, sub_fields: SubFields) -> Write | None:
    collected = sub_fields(type_, selected)
    if type_.is_type_of is not None or collected.new_defer_usages:
        return None
    fields = collected.grouped_field_set
    readers = field_readers(schema, type_, fields, sub_fields)
    if len(readers) < len(fields):
        return None
    steps = list(readers.items())
    seen: set[object] = set()

    def write(source: Any) -> object:
        kind = cast(object, type(source))
        if kind not in seen:
            _require_object(source)
            seen.add(kind)
        return {name: read(source) for name, read in steps}

    return write


def _require_object(source: object) -> None:
    if source is None or isinstance(source, Exception) or hasattr(source, "__await__"):
        raise NotPlain


def _field(
    schema: GraphQLSchema, parent: GraphQLObjectType, selected: Selected, sub_fields: SubFields
) -> ReadField | None:
    node: FieldNode = selected[0].node
    field: Any = schema.get_field(parent, node.name.value)
    if field is TypeNameMetaFieldDef:
        return lambda _: parent.name
    if field is None or field.args or (read := reader_of(field)) is None:
        return None
    if (exact := _EXACT_TYPES.get(str(field.type))) is not None:
        return _read_exactly(read, exact)
    write = output_converter(schema, field.type, selected, sub_fields)
    return None if write is None else lambda source: write(read(source))


def _read_exactly(read: ReadField, wanted: type) -> ReadField:
    """The same as `exactly` of what is read, in one call: most fields of a list are such."""

    def read_exactly(source: Any) -> object:
        value = read(source)
        if type(value) is not wanted:
            raise NotPlain
        return value

    return read_exactly


def _enum(type_: GraphQLEnumType) -> Write | None:
    members = cast("type[Enum] | None", getattr(type_, "wrapped_cls", None))
    if members is None:
        return None
    names: dict[Enum, object] = {member: type_.coerce_output_value(member) for member in members}

    def write(value: Any) -> object:
        if type(value) is not members:
            raise NotPlain
        return names[value]

    return write


def _leaf(type_: Any) -> Write:
    exact = _EXACT_TYPES.get(f"{type_.name}!")
    if exact is not None:
        return exactly(exact)
    coerce = cast(Write, type_.coerce_output_value)

    def write(value: Any) -> object:
        if type(value) not in _PLAIN_TYPES or (shown := coerce(value)) is None or shown is Undefined:
            raise NotPlain
        return shown

    return write


_PLAIN_TYPES = frozenset({str, int, float, bool, bytes, datetime, dict, list})
"""Types of values that are neither awaited nor raised."""


_EXACT_TYPES: dict[str, type] = {"String!": str, "ID!": str, "Boolean!": bool}
"""What values must be that the response shows as they are."""
