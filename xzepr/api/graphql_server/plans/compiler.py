"""Compiles the selections of an operation to levels, which complete values; see `levels.py`.

A selection that the compiler does not know raises NotCompiled, and graphql-core executes the operation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import GeneratorType
from typing import Any, cast

from graphql import (
    GraphQLField,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    OperationDefinitionNode,
    TypeNameMetaFieldDef,
    get_named_type,
    is_abstract_type,
    is_leaf_type,
)
from graphql.execution.collect_fields import (
    CollectedFields,
    FieldDetails,
    FragmentDetails,
    collect_fields,
    collect_subfields,
)
from graphql.execution.values import VariableValues
from graphql.pyutils import UndefinedType

from xzepr.api.graphql_server.plans.arguments import Arguments
from xzepr.api.graphql_server.plans.conversions import GraphQLTypeRef, NotPlain, inner_type, not_plain
from xzepr.api.graphql_server.plans.leaves import leaf_level
from xzepr.api.graphql_server.plans.levels import (
    Column,
    Immutables,
    Level,
    ListOf,
    Nullable,
    Objects,
    OneOf,
    Plain,
)
from xzepr.api.graphql_server.plans.rendered import RenderedObjects
from xzepr.api.graphql_server.plans.resolvers import DEFINITION, Guard, Reader, call_of, itself, reader_of
from xzepr.api.graphql_server.plans.row_code import Field, assemble_function, rows_function

Selected = list[FieldDetails]  # all selections in a document that are merged into one field of one object

_MAX_FIELDS = 2_000  # of one operation; larger ones are left to graphql-core


_MIN_RENDERED_FIELDS = 4  # fewer are written faster than they are looked up


class NotCompiled(Exception):
    """Raised for an operation that graphql-core has to execute."""


class Compiler:
    """Compiles one operation, for one combination of the variables of its directives."""

    def __init__(
        self,
        schema: GraphQLSchema,
        fragments: dict[str, FragmentDetails],
        operation: OperationDefinitionNode,
        variables: VariableValues,
        rendered: RenderedObjects,
        *,
        denied: bool = False,
    ) -> None:
        """`denied`: whether the caller may not read guarded fields, so that their values are left to graphql-core."""
        self.guards: list[Guard] = []
        """The guards of the fields that were compiled."""
        self._denied = denied
        self._schema = schema
        self._fragments = fragments
        self._operation = operation
        self._variables = variables
        self._rendered = rendered
        self._fields = 0

    def roots(self, root: GraphQLObjectType) -> list[tuple[str, GraphQLField | None, Selected]]:
        """Returns the root fields: response name, definition (None for `__typename`) and selections."""
        fields = self._known(collect_fields(self._schema, self._fragments, self._variables, root, self._operation))
        return [(name, self._definition(root, selected), selected) for name, selected in fields.items()]

    def root_level(self, field: GraphQLField, selected: Selected) -> Level:
        """Returns the level of the values of a root field."""
        return self._level(cast(Any, field).type, selected)

    def _known(self, collected: CollectedFields) -> dict[str, Selected]:
        fields = collected.grouped_field_set
        self._fields += len(fields)
        if collected.new_defer_usages or self._fields > _MAX_FIELDS:
            raise NotCompiled
        if any(selected[0].fragment_variable_values is not None for selected in fields.values()):
            raise NotCompiled
        return fields

    def _definition(self, parent: GraphQLObjectType, selected: Selected) -> GraphQLField | None:
        """Returns the definition of a field; None for `__typename`."""
        field = self._schema.get_field(parent, selected[0].node.name.value)
        if field is None:
            raise NotCompiled
        return None if field is TypeNameMetaFieldDef else field

    def _level(self, type_: GraphQLTypeRef, selected: Selected) -> Level:
        if isinstance(type_, GraphQLNonNull):
            return self._present(inner_type(type_), selected)
        level = self._present(type_, selected)
        return _nullable(level) if isinstance(level, Plain) else Nullable(level)

    def _present(self, type_: GraphQLTypeRef, selected: Selected) -> Level:
        """Returns the level of values that are not null."""
        if isinstance(type_, GraphQLList):
            return _list_of(self._level(inner_type(type_), selected))
        if isinstance(type_, GraphQLObjectType):
            return self._object(type_, selected)
        if is_abstract_type(type_):
            if getattr(type_.extensions.get(DEFINITION), "resolve_type", None) is not None:
                raise NotCompiled
            levels = {_class_of(each): self._object(each, selected) for each in self._schema.get_possible_types(type_)}
            return _one_of(levels)
        if is_leaf_type(type_) and (level := leaf_level(type_)) is not None:
            return level
        raise NotCompiled

    def _object(self, type_: GraphQLObjectType, selected: Selected) -> Level:
        check_type = _exact_class(type_) if type_.is_type_of is not None else _check_object
        fields = self._known(
            collect_subfields(self._schema, self._fragments, self._variables, self._operation, type_, selected)
        )
        columns = [self._column(name, type_, inner) for name, inner in fields.items()]
        if self._rendered.has(type_.name) and (level := self._render(type_.name, columns, check_type)) is not None:
            return level
        if all(_is_plain(column) for column in columns):
            rows = rows_function([_code(column) for column in columns], check_type)
            return Plain(lambda item: rows([item])[0], rows=rows)
        return Objects(columns, check_type, assemble_function([column.name for column in columns]))

    def _column(self, name: str, parent: GraphQLObjectType, selected: Selected) -> Column:
        field = self._definition(parent, selected)
        if field is None:
            type_name = parent.name
            return Column(name=name, level=Plain(itself), read=lambda _: type_name, constant=type_name)
        level = self._level(cast(Any, field).type, selected)
        if (reader := reader_of(field)) is not None and not field.args:
            if reader.guard is not None:
                self.guards.append(reader.guard)
                reader = Reader(not_plain) if self._denied else reader
            return Column(name=name, level=level, read=reader.read, attribute=reader.attribute, waits=level.waits)
        call = call_of(field)
        if call is None or (call.is_async and not call.is_batch):
            raise NotCompiled
        arguments, waits = Arguments(field, selected[0].node), call.is_batch or level.waits
        is_scalar = is_leaf_type(get_named_type(cast(Any, field).type))
        return Column(name=name, level=level, call=call, arguments=arguments, waits=waits, is_scalar=is_scalar)

    def _render(self, type_name: str, columns: Sequence[Column], check_type: Callable[[object], None]) -> Level | None:
        """Returns the level of objects that never change; None if they have few fields, or edges of edges.

        Objects are also not rendered with edges that are scalars: 1, 1.0 and True are equal, but differ in JSON.
        """
        if len(columns) < _MIN_RENDERED_FIELDS or not all(isinstance(column.level, Plain) for column in columns):
            return None
        plain = [column for column in columns if _is_plain(column)]
        edges = [column for column in columns if not _is_plain(column)]
        if any(edge.is_scalar for edge in edges):
            return None
        rows = rows_function([_code(column) for column in plain], check_type)
        names = [column.name for column in columns]
        edge_levels = [(column.name, cast(Plain, column.level)) for column in edges]

        def write(item: object, values: Sequence[object]) -> Mapping[str, object]:
            fields = cast(dict[str, object], rows([item])[0])
            for (name, level), value in zip(edge_levels, values, strict=True):
                fields[name] = level.convert(value)
            return {name: fields[name] for name in names}

        selection = self._rendered.selection(type_name, write)
        if not edges:
            return Plain(selection.one, rows=selection.rows)
        return Immutables(selection, edges, check_type)


def _is_plain(column: Column) -> bool:
    return column.call is None and isinstance(column.level, Plain)


def _code(column: Column) -> Field:
    level = cast(Plain, column.level)
    assert column.read is not None, "a plain column is read"
    return Field(
        name=column.name,
        read=column.read,
        convert=level.convert,
        rows=level.rows,
        attribute=column.attribute,
        leaf=level.leaf,
        constant=column.constant,
    )


def _nullable(level: Plain) -> Plain:
    convert, leaf = level.convert, level.leaf
    return Plain(
        lambda value: None if value is None else convert(value),
        None if leaf is None else replace(leaf, nullable=True),
    )


def _list_of(item: Level) -> Level:
    if not isinstance(item, Plain):
        return ListOf(item)
    completed = item.completed

    def convert(value: Any) -> object:
        if type(value) is not list and type(value) is not tuple:
            raise NotPlain
        return completed(cast("list[object]", value))

    return Plain(convert)


def _one_of(levels: Mapping[type, Level]) -> Level:
    plain = {class_: level.convert for class_, level in levels.items() if isinstance(level, Plain)}
    return OneOf(levels) if len(plain) < len(levels) else Plain(lambda value: plain[type(value)](value))


# Exceptions are errors, Undefined is null, and some generators are awaitables.
_NO_OBJECTS = (Exception, GeneratorType, UndefinedType)


def _check_object(value: object) -> None:
    """Raises NotPlain for a value that is no object with fields."""
    if value is None or isinstance(value, _NO_OBJECTS) or hasattr(value, "__await__"):
        raise NotPlain


def _class_of(type_: GraphQLObjectType) -> type:
    """Returns the Python class of a type that implements an interface."""
    definition: Any = type_.extensions.get(DEFINITION)
    origin = getattr(definition, "origin", None)
    if origin is None or definition.is_type_of is not None:
        raise NotCompiled
    return cast(type, origin)


def _exact_class(type_: GraphQLObjectType) -> Callable[[object], None]:
    expected = _class_of(type_)

    def check(value: object) -> None:
        if type(value) is not expected:
            raise NotPlain

    return check
