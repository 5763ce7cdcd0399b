"""Converts the variables of an operation from JSON to the arguments of resolvers, like graphql-core but faster.

Each variable's conversion is built once and handles only plain values. Everything else is left to graphql-core: it
reports an error with its location, or coerces the value, such as a single item for a list.
"""

from collections.abc import Mapping
from typing import Any, cast

from graphql import (
    GraphQLError,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLSchema,
    OperationDefinitionNode,
    Undefined,
    is_leaf_type,
    is_required_input_field,
)
from graphql.execution.get_variable_signature import GraphQLVariableSignature, get_variable_signature
from graphql.execution.values import VariableValues, VariableValueSource, get_variable_values

from xzepr.api.graphql_server.errors import MAX_ERRORS
from xzepr.api.graphql_server.plans.conversions import (
    EXACT_TYPES,
    IMMUTABLE,
    Convert,
    GraphQLTypeRef,
    NotPlain,
    exactly,
    inner_type,
    int32,
    list_of,
)
from xzepr.api.graphql_server.plans.input_code import InputField, object_function
from xzepr.api.graphql_server.plans.resolvers import input_class_of


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
        coerced = self._coerced(variables)
        return coerced if isinstance(coerced, list) else RequestVariables(self, variables, coerced)

    def sources(self, variables: Mapping[str, object]) -> dict[str, VariableValueSource]:
        """Returns the variables of a request as they were sent."""
        return {
            signature.name: VariableValueSource(signature, variables.get(signature.name, Undefined))
            for _, signature, _ in self._converters or ()
        }

    def _coerced(self, variables: Mapping[str, object]) -> dict[str, object] | list[GraphQLError]:
        if not self._declared:
            return {}
        if self._converters is not None:
            try:
                return _convert(self._converters, variables)
            except Exception:  # noqa: S110 whatever a scalar raises, graphql-core reports it with its location
                pass
        values = get_variable_values(self._schema, self._declared, dict(variables), max_errors=MAX_ERRORS)
        return values if isinstance(values, list) else values.coerced

    def coerced_again(self, variables: Mapping[str, object]) -> dict[str, object]:
        """Returns the coerced variables of a request that have no errors, as new objects."""
        coerced = self._coerced(variables)
        assert not isinstance(coerced, list), "the variables were coerced before"
        return coerced


class RequestVariables(dict[str, object]):
    """The coerced variables of one request. One that was not sent and has no default is missing.

    Resolvers may change their arguments, so `get` returns each value that can be changed only once, and then a new one.
    """

    __slots__ = ("_declared", "_passed", "_sent")

    def __init__(self, declared: Variables, sent: Mapping[str, object], coerced: dict[str, object]) -> None:
        super().__init__(coerced)
        self._declared = declared
        self._sent = sent
        self._passed: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        """Returns the value of a variable for one call."""
        value = super().get(name, default)
        if isinstance(value, IMMUTABLE):
            return value
        if name in self._passed:
            return self._declared.coerced_again(self._sent)[name]
        self._passed.add(name)
        return value

    def for_core(self) -> VariableValues:
        """Returns the variables as graphql-core needs them, which reads them by `get`."""
        return VariableValues(self._declared.sources(self._sent), self)


def _convert(converters: list[tuple[str, Any, Convert]], variables: Mapping[str, object]) -> dict[str, object]:
    coerced: dict[str, object] = {}
    for name, signature, convert in converters:
        if name in variables:
            coerced[name] = convert(variables[name])
        elif signature.default is not None or isinstance(signature.type, GraphQLNonNull):
            raise NotPlain
    return coerced


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
        fields = [self._field(name, field, type_) for name, field in type_.fields.items()]
        self._enclosing.remove(type_.name)
        if any(field.default is not None for field in type_.fields.values()):
            return _never_plain
        if not all(isinstance(field.default, IMMUTABLE) for field in fields):
            return _never_plain
        input_class = input_class_of(type_)
        return object_function(fields, type_.out_type if input_class is None else input_class.create)

    def _field(self, name: str, field: GraphQLInputField, parent: GraphQLInputObjectType) -> InputField:
        out_name, type_ = field.out_name or name, cast(Any, field).type
        default, input_class = field.default_value, input_class_of(parent)
        if default is Undefined and input_class is not None:
            default = input_class.absent.get(out_name, Undefined)
        exact = EXACT_TYPES.get(str(inner_type(type_))) if isinstance(type_, GraphQLNonNull) else None
        return InputField(
            name=name,
            out_name=out_name,
            convert=self.of(type_),
            exact=exact,
            required=is_required_input_field(field),
            default=default,
        )


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


_LEAVES: dict[str, Convert] = {name: exactly(type_) for name, type_ in EXACT_TYPES.items()} | {"Int": int32}
