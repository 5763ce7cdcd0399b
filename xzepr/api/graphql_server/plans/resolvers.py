"""Lets resolver functions be called directly, without Strawberry's work for each call.

For each call, Strawberry converts the arguments by their annotations and wraps the resolver in its extensions and in a
coroutine. That costs 70 µs for an input of nine fields. Here the instances of input types are created while arguments
are coerced (by `out_type`), and resolver functions are called by the plan of an operation or by graphql-core.
"""

from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass
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
DEFINITION = "strawberry-definition"
_READER = "xzepr-reader"
_CALL = "xzepr-call"
_INPUT = "xzepr-input"

# Key in a subscription's metadata for a function that converts a source event to its GraphQL object. It is called when
# a response is rendered, not for each subscriber that gets the response.
RESOLVE_ITEM = "xzepr-resolve-item"

# Metadata of a field whose resolver gets the objects of a whole level as its parent, and returns a value for each, in
# order. An exception in place of a value is the error of that object's field.
BATCH: dict[object, object] = {"xzepr-batch": True}

# Key in the metadata of a field that is read, for a function that takes the context of an operation. It raises an error
# if the caller may not read the field.
GUARD = "xzepr-guard"

# Metadata of a field whose value is its parent.
ITSELF: dict[object, object] = {"xzepr-itself": True}

Guard = Callable[[Any], None]  # takes the context of an operation and raises an error if its caller may not read
ReadField = Callable[[Any], object]  # takes the Python value of a GraphQL object and returns the value of one field


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads a field that needs no arguments, no `info` and no waiting."""

    read: ReadField
    attribute: str | None = None
    """The attribute that `read` returns; None if it is another function."""
    guard: Guard | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A resolver function, and how to call it."""

    function: Callable[..., object]
    parent: str | None
    """The parameter for the parent object; for a batch, for the list of parents."""
    info: str | None
    """The parameter for `info`, of which a resolver may use only the context."""
    is_async: bool
    is_batch: bool

    def __call__(self, source: object, info: object, arguments: dict[str, Any]) -> object:
        """Calls the function. `source` is the parent, or the list of parents of a batch."""
        if self.parent is not None:
            arguments[self.parent] = source
        if self.info is not None:
            arguments[self.info] = info
        return self.function(**arguments)


def itself(value: object) -> object:
    """Returns the value: the reader of fields with ITSELF."""
    return value


@dataclass(frozen=True, slots=True)
class InputClass:
    """The Python class of an input type."""

    origin: Callable[..., object]
    absent: dict[str, None]
    """The values of optional fields without a default, by their Python names."""

    def create(self, values: dict[str, Any]) -> object:
        """Returns an instance. All fields without a default have a value."""
        return self.origin(**values)


def input_class_of(type_: GraphQLInputObjectType) -> InputClass | None:
    """Returns the class of an input type; None if `install` does not know the type."""
    return cast("InputClass | None", type_.extensions.get(_INPUT))


def install(schema: GraphQLSchema) -> None:
    """Replaces Strawberry's resolvers and input conversions in a schema that Strawberry built.

    Raises TypeError for a field that needs Strawberry at run time: one with extensions, whose resolver has `self`, or
    with a default that Strawberry would copy for each call. Also raises it for a guarded field that is not read.
    """
    for type_ in schema.type_map.values():
        if isinstance(type_, GraphQLInputObjectType):
            _make_instances(type_)
        elif isinstance(type_, GraphQLObjectType):
            for field, definition in _strawberry_fields(type_):
                _resolve_directly(field, definition)


def reader_of(field: GraphQLField) -> Reader | None:
    """Returns the reader of a field; None if the field needs a call."""
    return cast("Reader | None", field.extensions.get(_READER))


def call_of(field: GraphQLField) -> Call | None:
    """Returns the call that resolves a field; None if it is read, or if `install` does not know the field."""
    return cast("Call | None", field.extensions.get(_CALL))


def _strawberry_fields(type_: GraphQLObjectType) -> Iterator[tuple[GraphQLField, StrawberryField]]:
    for field in type_.fields.values():
        definition = field.extensions.get(DEFINITION)
        if isinstance(definition, StrawberryField):
            yield field, definition


