"""GraphQL errors as clients see them: with place and code; what is our own fault is logged and masked."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import structlog
from graphql import GraphQLError

from xzepr.api.errors import DocumentNotParsed, DocumentNotValid, Internal, JsonObject, VariablesNotValid, error_objects
from xzepr.core.errors import InvalidInput, Problem, Violation

MAX_ERRORS = 50  # of one document or its variables
FieldName = Callable[[str], str]  # returns the schema's name of a field: `eventReceiverId` for `receiver_id`
_log = structlog.stdlib.get_logger(__name__)

_INVALID_VALUE = re.compile(
    r"(?:Variable '\$(?P<variable>\w+)'|Argument '(?P<argument>\w+)') has invalid value(?: at (?P<path>[^:]+))?:"
)

_NAMED_FIELD = re.compile(r"to include (?:required|unknown) field '(\w+)'")
_RECEIVED_VALUE = re.compile(r",? found: \{.*", re.IGNORECASE | re.DOTALL)


def parse_error(error: GraphQLError) -> Problem:
    """The refusal of a document with a syntax error."""
    return DocumentNotParsed([_with_location(_error(error.message, DocumentNotParsed.code), error)])


def validation_error(errors: Iterable[GraphQLError]) -> Problem:
    """The refusal of a document that does not fit the schema."""
    return DocumentNotValid([_with_location(_error(e.message, DocumentNotValid.code), e) for e in errors])


def variable_error(errors: Iterable[GraphQLError]) -> Problem:
    """The refusal of variables that do not fit their types."""
    return VariablesNotValid([told for error in errors for told in _input_error(error)])


def field_errors(errors: Iterable[GraphQLError], request_id: str, field_name: FieldName = str) -> list[JsonObject]:
    """The errors of an operation that ran. A Problem is told; any other exception is logged and masked."""
    return [told for error in errors for told in _field_error(error, request_id, field_name)]


def mask(error: BaseException, request_id: str, path: Sequence[str | int] = ()) -> JsonObject:
    """What the client hears of our own fault: the id under which the log has it."""
    place = ".".join(str(step) for step in path)
    _log.error("internal error", request_id=request_id, path=place, exc_info=error)
    return error_objects(Internal(request_id))[0]


def _field_error(error: GraphQLError, request_id: str, field_name: FieldName) -> list[JsonObject]:
    cause = _cause(error)
    if isinstance(cause, Problem):
        return [_with_location(_rename_field(one, field_name), error) for one in error_objects(cause)]
    if isinstance(cause, GraphQLError) and "code" in (cause.extensions or {}):
        return [_with_location({"message": cause.message, "extensions": dict(cause.extensions or {})}, error)]
    # graphql-core blames a part of the document for a bad argument, and none for a bad result of ours.
    if isinstance(cause, GraphQLError) and cause.nodes and _INVALID_VALUE.match(cause.message):
        return _input_error(error)
    return [_with_location(mask(cause, request_id, error.path or ()), error)]


def _rename_field(one: JsonObject, field_name: FieldName) -> JsonObject:
    extensions = cast(JsonObject, one["extensions"])
    field = extensions.get("field")
    if isinstance(field, str):
        extensions["field"] = field_name(field)
    return one


def _input_error(error: GraphQLError) -> list[JsonObject]:
    cause = _cause(error)
    if isinstance(cause, Problem):
        return [_with_location(one, error) for one in error_objects(cause)]
    # What was found may hold a password beside the field that is missing.
    message = _RECEIVED_VALUE.sub("", error.message)
    one = error_objects(InvalidInput((Violation(_input_field(message), message),)))
    return [_with_location(one[0], error)]


def _cause(error: GraphQLError) -> BaseException:
    """The exception at the bottom of those that graphql-core wrapped around it."""
    cause: BaseException = error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    return cause


def _input_field(message: str) -> str:
    """`tags/1` from "Variable '$input' has invalid value at .tags[1]: …"; without a path the variable's name."""
    place = _INVALID_VALUE.match(message)
    if place is None:
        return ""
    path = re.findall(r"[^.\[\]]+", place["path"] or "") + _NAMED_FIELD.findall(message)
    return "/".join(path) or place["variable"] or place["argument"]


def _error(message: str, code: str) -> JsonObject:
    return {"message": message, "extensions": {"code": code}}


def _with_location(one: JsonObject, error: GraphQLError) -> JsonObject:
    placed: JsonObject = {"message": one["message"]}
    if error.locations:
        placed["locations"] = [{"line": at.line, "column": at.column} for at in error.locations]
    if error.path:
        placed["path"] = error.path
    placed["extensions"] = one["extensions"]
    return placed
