"""GraphQL over HTTP: negotiates the media type and returns responses or event streams.

Follows https://github.com/graphql/graphql-over-http: errors in the document or its variables have status 200 in
`application/json`, 400 in `application/graphql-response+json`, and are events of an event stream.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from xzepr.api.auth import credential_from_head
from xzepr.api.errors import (
    BadRequest,
    DocumentTooComplex,
    Internal,
    MethodNotAllowed,
    NotAcceptable,
    OperationNotFound,
    PersistedQueryNotSupported,
    RequestRejected,
    error_objects,
    problem_response,
    retry_header,
)
from xzepr.api.graphql_server.errors import mask
from xzepr.api.graphql_server.limits import ConnectionLimiter
from xzepr.api.graphql_server.liveness import ClientLiveness, unsent_bytes_of
from xzepr.api.graphql_server.operations import Call, GraphQLRequest, GraphQLResponse, GraphQLService, Operation
from xzepr.api.graphql_server.request_body import read_body
from xzepr.api.graphql_server.requests import lossy_value_error, parse_get_request, parse_request, ticket_from_query
from xzepr.api.graphql_server.sessions import AuthenticatedCredential, Sessions
from xzepr.api.graphql_server.sse import EventStream
from xzepr.api.request_head import Head, head_of
from xzepr.core import exact_json
from xzepr.core.actor import ANONYMOUS, Actor
from xzepr.core.errors import InvalidInput, InvalidToken, Problem, Unauthenticated

RESPONSE_JSON = "application/graphql-response+json"
JSON = "application/json"
EVENT_STREAM = "text/event-stream"
_UTF8 = "; charset=utf-8"
_Answer = tuple[list[tuple[bytes, bytes]], bytes]  # the headers and the body of a response
# The errors of a well-formed request whose operation is not executed:
_OPERATION_ERRORS = (
    RequestRejected,
    DocumentTooComplex,
    OperationNotFound,
    PersistedQueryNotSupported,
    Unauthenticated,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphQLOverHTTP:
    """The ASGI application for HTTP at `/graphql`: POST, GET for queries, and event streams."""

    service: GraphQLService
    sessions: Sessions
    limiter: ConnectionLimiter
    max_bytes: int
    """The size of a body after decompression. The shell limits the size before."""
    heartbeat_seconds: float = 12
    """Silence after which an event stream sends a comment."""
    stalled_seconds: float = 300
    """How long the client of an event stream may read nothing."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one HTTP request."""
        head = head_of(scope)
        try:
            answer = await self._answer(scope, head, receive)
        except ClientDisconnect:
            return None
        except Problem as problem:
            answer = problem_response(problem, media_type=RESPONSE_JSON + _UTF8)
        except Exception as error:
            mask(error, head.request_id)
            answer = problem_response(Internal(head.request_id), media_type=RESPONSE_JSON + _UTF8)
        if not isinstance(answer, tuple):
            return await answer(scope, receive, send)
        headers, body = answer
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        return None

    async def _answer(self, scope: Scope, head: Head, receive: Receive) -> _Answer | EventStream:
        """Returns the headers and the body of the response, or an event stream."""
        if head.method not in ("GET", "POST"):
            raise MethodNotAllowed(f"{head.method} is not allowed here", allow="GET, POST")
        accepted = accepted_types(b", ".join(head.every(b"accept")) or b"*/*")
        credential = credential_from_head(head)
        if b"ticket" in scope["query_string"] and (ticket := ticket_from_query(scope["query_string"])) is not None:
            has_credential = credential is not None
            return await self._answer_to_ticket(scope, head, ticket, accepted=accepted, has_credential=has_credential)
        actor = ANONYMOUS if credential is None else await self.service.authenticate(credential.secret)
        call = _call(head, actor)
        try:
            if head.method == "POST":
                operation = self.service.prepare(await self._post_request(head, receive), actor)
            else:
                operation = self.service.prepare(parse_get_request(scope["query_string"]), actor)
                if operation.type == "mutation":
                    raise MethodNotAllowed("a mutation needs POST", allow="POST")
            media_type = _media_type_for(accepted, is_subscription=operation.is_subscription)
            if media_type != EVENT_STREAM:
                return _answer_of(await self.service.run(operation, call), media_type)
        except _OPERATION_ERRORS as problem:
            media_type = _media_type_for(accepted, is_subscription=False)
            if _has_own_status(problem, media_type):
                raise
            operation = _rejection(problem, call)
            if media_type != EVENT_STREAM:
                return _answer_of(operation, media_type)
        authenticated = None if credential is None else self.sessions.authenticated(credential, actor)
        return self._event_stream(scope, operation, call, authenticated)

    async def _post_request(self, head: Head, receive: Receive) -> GraphQLRequest:
        body = await read_body(head, receive, self.max_bytes)
        try:
            return parse_request(exact_json.loads(body))
        except ValueError as error:
            raise BadRequest(f"the body is not JSON: {error}") from None
        except InvalidInput as problem:
            raise lossy_value_error(problem) from None

    async def _answer_to_ticket(
        self, scope: Scope, head: Head, ticket: str, *, accepted: tuple[str, ...], has_credential: bool
    ) -> EventStream:
        """Returns the event stream that a ticket opens. Raises InvalidToken for any other request with a ticket."""
        if head.method != "GET":
            raise InvalidToken("a ticket can only open an event stream by GET")
        if has_credential:
            raise InvalidToken("the request has a ticket and another credential: send only one")
        if EVENT_STREAM not in accepted:
            raise InvalidToken(f"a ticket can only open an event stream: send 'Accept: {EVENT_STREAM}'")
        credential = await self.sessions.authenticate_ticket(ticket)
        call = _call(head, credential.actor)
        try:
            operation = self.service.prepare(parse_get_request(scope["query_string"]), credential.actor)
            if not operation.is_subscription:
                raise InvalidToken("a ticket can only open a subscription")
        except _OPERATION_ERRORS as problem:
            operation = _rejection(problem, call)
        return self._event_stream(scope, operation, call, credential)

    def _event_stream(
        self,
        scope: Scope,
        operation: Operation | GraphQLResponse,
        call: Call,
        credential: AuthenticatedCredential | None,
    ) -> EventStream:
        return EventStream(
            service=self.service,
            operation=operation,
            call=call,
            credential=credential,
            sessions=self.sessions,
            limiter=self.limiter,
            heartbeat_seconds=self.heartbeat_seconds,
            liveness=ClientLiveness(self.stalled_seconds, unsent_bytes_of(scope)),
        )


