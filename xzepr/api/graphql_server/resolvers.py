"""Resolvers called directly: what Strawberry finds out about a field at each call is found out once.

For each call Strawberry converts the arguments by their annotations and wraps the resolver in its extensions and in a
coroutine, which costs 70 µs for an input of nine fields. Here graphql-core makes the instances of input types while it
coerces them (its `out_type`), and calls our functions.
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

_DEFINITION = "strawberry-definition"
_READER = "xzepr-read"
RESOLVE_ITEM = "xzepr-shown"
"""In a subscription's metadata: a function that makes what the schema shows of an item of its source, called when an
answer is worked out and not for each subscriber who is sent it."""

ReadField = Callable[[Any], object]
"""Takes what an object was resolved to and gives one field of it."""


def install(schema: GraphQLSchema) -> None:
    """Lets graphql-core call the resolvers of a schema that Strawberry built, and make instances of its input types.

    Raises TypeError for a field that needs more of Strawberry than ours do: an extension, or a method's `self`.
    """
    for type_ in schema.type_map.values():
        if isinstance(type_, GraphQLInputObjectType):
            _make_instances(type_)
        elif isinstance(type_, GraphQLObjectType):
            for field, definition in _strawberry_fields(type_):
                _resolve_directly(field, definition)


def reader_of(field: GraphQLField) -> ReadField | None:
    """How to read a field that needs neither arguments nor `info` nor waiting; None for any other."""
    return cast("ReadField | None", field.extensions.get(_READER))


def _strawberry_fields(type_: GraphQLObjectType) -> Iterator[tuple[GraphQLField, StrawberryField]]:
    for field in type_.fields.values():
        definition = field.extensions.get(_DEFINITION)
        if isinstance(definition, StrawberryField):
            yield field, definition


def _resolve_directly(field: GraphQLField, definition: StrawberryField) -> None:
    resolver = cast(Any, definition).base_resolver
    if definition.extensions or (resolver is not None and resolver.self_parameter is not None):
        raise TypeError(f"{definition.python_name} cannot be called directly: write its resolver as a static method")
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
        if (shown := definition.metadata.get(RESOLVE_ITEM)) is not None:
            field.resolve = _item_resolver(shown)
    else:
        field.resolve = call


def _item_resolver(shown: Callable[[object], object]) -> Callable[..., object]:
    def resolve(item: object, _info: object, **_given: object) -> object:
        return shown(item)

    return resolve


def _resolve_by_reading(field: GraphQLField, read: ReadField) -> None:
    def resolve(source: object, _info: object) -> object:
        return read(source)

    field.resolve = resolve
    field.extensions[_READER] = read


def _calling_resolver(
    function: Callable[..., object], field: StrawberryField, parent: str | None, info: str | None
) -> Callable[..., object]:
    def resolve(source: object, raw_info: Any, **given: object) -> object:
        if parent is not None:
            given[parent] = source
        if info is not None:
            given[info] = strawberry.Info(_raw_info=raw_info, _field=field)
        return function(**given)

    return resolve


def _make_instances(type_: GraphQLInputObjectType) -> None:
    definition = type_.extensions.get(_DEFINITION)
    if not isinstance(definition, StrawberryObjectDefinition):
        return
    for field in type_.fields.values():
        field.out_name = _python_name(field)
    made = cast(Callable[..., object], definition.origin)
    # What is absent without a default is null, as Strawberry has it: graphql-core refuses what must be given.
    fields = cast(list[Any], definition.fields)
    absent = {f.python_name: None for f in fields if f.default_value is MISSING and f.default_factory is MISSING}

    def instance(value: dict[str, Any]) -> object:
        return made(**{**absent, **value})

    type_.out_type = instance


def _python_name(item: GraphQLArgument | GraphQLInputField) -> str:
    return cast(str, item.extensions[_DEFINITION].python_name)
