"""Translates a Problem for clients: its HTTP status, its headers, and the JSON that all error responses share."""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from typing import ClassVar

import orjson
from starlette.responses import Response

from xzepr.core.errors import CursorExpired, InvalidInput, Problem

JsonObject = dict[str, object]


class BadRequest(Problem):
    """The request is malformed: not JSON, not an object, or a parameter of the wrong type."""

    code = "BAD_REQUEST"


class MethodNotAllowed(Problem):
    """The URL does not accept that HTTP method; `allow` lists the accepted ones."""

    code = "METHOD_NOT_ALLOWED"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class NotAcceptable(Problem):
    """The client accepts none of the media types that the response could have."""

    code = "NOT_ACCEPTABLE"


class UnsupportedMediaType(Problem):
    """The media type of the body is not supported."""

    code = "UNSUPPORTED_MEDIA_TYPE"


class UnsupportedContentEncoding(UnsupportedMediaType):
    """The body is compressed in a way that the hub does not read."""

    def __init__(self) -> None:
        super().__init__("the body's Content-Encoding is not supported: send it as gzip, or uncompressed")


class RequestTooSlow(Problem):
    """The complete request did not arrive in time."""

    code = "REQUEST_TIMEOUT"


class HostNotAllowed(Problem):
    """The `Host` of the request is not an allowed host."""

    code = "HOST_NOT_ALLOWED"

    def __init__(self) -> None:
        super().__init__("this hub does not accept requests for that host name: add it to server.allowed_hosts")


class OriginNotAllowed(Problem):
    """A page from another origin tried to open a WebSocket."""

    code = "ORIGIN_NOT_ALLOWED"

    def __init__(self) -> None:
        super().__init__("pages from that origin may not connect: add it to security.cors.allowed_origins")


class RequestRejected(Problem):
    """A GraphQL request that was rejected before execution. Each of its `errors` has its own message and location."""

    def __init__(self, errors: Sequence[JsonObject]) -> None:
        super().__init__(str(errors[0]["message"]))
        self.errors = list(errors)


class DocumentNotParsed(RequestRejected):
    """The GraphQL document has a syntax error."""

    code = "GRAPHQL_PARSE_FAILED"


class DocumentNotValid(RequestRejected):
    """The GraphQL document does not match the schema."""

    code = "GRAPHQL_VALIDATION_FAILED"


class VariablesNotValid(RequestRejected):
    """The variables do not match their types."""

    code = InvalidInput.code


class DocumentTooComplex(Problem):
    """The GraphQL document exceeds a limit on its size or depth, which the message names."""

    code = "DOCUMENT_TOO_COMPLEX"


class OperationNotFound(Problem):
    """The document has no operation, or has several and the request names none of them."""

    code = "OPERATION_RESOLUTION_FAILURE"


class PersistedQueryNotSupported(Problem):
    """The request has the hash of a document instead of the document. Clients compare the message, too."""

    code = "PERSISTED_QUERY_NOT_SUPPORTED"

    def __init__(self) -> None:
        super().__init__("PersistedQueryNotSupported")


class TooManyOperations(Problem):
    """The connection already runs the maximum number of operations."""

    code = "TOO_MANY_OPERATIONS"

    def __init__(self, limit: int) -> None:
        super().__init__(f"this connection already runs {limit} operations: end one, or open another connection")


class TooManySubscriptions(Problem):
    """The user has reached the limit of subscriptions in this process."""

    code = "TOO_MANY_SUBSCRIPTIONS"

    def __init__(self, limit: int) -> None:
        super().__init__(f"you already have {limit} subscriptions on this server: end one", retry_after=10)


class TooManyConnections(Problem):
    """The user has reached the limit of WebSockets and event streams in this process."""

    code = "TOO_MANY_CONNECTIONS"

    def __init__(self, limit: int) -> None:
        super().__init__(f"you already have {limit} open connections to this server: close one", retry_after=10)


class SubscriptionsFull(Problem):
    """This process has reached its limit of subscriptions."""

    code = "SUBSCRIPTIONS_FULL"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"this server has reached its limit of {limit} subscriptions: try again, or try another server",
            retry_after=10,
        )


class ConnectionsFull(Problem):
    """This process has reached its limit of WebSockets and event streams."""

    code = "CONNECTIONS_FULL"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"this server has reached its limit of {limit} open connections: try again, or try another server",
            retry_after=10,
        )


class Draining(Problem):
    """This process is shutting down. The request had no effect."""

    code = "DRAINING"

    def __init__(self) -> None:
        super().__init__(
            "this server is shutting down and did nothing: connect again, to another server", retry_after=1
        )


class Internal(Problem):
    """A fault in the hub. The message hides the cause; the log has it under the same request id."""

    code: ClassVar[str] = "INTERNAL"

    def __init__(self, request_id: str) -> None:
        super().__init__("internal error")
        self.request_id = request_id


# The HTTP status of each code, for responses that consist of the problem alone.
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
    "HEAD_TOO_LARGE": 431,
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
    "PERSISTED_QUERY_NOT_SUPPORTED": 400,
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
    "UNKNOWN_TRANSFER_CODING": 501,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "URI_TOO_LONG": 414,
}

# Codes whose response carries WWW-Authenticate.
_CHALLENGE_CODES = frozenset({"UNAUTHENTICATED", "INVALID_TOKEN", "TOKEN_EXPIRED"})


def error_objects(problem: Problem) -> list[JsonObject]:
    """Returns a problem as GraphQL errors: one error, or one for each violation of an input."""
    if isinstance(problem, RequestRejected):
        return problem.errors
    if isinstance(problem, InvalidInput):
        return [_error(violation.message, problem.code, field=violation.field) for violation in problem.violations]
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
    details = {"field": field, "retryAfter": retry_after, "requestId": request_id, "oldestCursor": oldest_cursor}
    for name, value in details.items():
        if value is not None:
            extensions[name] = value
    return {"message": message, "extensions": extensions}


def status_of(problem: Problem) -> int:
    """Returns the HTTP status of a response that consists of this problem alone."""
    return STATUS.get(problem.code, 500)


def headers_of(problem: Problem) -> dict[str, str]:
    """Returns the headers of an error response, such as Allow, WWW-Authenticate and Retry-After."""
    headers = retry_header([problem.retry_after])
    if isinstance(problem, MethodNotAllowed):
        headers["Allow"] = problem.allow
    if isinstance(problem, UnsupportedContentEncoding):
        headers["Accept-Encoding"] = "gzip"
    if problem.code in _CHALLENGE_CODES:
        headers["WWW-Authenticate"] = "Bearer" if problem.code == "UNAUTHENTICATED" else 'Bearer error="invalid_token"'
    if problem.code in ("TOO_LARGE", "REQUEST_TIMEOUT"):
        headers["Connection"] = "close"
    return headers


def retry_header(seconds: Iterable[float | None]) -> dict[str, str]:
    """Returns `Retry-After` with the longest wait, rounded up to whole seconds; empty if there is none."""
    waits = [wait for wait in seconds if wait is not None]
    return {"Retry-After": str(max(1, ceil(max(waits))))} if waits else {}


def problem_response(problem: Problem, *, media_type: str = "application/json") -> Response:
    """Returns the complete response to a rejected request."""
    body = orjson.dumps({"errors": error_objects(problem)})
    return Response(body, status_of(problem), headers_of(problem), media_type=media_type)