def _answer_of(response: GraphQLResponse, media_type: str) -> _Answer:
    body = response.to_json()
    headers = [_NOT_STORED, (b"content-length", b"%d" % len(body)), _CONTENT_TYPES[media_type]]
    if errors := response.errors:
        waits = (cast(dict[str, object], error["extensions"]).get("retryAfter") for error in errors)
        retry = retry_header(wait for wait in waits if isinstance(wait, float | int))
        headers[:0] = [(name.lower().encode(), value.encode()) for name, value in retry.items()]
    return headers, body


def _has_own_status(problem: Problem, media_type: str) -> bool:
    """Returns whether the response to an operation that is not executed has the status of its problem, and not 200.

    In `application/json`, only a caller without credentials gets it: the challenge needs the status 401.
    """
    return media_type == RESPONSE_JSON or (media_type == JSON and isinstance(problem, Unauthenticated))


def _rejection(problem: Problem, call: Call) -> GraphQLResponse:
    """Returns the response to an operation that is not executed."""
    return GraphQLResponse({"errors": error_objects(problem)}, call.request_id)


_NOT_STORED = (b"cache-control", b"no-store")  # the response is for this caller only, and may contain a token
_CONTENT_TYPES = {media_type: (b"content-type", (media_type + _UTF8).encode()) for media_type in (RESPONSE_JSON, JSON)}


def _call(head: Head, actor: Actor) -> Call:
    last_event_id = head.first(b"last-event-id")
    return Call(actor, head.request_id, last_event_id.decode("latin-1") or None if last_event_id else None)


@lru_cache(maxsize=64)
def accepted_types(accept: bytes) -> tuple[str, ...]:
    """Returns the supported media types that an `Accept` header allows, the preferred one first.

    Among types of equal quality, `application/graphql-response+json` is first. An event stream is never matched by
    `*/*`. Raises NotAcceptable if the header allows none of the supported types.
    """
    qualities: dict[str, float] = {}
    for entry in accept.decode("latin-1").lower().split(","):
        media_range, *parameters = (part.strip() for part in entry.split(";"))
        quality = _quality(parameters)
        for media_type in _TYPES_BY_RANGE.get(media_range, ()):
            if media_type == media_range or media_type not in qualities:
                qualities[media_type] = quality
    acceptable = [media_type for media_type, quality in qualities.items() if quality > 0]
    if not acceptable:
        raise NotAcceptable(f"the response can be {RESPONSE_JSON}, {JSON} or {EVENT_STREAM}")
    return tuple(
        sorted(acceptable, key=lambda media_type: (-qualities[media_type], _SUPPORTED_TYPES.index(media_type)))
    )


_SUPPORTED_TYPES = (RESPONSE_JSON, JSON, EVENT_STREAM)
_TYPES_BY_RANGE = {
    "": (RESPONSE_JSON, JSON),
    "*/*": (RESPONSE_JSON, JSON),
    "application/*": (RESPONSE_JSON, JSON),
    "text/*": (EVENT_STREAM,),
    **{media_type: (media_type,) for media_type in _SUPPORTED_TYPES},
}


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0
    return 1


def _media_type_for(accepted: tuple[str, ...], *, is_subscription: bool) -> str:
    """Returns the type of a response. It is an event stream only for subscriptions, or if nothing else is accepted."""
    if not is_subscription:
        if accepted[0] != EVENT_STREAM:
            return accepted[0]
        return next((media_type for media_type in accepted if media_type != EVENT_STREAM), EVENT_STREAM)
    if EVENT_STREAM not in accepted:
        raise NotAcceptable(f"a subscription needs 'Accept: {EVENT_STREAM}', or a WebSocket (graphql-transport-ws)")
    return EVENT_STREAM
