"""How a Problem is told to a client: its HTTP status, its headers, and the one shape of JSON that all answers have."""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from typing import ClassVar

import orjson
from starlette.responses import Response

from xzepr.core.errors import CursorExpired, InvalidInput, Problem

JsonObject = dict[str, object]


class BadRequest(Problem):
    """The request is not what the interface reads: not JSON, not an object, a parameter of the wrong type."""

    code = "BAD_REQUEST"


class MethodNotAllowed(Problem):
    """The address does not answer to that method; `allow` names those it answers to."""

    code = "METHOD_NOT_ALLOWED"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class NotAcceptable(Problem):
    """The client accepts none of the types that the answer could have."""

    code = "NOT_ACCEPTABLE"


class UnsupportedMediaType(Problem):
    """The body is of a type that the interface does not read."""

    code = "UNSUPPORTED_MEDIA_TYPE"


class RequestTooSlow(Problem):
    """The request did not arrive whole in time."""

    code = "REQUEST_TIMEOUT"


class HostNotAllowed(Problem):
    """The request names a host that this hub does not answer for."""

    code = "HOST_NOT_ALLOWED"

    def __init__(self) -> None:
        super().__init__("this hub does not answer for that host name: add it to server.allowed_hosts")


class OriginNotAllowed(Problem):
    """A page of another site wants to open a WebSocket."""

    code = "ORIGIN_NOT_ALLOWED"

    def __init__(self) -> None:
        super().__init__("pages of that origin may not connect: add it to security.cors.allowed_origins")


class Refused(Problem):
    """A GraphQL request refused before anything ran, with errors that have messages and places of their own."""

    def __init__(self, errors: Sequence[JsonObject]) -> None:
        super().__init__(str(errors[0]["message"]))
        self.errors = list(errors)


class DocumentNotParsed(Refused):
    """The GraphQL document has a syntax error."""

    code = "GRAPHQL_PARSE_FAILED"


class DocumentNotValid(Refused):
    """The GraphQL document does not fit the schema."""

    code = "GRAPHQL_VALIDATION_FAILED"


class VariablesNotValid(Refused):
    """The variables do not fit their types."""

    code = InvalidInput.code


class DocumentTooComplex(Problem):
    """The GraphQL document is larger or deeper than the limits, which the message names."""

    code = "DOCUMENT_TOO_COMPLEX"


class OperationNotFound(Problem):
    """It is not clear which operation of the document is meant."""

    code = "OPERATION_RESOLUTION_FAILURE"


class TooManyOperations(Problem):
    """One connection runs as many operations as it may."""

    code = "TOO_MANY_OPERATIONS"

    def __init__(self, limit: int) -> None:
        super().__init__(f"at most {limit} operations run on one connection: end one, or open another connection")


class TooManySubscriptions(Problem):
    """One user has as many subscriptions in this process as they may."""

    code = "TOO_MANY_SUBSCRIPTIONS"

    def __init__(self, limit: int) -> None:
        super().__init__(f"you may have {limit} subscriptions on one server: end one", retry_after=10)


class TooManyConnections(Problem):
    """One user has as many WebSockets and event streams in this process as they may."""

    code = "TOO_MANY_CONNECTIONS"

    def __init__(self, limit: int) -> None:
        super().__init__(f"you may have {limit} open connections to one server: close one", retry_after=10)


class SubscriptionsFull(Problem):
    """This process has as many subscriptions as it takes."""

    code = "SUBSCRIPTIONS_FULL"

    def __init__(self, limit: int) -> None:
        super().__init__(f"this server has the {limit} subscriptions that it takes", retry_after=10)


class ConnectionsFull(Problem):
    """This process has as many WebSockets and event streams as it takes."""

    code = "CONNECTIONS_FULL"

    def __init__(self, limit: int) -> None:
        super().__init__(f"this server has the {limit} open connections that it takes", retry_after=10)


class Draining(Problem):
    """This process is about to stop and begins nothing any more; nothing was done of what was asked."""

    code = "DRAINING"

    def __init__(self) -> None:
        super().__init__("this server stops: nothing was done; connect again, to another one", retry_after=1)


class Internal(Problem):
    """Our own fault, masked: the log has the cause under the same request id."""

    code: ClassVar[str] = "INTERNAL"

    def __init__(self, request_id: str) -> None:
        super().__init__("internal error")
        self.request_id = request_id


