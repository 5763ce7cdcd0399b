"""Variables of an operation: JSON values to what resolvers get, as graphql-core coerces them, by readers made once.

A reader knows only values that are right as they stand. Whatever else there is, it leaves to graphql-core, whose
answer then holds: an error with its place, or a value that had to be coerced, such as a single item for a list.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum
from typing import Any, cast

from graphql import (
    GraphQLBoolean,
    GraphQLError,
    GraphQLID,
    GraphQLInputObjectType,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLSchema,
    GraphQLString,
    OperationDefinitionNode,
    Undefined,
    is_leaf_type,
    is_required_input_field,
)
from graphql.execution.get_variable_signature import GraphQLVariableSignature, get_variable_signature
from graphql.execution.values import VariableValues, VariableValueSource, get_variable_values

from xzepr.api.graphql_server.errors import MAX_ERRORS
from xzepr.api.graphql_server.plan_types import NotPlain, exactly, inner_type, list_of

InputType = Any
"""A GraphQLInputType, whose parts graphql-core leaves untyped."""
Reader = Callable[[Any], object]
_Field = tuple[str, str, Reader, bool]
"""Of an input type: its name, the name of its parameter, its reader, and whether it must be given."""


class Variables:
    """The variables that one operation declares."""

    def __init__(self, schema: GraphQLSchema, operation: OperationDefinitionNode) -> None:
        self._schema = schema
        self._declared = operation.variable_definitions or ()
        signatures = [get_variable_signature(schema, node) for node in self._declared]
        self._converters: list[tuple[str, Any, Reader]] | None = None
        if all(isinstance(signature, GraphQLVariableSignature) for signature in signatures):
            sound = cast(list[Any], signatures)
            self._converters = [(signature.name, signature, input_converter(signature.type)) for signature in sound]

    def values(self, given: Mapping[str, object]) -> VariableValues | list[GraphQLError]:
        """What a request gives for them, coerced; or what is wrong with it."""
        if self._converters is not None:
            with suppress(Exception):  # whatever a scalar raises, graphql-core says what it means
                return _read(self._converters, given)
        return get_variable_values(self._schema, self._declared, dict(given), max_errors=MAX_ERRORS)


def _read(readers: list[tuple[str, Any, Reader]], given: Mapping[str, object]) -> VariableValues:
    sources: dict[str, VariableValueSource] = {}
    coerced: dict[str, object] = {}
    for name, signature, read in readers:
        if name in given:
            value = given[name]
            coerced[name] = read(value)
            sources[name] = VariableValueSource(signature, value)
        elif signature.default is not None or isinstance(signature.type, GraphQLNonNull):
            raise NotPlain
        else:
            sources[name] = VariableValueSource(signature)
    return VariableValues(sources, coerced)


def input_converter(type_: InputType) -> Reader:
    """Reads plain values of a type; raises any Exception for others."""
    return _ConverterFactory().of(type_)


class _ConverterFactory:
    """Makes the readers of a type and of all within it."""

    def __init__(self) -> None:
        self._making: set[str] = set()

    def of(self, type_: InputType) -> Reader:
        if isinstance(type_, GraphQLNonNull):
            return self._of_nullable(inner_type(type_))
        read = self._of_nullable(type_)
        return lambda value: None if value is None else read(value)

    def _of_nullable(self, type_: InputType) -> Reader:
        """Reads values that are not null, and refuses null."""
        if isinstance(type_, GraphQLList):
            return list_of(self.of(inner_type(type_)))
        if isinstance(type_, GraphQLInputObjectType):
            return self._object(type_)
        return _LEAVES.get(str(type_)) or _leaf(type_)

    def _object(self, type_: GraphQLInputObjectType) -> Reader:
        if type_.is_one_of or type_.name in self._making:
            return _never_plain
        self._making.add(type_.name)
        fields = [
            (name, field.out_name or name, self.of(field.type), is_required_input_field(field))
            for name, field in type_.fields.items()
        ]
        self._making.remove(type_.name)
        defaults: dict[str, object] = {}
        for name, field in type_.fields.items():
            if field.default is not None or not isinstance(field.default_value, _CONSTANTS):
                return _never_plain
            if field.default_value is not Undefined:
                defaults[field.out_name or name] = field.default_value
        return _object_of(fields, defaults, type_.out_type)


_CONSTANTS = (str, bool, int, float, Enum, type(None), type(Undefined))
"""What every request may share."""


def _object_of(
    fields: list[tuple[str, str, Reader, bool]],
    defaults: dict[str, object],
    made: Callable[[dict[str, object]], object],
) -> Reader:
    def read(value: Any) -> object:
        if type(value) is not dict:
            raise NotPlain
        given = cast(dict[str, object], value)
        coerced = defaults.copy()
        known = 0
        for name, out_name, read_field, required in fields:
            if name in given:
                coerced[out_name] = read_field(given[name])
                known += 1
            elif required:
                raise NotPlain
        if known != len(given):
            raise NotPlain
        return made(coerced)

    return read


def _leaf(type_: InputType) -> Reader:
    if not is_leaf_type(type_):
        return _never_plain
    coerce = type_.coerce_input_value

    def read(value: Any) -> object:
        if value is None or (coerced := coerce(value)) is Undefined:
            raise NotPlain
        return coerced

    return read


def _never_plain(_: Any) -> object:
    raise NotPlain


def _int(value: Any) -> object:
    if type(value) is not int or not -(2**31) <= value < 2**31:
        raise NotPlain
    return value


_LEAVES: dict[str, Reader] = {
    GraphQLString.name: exactly(str),
    GraphQLID.name: exactly(str),
    GraphQLBoolean.name: exactly(bool),
    GraphQLInt.name: _int,
}
