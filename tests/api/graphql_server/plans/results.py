"""Data and errors of executions in a form that can be compared."""

from collections.abc import Sequence
from typing import Any, cast

import graphql.execution
import orjson
from graphql import GraphQLError

from xzepr.api.graphql_server.plans.rendered import JSON_OPTIONS

# Untyped, because graphql-core's executors are generic over a parameter that its own functions leave open.
core: Any = graphql.execution

# The message, path, locations and the type of the original exception of an error.
Described = tuple[str, tuple[str | int, ...], tuple[tuple[int, int], ...], str]


def described(errors: Sequence[GraphQLError] | None) -> list[Described]:
    """Returns what clients and the log get of each error."""
    return [
        (
            error.message,
            tuple(error.path or ()),
            tuple((at.line, at.column) for at in error.locations or ()),
            type(error.original_error).__name__,
        )
        for error in errors or ()
    ]


def comparable(data: Any) -> object:
    """Returns the data as JSON, with the order of its keys. Values that JSON cannot hold become text."""
    try:
        return orjson.dumps(data, option=JSON_OPTIONS)
    except TypeError:
        return repr(_unfolded(data))


def _unfolded(value: Any) -> object:
    match value:
        case dict():
            return [(name, _unfolded(inner)) for name, inner in cast(dict[str, object], value).items()]
        case list() | tuple():
            return [_unfolded(inner) for inner in cast(list[object], value)]
        case orjson.Fragment():
            return _unfolded(orjson.loads(orjson.dumps(value)))
        case _:
            pass
    try:
        return orjson.dumps(value, option=JSON_OPTIONS)
    except TypeError:
        return repr(value)
