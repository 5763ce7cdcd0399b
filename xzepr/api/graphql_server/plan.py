"""Execution plans: decisions that graphql-core repeats for every request, made once for each operation.

A field is plain if it is read from its parent without arguments, `info` or waiting. A tree of plain fields is converted
in one step. graphql-core would create a path and an `info` and dispatch by type for each value, which is most of the
work for a list of 50 rows. If any value of the tree is not of the type that the schema declares, the whole tree is left
to graphql-core. It coerces values where possible and reports errors with their locations.
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

from xzepr.api.graphql_server.plan_types import Convert, GraphQLTypeRef, NotPlain, exactly, inner_type, list_of
from xzepr.api.graphql_server.resolvers import ReadField, reader_of
from xzepr.api.graphql_server.variables import Variables

Selected = list[FieldDetails]  # all selections in a document that are merged into one field of one object
CollectSubFields = Callable[[GraphQLObjectType, Selected], CollectedFields]  # graphql-core's `collect_subfields`


class SelectionCache:
    """The analysed selections of one operation.

    The integers in the keys are the `id()` of types and of objects that the cache keeps alive.
    """

    def __init__(self) -> None:
        self.roots: CollectedFields | None = None
        self.sub_fields: dict[tuple[GraphQLObjectType, int], tuple[Selected, CollectedFields]] = {}
        self.converters: dict[tuple[int, int], Convert | None] = {}
        """By type and selection; None if only graphql-core can convert the values."""
        self.readers: dict[int, dict[str, ReadField]] = {}
        """The plain fields of a selection set by their response names."""


class Plan:
    """The plan of one operation, whose document is valid for the schema."""

    def __init__(self, schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode) -> None:
        self.schema = schema
        self.operation = operation
        self.fragment_definitions = {
            node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)
        }
        self.fragments = {name: FragmentDetails(node) for name, node in self.fragment_definitions.items()}
        self.variables = Variables(schema, operation)
        # Only directives can make the selections of an operation differ between requests.
        text = "@" if document.loc is None else document.loc.source.body
        self._shared_cache = None if "@" in text else SelectionCache()

    def selection_cache(self) -> SelectionCache:
        """Returns the cache that all executions share, or a new one if their selections may differ."""
        return self._shared_cache or SelectionCache()


def field_readers(
    schema: GraphQLSchema, parent: GraphQLObjectType, fields: dict[str, Selected], collect: CollectSubFields
) -> dict[str, ReadField]:
    """Returns readers for the plain fields of a selection, by their response names. They also convert the values."""
    readers = {name: _field(schema, parent, selected, collect) for name, selected in fields.items()}
    return {name: read for name, read in readers.items() if read is not None}


def read_all(readers: dict[str, ReadField], source: object) -> dict[str, object]:
    """Returns the plain fields of one object; empty if any of the values is not plain."""
    try:
        return {name: read(source) for name, read in readers.items()}
    except Exception:
        return {}


def try_convert(convert: Convert, value: object) -> object:
    """Returns the converted value; Undefined if it is not plain."""
    try:
        return convert(value)
    except Exception:
        return Undefined


def output_converter(
    schema: GraphQLSchema, type_: GraphQLTypeRef, selected: Selected, collect: CollectSubFields
) -> Convert | None:
    """Returns a conversion to response values of a type with these selections; None if only graphql-core can do it."""
    if isinstance(type_, GraphQLNonNull):
        return _not_null(schema, inner_type(type_), selected, collect)
    convert = _not_null(schema, type_, selected, collect)
    return None if convert is None else lambda value: None if value is None else convert(value)


def _not_null(
    schema: GraphQLSchema, type_: GraphQLTypeRef, selected: Selected, collect: CollectSubFields
) -> Convert | None:
    if isinstance(type_, GraphQLList):
        convert_item = output_converter(schema, inner_type(type_), selected, collect)
        return None if convert_item is None else list_of(convert_item, or_tuple=True)
    if isinstance(type_, GraphQLObjectType):
        return _object(schema, type_, selected, collect)
    if isinstance(type_, GraphQLEnumType):
        return _enum(type_)
    return _leaf(type_) if is_leaf_type(type_) else None


def _object(
    schema: GraphQLSchema, type_: GraphQLObjectType, selected: Selected, collect: CollectSubFields
) -> Convert | None:
    collected = collect(type_, selected)
    if type_.is_type_of is not None or collected.new_defer_usages:
        return None
    fields = collected.grouped_field_set
    readers = field_readers(schema, type_, fields, collect)
    if len(readers) < len(fields):
        return None
    named_readers = list(readers.items())
    checked_types: set[object] = set()

    def convert(source: Any) -> object:
        source_type = cast(object, type(source))
        if source_type not in checked_types:
            _require_object(source)
            checked_types.add(source_type)
        return {name: read(source) for name, read in named_readers}

    return convert


def _require_object(source: object) -> None:
    if source is None or isinstance(source, Exception) or hasattr(source, "__await__"):
        raise NotPlain


def _field(
    schema: GraphQLSchema, parent: GraphQLObjectType, selected: Selected, collect: CollectSubFields
) -> ReadField | None:
    node: FieldNode = selected[0].node
    field: Any = schema.get_field(parent, node.name.value)
    if field is TypeNameMetaFieldDef:
        return lambda _: parent.name
    if field is None or field.args or (read := reader_of(field)) is None:
        return None
    if (exact := _EXACT_TYPES.get(str(field.type))) is not None:
        return _read_exactly(read, exact)
    convert = output_converter(schema, field.type, selected, collect)
    return None if convert is None else lambda source: convert(read(source))


def _read_exactly(read: ReadField, expected: type) -> ReadField:
    """Returns a reader that accepts values of exactly this type. It combines `read` and `exactly` to save a call."""

    def read_exactly(source: Any) -> object:
        value = read(source)
        if type(value) is not expected:
            raise NotPlain
        return value

    return read_exactly


def _enum(type_: GraphQLEnumType) -> Convert | None:
    members = cast("type[Enum] | None", getattr(type_, "wrapped_cls", None))
    if members is None:
        return None
    names: dict[Enum, object] = {member: type_.coerce_output_value(member) for member in members}

    def convert(value: Any) -> object:
        if type(value) is not members:
            raise NotPlain
        return names[value]

    return convert


def _leaf(type_: Any) -> Convert:
    exact = _EXACT_TYPES.get(f"{type_.name}!")
    if exact is not None:
        return exactly(exact)
    coerce = cast(Convert, type_.coerce_output_value)

    def convert(value: Any) -> object:
        if type(value) not in _PLAIN_TYPES or (coerced := coerce(value)) is None or coerced is Undefined:
            raise NotPlain
        return coerced

    return convert


# Types whose values need only their scalar's coercion, because they are neither awaitables nor exceptions.
_PLAIN_TYPES = frozenset({str, int, float, bool, bytes, datetime, dict, list})

# Values of exactly the Python type are valid response values of the GraphQL type.
_EXACT_TYPES: dict[str, type] = {"String!": str, "ID!": str, "Boolean!": bool}
