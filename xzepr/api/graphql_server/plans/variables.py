"""Converts the variables of an operation from JSON to the arguments of resolvers, like graphql-core but faster.

Each variable's conversion is built once and handles only plain values. Everything else is left to graphql-core: it
reports an error with its location, or coerces the value, such as a single item for a list.
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
from xzepr.api.graphql_server.plans.conversions import Convert, GraphQLTypeRef, NotPlain, exactly, inner_type, list_of

_Field = tuple[str, str, Convert, bool]  # of an input type: its name, Python name and conversion, and if it is required


class Variables:
    """The variables that one operation declares."""

    def __init__(self, schema: GraphQLSchema, operation: OperationDefinitionNode) -> None:
        self._schema = schema
        self._declared = operation.variable_definitions or ()
        signatures = [get_variable_signature(schema, node) for node in self._declared]
        self._converters: list[tuple[str, Any, Convert]] | None = None
        """The name, signature and conversion of each variable; None if a signature is invalid."""
        if all(isinstance(signature, GraphQLVariableSignature) for signature in signatures):
            valid = cast(list[Any], signatures)
            self._converters = [(signature.name, signature, input_converter(signature.type)) for signature in valid]

    def of(self, variables: Mapping[str, object]) -> "RequestVariables | list[GraphQLError]":
        """Returns the variables of a request, coerced; the errors in them if there are any."""
        if not self._declared:
            return RequestVariables(self, variables, {})
        if self._converters is not None:
            with suppress(Exception):  # whatever a scalar raises, graphql-core reports it with its location
                return RequestVariables(self, variables, _convert(self._converters, variables))
        values = self.values(variables)
        return values if isinstance(values, list) else RequestVariables(self, variables, values.coerced, values)

    def values(self, variables: Mapping[str, object]) -> VariableValues | list[GraphQLError]:
        """Returns the coerced variables as graphql-core needs them, or the errors in them."""
        if self._converters is not None:
            with suppress(Exception):
                coerced = _convert(self._converters, variables)
                return VariableValues(_sources(self._converters, variables), coerced)
        return get_variable_values(self._schema, self._declared, dict(variables), max_errors=MAX_ERRORS)


class RequestVariables:
    """The variables of one request."""

    __slots__ = ("_declared", "_sent", "_values", "coerced")

    def __init__(
        self,
        declared: Variables,
        sent: Mapping[str, object],
        coerced: dict[str, object],
        values: VariableValues | None = None,
    ) -> None:
        self._declared = declared
        self._sent = sent
        self.coerced = coerced
        """The values by name. A variable that was not sent and has no default is missing."""
        self._values = values

    def values(self) -> VariableValues:
        """Returns the variables as graphql-core needs them."""
        if self._values is None:
            values = self._declared.values(self._sent)
            assert not isinstance(values, list), "the variables were coerced before"
            self._values = values
        return self._values


def _convert(converters: list[tuple[str, Any, Convert]], variables: Mapping[str, object]) -> dict[str, object]:
    coerced: dict[str, object] = {}
    for name, signature, convert in converters:
        if name in variables:
            coerced[name] = convert(variables[name])
        elif signature.default is not None or isinstance(signature.type, GraphQLNonNull):
            raise NotPlain
    return coerced


def _sources(
    converters: list[tuple[str, Any, Convert]], variables: Mapping[str, object]
) -> dict[str, VariableValueSource]:
    return {
        name: VariableValueSource(signature, variables[name]) if name in variables else VariableValueSource(signature)
        for name, signature, _ in converters
    }


def input_converter(type_: GraphQLTypeRef) -> Convert:
    """Returns a conversion of the plain values of an input type."""
    return _ConverterFactory().of(type_)


class _ConverterFactory:
    """Builds the conversions of a type and of the types within it."""

    def __init__(self) -> None:
        self._enclosing: set[str] = set()  # names of the types being built, to recognise recursive types

    def of(self, type_: GraphQLTypeRef) -> Convert:
        if isinstance(type_, GraphQLNonNull):
            return self._not_null(inner_type(type_))
        convert = self._not_null(type_)
        return lambda value: None if value is None else convert(value)

    def _not_null(self, type_: GraphQLTypeRef) -> Convert:
        """Returns a conversion that does not accept null."""
        if isinstance(type_, GraphQLList):
            return list_of(self.of(inner_type(type_)))
        if isinstance(type_, GraphQLInputObjectType):
            return self._object(type_)
        return _LEAVES.get(str(type_)) or _leaf(type_)

    def _object(self, type_: GraphQLInputObjectType) -> Convert:
        if type_.is_one_of or type_.name in self._enclosing:
            return _never_plain
        self._enclosing.add(type_.name)
        fields: list[_Field] = [
            (name, field.out_name or name, self.of(field.type), is_required_input_field(field))
            for name, field in type_.fields.items()
        ]
        self._enclosing.remove(type_.name)
        defaults: dict[str, object] = {}
        for name, field in type_.fields.items():
            if field.default is not None or not isinstance(field.default_value, _IMMUTABLE_TYPES):
                return _never_plain
            if field.default_value is not Undefined:
                defaults[field.out_name or name] = field.default_value
        return _object_of(fields, defaults, type_.out_type)


_IMMUTABLE_TYPES = (str, bool, int, float, Enum, type(None), type(Undefined))  # defaults that all requests may share


def _object_of(
    fields: list[_Field],
    defaults: dict[str, object],
    out_type: Callable[[dict[str, object]], object],
) -> Convert:
    def convert(value: Any) -> object:
        if type(value) is not dict:
            raise NotPlain
        members = cast(dict[str, object], value)
        coerced = defaults.copy()
        converted_count = 0
        for name, out_name, convert_field, required in fields:
            if name in members:
                coerced[out_name] = convert_field(members[name])
                converted_count += 1
            elif required:
                raise NotPlain
        if converted_count != len(members):  # the value has unknown fields
            raise NotPlain
        return out_type(coerced)

    return convert


def _leaf(type_: GraphQLTypeRef) -> Convert:
    if not is_leaf_type(type_):
        return _never_plain
    coerce = type_.coerce_input_value

    def convert(value: Any) -> object:
        if value is None or (coerced := coerce(value)) is Undefined:
            raise NotPlain
        return coerced

    return convert


def _never_plain(_: Any) -> object:
    raise NotPlain


def _int(value: Any) -> object:
    if type(value) is not int or not -(2**31) <= value < 2**31:
        raise NotPlain
    return value


_LEAVES: dict[str, Convert] = {
    GraphQLString.name: exactly(str),
    GraphQLID.name: exactly(str),
    GraphQLBoolean.name: exactly(bool),
    GraphQLInt.name: _int,
}
