"""Builds GraphQL errors for clients, with locations and codes; internal errors are logged and masked."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import structlog
from graphql import GraphQLError

from xzepr.api.errors import (
    DocumentNotParsed,
    DocumentNotValid,
    Internal,
    JsonObject,
    RequestRejected,
    VariablesNotValid,
    error_objects,
)
from xzepr.core.errors import InvalidInput, Problem, Violation

MAX_ERRORS = 19  # of one document or its variables; one more error says that there are others
FieldName = Callable[[str], str]  # returns the schema's name of a field, such as `startTime` for `start_time`
_log = structlog.stdlib.get_logger(__name__)
_UNEXPLAINED: dict[type[RequestRejected], str] = {
    DocumentNotValid: "the document does not match the schema: sign in to see the errors",
    VariablesNotValid: "the variables do not match their types: sign in to see the errors",
}

# graphql-core's messages about invalid variables and arguments:
_INVALID_VALUE = re.compile(
    r"(?:Variable '\$(?P<variable>\w+)'|Argument '(?P<argument>\w+)') has invalid value(?: at (?P<path>[^:]+))?:"
)
_NAMED_FIELD = re.compile(r"to include (?:required|unknown) field '(\w+)'")
_RECEIVED_VALUE = re.compile(r",? found: \{.*", re.IGNORECASE | re.DOTALL)


def parse_error(error: GraphQLError) -> Problem:
    """Returns the problem of a document with a syntax error."""
    return DocumentNotParsed([_with_location(_error(error.message, DocumentNotParsed.code), error)])


def validation_error(errors: Iterable[GraphQLError]) -> RequestRejected:
    """Returns the problem of a document that does not match the schema."""
    return DocumentNotValid([_with_location(_error(e.message, DocumentNotValid.code), e) for e in errors])


def unexplained(problem: RequestRejected) -> RequestRejected:
    """Returns the problem for a caller without credentials: it names nothing in the schema."""
    return type(problem)([_error(_UNEXPLAINED[type(problem)], problem.code)])


def variable_error(errors: Iterable[GraphQLError]) -> RequestRejected:
    """Returns the problem of variables that do not match their types."""
    return VariablesNotValid([entry for error in errors for entry in _input_error(error)])


def field_errors(errors: Iterable[GraphQLError], request_id: str, field_name: FieldName = str) -> list[JsonObject]:
    """Returns the `errors` of a response. A Problem keeps its message; any other exception is logged and masked."""
    return [entry for error in errors for entry in _field_error(error, request_id, field_name)]


def mask(error: BaseException, request_id: str, path: Sequence[str | int] = ()) -> JsonObject:
    """Logs an internal error and returns the error for the client, which has only the request id."""
    dotted_path = ".".join(str(step) for step in path)
    _log.error("internal error", request_id=request_id, path=dotted_path, exc_info=error)
    return error_objects(Internal(request_id))[0]


def _field_error(error: GraphQLError, request_id: str, field_name: FieldName) -> list[JsonObject]:
    cause = _cause(error)
    if isinstance(cause, Problem):
        return [_with_location(_rename_field(entry, field_name), error) for entry in error_objects(cause)]
    if isinstance(cause, GraphQLError) and "code" in (cause.extensions or {}):
        return [_with_location({"message": cause.message, "extensions": dict(cause.extensions or {})}, error)]
    # graphql-core's error has nodes for an invalid argument, and none for an invalid result of a resolver.
    if isinstance(cause, GraphQLError) and cause.nodes and _INVALID_VALUE.match(cause.message):
        return _input_error(error)
    return [_with_location(mask(cause, request_id, error.path or ()), error)]


def _rename_field(entry: JsonObject, field_name: FieldName) -> JsonObject:
    extensions = cast(JsonObject, entry["extensions"])
    field = extensions.get("field")
    if isinstance(field, str):
        extensions["field"] = field_name(field)
    return entry


def _input_error(error: GraphQLError) -> list[JsonObject]:
    cause = _cause(error)
    if isinstance(cause, Problem):
        return [_with_location(entry, error) for entry in error_objects(cause)]
    # graphql-core quotes the whole value, which may contain a password beside the missing field.
    message = _RECEIVED_VALUE.sub("", error.message)
    entries = error_objects(InvalidInput((Violation(_input_field(message), message),)))
    return [_with_location(entries[0], error)]


def _cause(error: GraphQLError) -> BaseException:
    """Returns the original exception inside those that graphql-core wrapped around it."""
    cause: BaseException = error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    return cause


def _input_field(message: str) -> str:
    """Returns `tags/1` for "Variable '$input' has invalid value at .tags[1]: …"; `input` if the message has no path."""
    location = _INVALID_VALUE.match(message)
    if location is None:
        return ""
    path = re.findall(r"[^.\[\]]+", location["path"] or "") + _NAMED_FIELD.findall(message)
    return "/".join(path) or location["variable"] or location["argument"]


def _error(message: str, code: str) -> JsonObject:
    return {"message": message, "extensions": {"code": code}}


def _with_location(entry: JsonObject, error: GraphQLError) -> JsonObject:
    located: JsonObject = {"message": entry["message"]}
    if error.locations:
        located["locations"] = [{"line": at.line, "column": at.column} for at in error.locations]
    if error.path:
        located["path"] = error.path
    located["extensions"] = entry["extensions"]
    return located