STATUS: Mapping[str, int] = {
    "BAD_REQUEST": 400,
    "CONFLICT": 409,
    "CONNECTIONS_FULL": 503,
    "CURSOR_EXPIRED": 410,
    "DOCUMENT_TOO_COMPLEX": 400,
    "DRAINING": 503,
    "FORBIDDEN": 403,
    "GRAPHQL_PARSE_FAILED": 400,
    "GRAPHQL_VALIDATION_FAILED": 400,
    "HOST_NOT_ALLOWED": 421,
    "INTERNAL": 500,
    "INVALID_CREDENTIALS": 401,
    "INVALID_INPUT": 400,
    "INVALID_TOKEN": 401,
    "METHOD_NOT_ALLOWED": 405,
    "NOT_ACCEPTABLE": 406,
    "NOT_FOUND": 404,
    "OPERATION_RESOLUTION_FAILURE": 400,
    "ORIGIN_NOT_ALLOWED": 403,
    "OVERLOADED": 503,
    "RATE_LIMITED": 429,
    "REQUEST_TIMEOUT": 408,
    "STORAGE_FULL": 507,
    "STREAM_DIVERGED": 409,
    "SUBSCRIPTIONS_FULL": 503,
    "TIMEOUT": 504,
    "TOKEN_EXPIRED": 401,
    "TOO_LARGE": 413,
    "TOO_MANY_CONNECTIONS": 429,
    "TOO_MANY_OPERATIONS": 429,
    "TOO_MANY_SUBSCRIPTIONS": 429,
    "UNAUTHENTICATED": 401,
    "UNAVAILABLE": 503,
    "UNSUPPORTED_MEDIA_TYPE": 415,
}
"""The HTTP status of every code, for answers that consist of the problem alone."""

_ASKS_FOR_TOKEN = frozenset({"UNAUTHENTICATED", "INVALID_TOKEN", "TOKEN_EXPIRED"})


def described(problem: Problem) -> list[JsonObject]:
    """The problem as GraphQL errors : one, or one for each violation of an input."""
    if isinstance(problem, Refused):
        return problem.errors
    if isinstance(problem, InvalidInput):
        return [_error(v.message, problem.code, field=v.field) for v in problem.violations]
    if isinstance(problem, Internal):
        return [_error(problem.message, problem.code, request_id=problem.request_id)]
    if isinstance(problem, CursorExpired):
        return [_error(problem.message, problem.code, oldest_cursor=problem.oldest)]
    return [_error(problem.message, problem.code, field=problem.field, retry_after=problem.retry_after)]


def _error(
    message: str,
    code: str,
    *,
    field: str | None = None,
    retry_after: float | None = None,
    request_id: str | None = None,
    oldest_cursor: str | None = None,
) -> JsonObject:
    extensions: JsonObject = {"code": code}
    given = {"field": field, "retryAfter": retry_after, "requestId": request_id, "oldestCursor": oldest_cursor}
    for name, value in given.items():
        if value is not None:
            extensions[name] = value
    return {"message": message, "extensions": extensions}


def status_of(problem: Problem) -> int:
    """The HTTP status of an answer that consists of this problem alone."""
    return STATUS.get(problem.code, 500)


def headers_of(problem: Problem) -> dict[str, str]:
    """The headers that go with the problem: which methods are allowed, how to sign in, when to come again."""
    headers = retry_header([problem.retry_after])
    if isinstance(problem, MethodNotAllowed):
        headers["Allow"] = problem.allow
    if problem.code in _ASKS_FOR_TOKEN:
        headers["WWW-Authenticate"] = "Bearer" if problem.code == "UNAUTHENTICATED" else 'Bearer error="invalid_token"'
    if problem.code in ("TOO_LARGE", "REQUEST_TIMEOUT"):
        headers["Connection"] = "close"
    return headers


def retry_header(seconds: Iterable[float | None]) -> dict[str, str]:
    """`Retry-After` with the longest of the waits in whole seconds; nothing when there is none."""
    waits = [wait for wait in seconds if wait is not None]
    return {"Retry-After": str(max(1, ceil(max(waits))))} if waits else {}


def problem_response(problem: Problem, *, media_type: str = "application/json") -> Response:
    """The whole answer to a request that was refused."""
    body = orjson.dumps({"errors": described(problem)})
    return Response(body, status_of(problem), headers_of(problem), media_type=media_type)
