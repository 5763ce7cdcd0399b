"""Lets graphql-core call resolver functions directly, without Strawberry's work for each call.

For each call, Strawberry converts the arguments by their annotations and wraps the resolver in its extensions and in a
coroutine. That costs 70 µs for an input of nine fields. Here graphql-core creates the instances of input types while it
coerces them (by `out_type`), and calls the resolver functions itself.
"""

from collections.abc import Callable, Iterator
from dataclasses import MISSING
from operator import attrgetter
from typing import Any, cast

import strawberry
from graphql import (
    GraphQLArgument,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLObjectType,
    GraphQLSchema,
)
from strawberry.types.base import StrawberryObjectDefinition
from strawberry.types.field import StrawberryField

# Keys of the `extensions` of a field or type.
_DEFINITION = "strawberry-definition"
_READER = "xzepr-reader"

# Key in a subscription's metadata for a function that converts a source event to its GraphQL object. It is called when
# a response is rendered, not for each subscriber that gets the response.
RESOLVE_ITEM = "xzepr-resolve-item"

ReadField = Callable[[Any], object]  # takes the Python value of a GraphQL object and returns the value of one field


def install(schema: GraphQLSchema) -> None:
    """Replaces Strawberry's resolvers and input conversions in a schema that Strawberry built.

    Raises TypeError for a field that needs Strawberry at run time: one with extensions, or whose resolver has `self`.
    """
    for type_ in schema.type_map.values():
        if isinstance(type_, GraphQLInputObjectType):
            _make_instances(type_)
        elif isinstance(type_, GraphQLObjectType):
            for field, definition in _strawberry_fields(type_):
                _resolve_directly(field, definition)


def reader_of(field: GraphQLField) -> ReadField | None:
    """Returns the reader of a field that needs no arguments, no `info` and no waiting; None for other fields."""
    return cast("ReadField | None", field.extensions.get(_READER))


def _strawberry_fields(type_: GraphQLObjectType) -> Iterator[tuple[GraphQLField, StrawberryField]]:
    for field in type_.fields.values():
        definition = field.extensions.get(_DEFINITION)
        if isinstance(definition, StrawberryField):
            yield field, definition


def _resolve_directly(field: GraphQLField, definition: StrawberryField) -> None:
    resolver = cast(Any, definition).base_resolver
    if definition.extensions or (resolver is not None and resolver.self_parameter is not None):
        raise TypeError(f"{definition.python_name} cannot be resolved directly: use a static method without extensions")
    for argument in field.args.values():
        argument.out_name = _python_name(argument)
    if resolver is None:
        _resolve_by_reading(field, attrgetter(definition.python_name))
        return
    function: Callable[..., object] = resolver.wrapped_func
    parent = resolver.parent_parameter or resolver.root_parameter
    info = resolver.info_parameter
    if parent is not None and info is None and not field.args and not resolver.is_async:
        _resolve_by_reading(field, function)
        return
    call = _calling_resolver(function, definition, parent and parent.name, info and info.name)
    if definition.is_subscription:
        field.subscribe = call
        if (resolve_item := definition.metadata.get(RESOLVE_ITEM)) is not None:
            field.resolve = _item_resolver(resolve_item)
    else:
        field.resolve = call


def _item_resolver(resolve_item: Callable[[object], object]) -> Callable[..., object]:
    def resolve(item: object, _info: object, **_arguments: object) -> object:
        return resolve_item(item)

    return resolve


def _resolve_by_reading(field: GraphQLField, read: ReadField) -> None:
    def resolve(source: object, _info: object) -> object:
        return read(source)

    field.resolve = resolve
    field.extensions[_READER] = read


def _calling_resolver(
    function: Callable[..., object], field: StrawberryField, parent: str | None, info: str | None
) -> Callable[..., object]:
    def resolve(source: object, raw_info: Any, **arguments: object) -> object:
        if parent is not None:
            arguments[parent] = source
        if info is not None:
            arguments[info] = strawberry.Info(_raw_info=raw_info, _field=field)
        return function(**arguments)

    return resolve


def _make_instances(type_: GraphQLInputObjectType) -> None:
    definition = type_.extensions.get(_DEFINITION)
    if not isinstance(definition, StrawberryObjectDefinition):
        return
    for field in type_.fields.values():
        field.out_name = _python_name(field)
    input_class = cast(Callable[..., object], definition.origin)
    # A missing field without a default is None, as in Strawberry; graphql-core has rejected missing required fields.
    fields = cast(list[Any], definition.fields)
    absent = {f.python_name: None for f in fields if f.default_value is MISSING and f.default_factory is MISSING}

    def create(value: dict[str, Any]) -> object:
        return input_class(**{**absent, **value})

    type_.out_type = create


def _python_name(item: GraphQLArgument | GraphQLInputField) -> str:
    return cast(str, item.extensions[_DEFINITION].python_name)