def _resolve_directly(field: GraphQLField, definition: StrawberryField) -> None:
    resolver: Any = cast(Any, definition).base_resolver
    if definition.extensions or (resolver is not None and resolver.self_parameter is not None):
        raise TypeError(f"{definition.python_name} cannot be resolved directly: use a static method without extensions")
    for argument in field.args.values():
        argument.out_name = _checked_name(argument)
    if (reader := _reader(definition, resolver)) is not None:
        _resolve_by_reading(field, reader)
        return
    if GUARD in definition.metadata:
        raise TypeError(f"{definition.python_name} is called: its resolver has to check the permission")
    assert resolver is not None, "a field without a resolver is read"
    parent, info = resolver.parent_parameter or resolver.root_parameter, resolver.info_parameter
    is_batch = BATCH.items() <= definition.metadata.items()
    call = Call(resolver.wrapped_func, parent and parent.name, info and info.name, resolver.is_async, is_batch)
    if definition.is_subscription:
        field.subscribe = _calling_resolver(call, definition)
        if (resolve_item := definition.metadata.get(RESOLVE_ITEM)) is not None:
            field.resolve = _item_resolver(resolve_item)
            field.extensions[_READER] = Reader(resolve_item)
    else:
        field.extensions[_CALL] = call
        field.resolve = _batch_resolver(call, definition) if is_batch else _calling_resolver(call, definition)


def _reader(definition: StrawberryField, resolver: Any) -> Reader | None:
    """Returns the reader of a field; None if its resolver needs arguments, `info`, waiting or a batch."""
    guard = definition.metadata.get(GUARD)
    if ITSELF.items() <= definition.metadata.items():
        return Reader(itself, guard=guard)
    if resolver is None:
        name = definition.python_name
        return Reader(attrgetter(name), name, guard)
    parent = resolver.parent_parameter or resolver.root_parameter
    needs_call = resolver.info_parameter or definition.arguments or resolver.is_async
    if parent is None or needs_call or BATCH.items() <= definition.metadata.items():
        return None
    return Reader(resolver.wrapped_func, guard=guard)


def _item_resolver(resolve_item: Callable[[object], object]) -> Callable[..., object]:
    def resolve(item: object, _info: object, /, **_arguments: object) -> object:
        return resolve_item(item)

    return resolve


def _resolve_by_reading(field: GraphQLField, reader: Reader) -> None:
    read, guard = reader.read, reader.guard

    def resolve(source: object, _info: object) -> object:
        return read(source)

    def resolve_guarded(source: object, info: Any) -> object:
        cast(Guard, guard)(info.context)
        return read(source)

    field.resolve = resolve if guard is None else resolve_guarded
    field.extensions[_READER] = reader


def _calling_resolver(call: Call, field: StrawberryField) -> Callable[..., object]:
    def resolve(source: object, raw_info: Any, /, **arguments: object) -> object:
        return call(source, strawberry.Info(_raw_info=raw_info, _field=field), arguments)

    return resolve


def _batch_resolver(call: Call, field: StrawberryField) -> Callable[..., object]:
    """Returns a resolver for single objects, which collects those of one loop iteration in `info.context.batches`."""

    def resolve(source: object, raw_info: Any, /, **arguments: object) -> object:
        info = strawberry.Info[Any, Any](_raw_info=raw_info, _field=field)
        # The arguments of one field of a document are equal for all objects. Types can resolve it by different calls.
        key = id(raw_info.field_nodes[0]), call.function

        def load(sources: list[object]) -> object:
            return call(sources, info, dict(arguments))

        return info.context.batches.value(key, source, load)

    return resolve


def _make_instances(type_: GraphQLInputObjectType) -> None:
    definition = type_.extensions.get(DEFINITION)
    if not isinstance(definition, StrawberryObjectDefinition):
        return
    for field in type_.fields.values():
        field.out_name = _checked_name(field)
    # A missing field without a default is None, as in Strawberry; graphql-core has rejected missing required fields.
    fields = cast(list[Any], definition.fields)
    absent = {f.python_name: None for f in fields if f.default_value is MISSING and f.default_factory is MISSING}
    input_class = InputClass(cast(Callable[..., object], definition.origin), absent)
    type_.extensions[_INPUT] = input_class
    type_.out_type = lambda value: input_class.create({**absent, **value})


def _checked_name(item: GraphQLArgument | GraphQLInputField) -> str:
    """Returns the Python name. Raises TypeError for a default that a resolver could change for all later calls."""
    name = cast(str, item.extensions[DEFINITION].python_name)
    if isinstance(item.default_value, list | dict):
        raise TypeError(f"{name} cannot have a list or an object as its default: use None")
    return name
