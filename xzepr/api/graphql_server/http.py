"""GraphQL over HTTP: reads requests, negotiates the media type and returns responses or event streams.

Follows https://github.com/graphql/graphql-over-http with one exception: documents and variables that are rejected get
status 400 in both media types. A rejected request must not look like a success to proxies, dashboards and `curl -f`.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import cast
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from xzepr.api.auth import actor_of, credential_from_headers
from xzepr.api.errors import (
    BadRequest,
    Internal,
    MethodNotAllowed,
    NotAcceptable,
    UnsupportedMediaType,
    problem_response,
    retry_header,
)
from xzepr.api.graphql_server.errors import mask
from xzepr.api.graphql_server.limits import ConnectionLimiter
from xzepr.api.graphql_server.liveness import ClientLiveness, unsent_bytes_of
from xzepr.api.graphql_server.operations import Call, GraphQLRequest, GraphQLResponse, GraphQLService, Operation
from xzepr.api.graphql_server.sessions import AuthenticatedCredential, Sessions
from xzepr.api.graphql_server.sse import EventStream
from xzepr.api.middleware import request_id_of
from xzepr.core import exact_json
from xzepr.core.errors import InvalidInput, InvalidToken, Problem, Violation

RESPONSE_JSON = "application/graphql-response+json"
JSON = "application/json"
EVENT_STREAM = "text/event-stream"
_UTF8 = "; charset=utf-8"
_UTF8_NAMES = frozenset({"utf-8", "utf8"})


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphQLOverHTTP:
    """The ASGI application for HTTP at `/graphql`: POST, GET for queries, and event streams."""

    service: GraphQLService
    sessions: Sessions
    limiter: ConnectionLimiter
    heartbeat_seconds: float = 12
    """Silence after which an event stream sends a comment."""
    stalled_seconds: float = 300
    """How long the client of an event stream may read nothing."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one HTTP request."""
        request = Request(scope, receive)
        request_id = request_id_of(scope)
        try:
            response = await self._respond(request, request_id)
        except ClientDisconnect:
            return
        except Problem as problem:
            response = problem_response(problem, media_type=RESPONSE_JSON + _UTF8)
        except Exception as error:
            mask(error, request_id)
            response = problem_response(Internal(request_id), media_type=RESPONSE_JSON + _UTF8)
        await response(scope, receive, send)

    async def _respond(self, request: Request, request_id: str) -> ASGIApp:
        if request.method not in ("GET", "POST"):
            raise MethodNotAllowed(f"{request.method} is not allowed here", allow="GET, POST")
        query_string = request.scope["query_string"]
        accepted = accepted_types(", ".join(request.headers.getlist("accept")) or "*/*")
        credential = credential_from_headers(request.headers)
        if (ticket := ticket_from_query(query_string)) is not None:
            has_credential = credential is not None
            return await self._respond_to_ticket(
                request, request_id, ticket, accepted=accepted, has_credential=has_credential
            )
        actor = await actor_of(credential, self.service.authenticate)
        parsed = parse_get_request(query_string) if request.method == "GET" else await _parse_post_request(request)
        operation = self.service.prepare(parsed, actor)
        if request.method == "GET" and operation.type == "mutation":
            raise MethodNotAllowed("a mutation needs POST", allow="POST")
        call = Call(actor, request_id, request.headers.get("last-event-id") or None)
        media_type = _media_type_for(operation, accepted)
        if media_type == EVENT_STREAM:
            authenticated = None if credential is None else self.sessions.authenticated(credential, actor)
            return self._event_stream(request.scope, operation, call, authenticated)
        return _http_response(await self.service.run(operation, call), media_type)

    async def _respond_to_ticket(
        self, request: Request, request_id: str, ticket: str, *, accepted: tuple[str, ...], has_credential: bool
    ) -> ASGIApp:
        """Returns the event stream that a ticket opens. Raises InvalidToken for any other request with a ticket."""
        if request.method != "GET":
            raise InvalidToken("a ticket can only open an event stream by GET")
        if has_credential:
            raise InvalidToken("the request has a ticket and another credential: send only one")
        if EVENT_STREAM not in accepted:
            raise InvalidToken(f"a ticket can only open an event stream: send 'Accept: {EVENT_STREAM}'")
        credential = await self.sessions.authenticate_ticket(ticket)
        operation = self.service.prepare(parse_get_request(request.scope["query_string"]), credential.actor)
        if not operation.is_subscription:
            raise InvalidToken("a ticket can only open a subscription")
        call = Call(credential.actor, request_id, request.headers.get("last-event-id") or None)
        return self._event_stream(request.scope, operation, call, credential)

    def _event_stream(
        self, scope: Scope, operation: Operation, call: Call, credential: AuthenticatedCredential | None
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


@lru_cache(maxsize=64)
def accepted_types(accept: str) -> tuple[str, ...]:
    """Returns the supported media types that an `Accept` header allows, the preferred one first.

    Among types of equal quality, `application/graphql-response+json` is first. An event stream is never matched by
    `*/*`. Raises NotAcceptable if the header allows none of the supported types.
    """
    qualities: dict[str, float] = {}
    for entry in accept.lower().split(","):
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


def _media_type_for(operation: Operation, accepted: tuple[str, ...]) -> str:
    if not operation.is_subscription:
        return next((media_type for media_type in accepted if media_type != EVENT_STREAM), EVENT_STREAM)
    if EVENT_STREAM not in accepted:
        raise NotAcceptable(f"a subscription needs 'Accept: {EVENT_STREAM}', or a WebSocket (graphql-transport-ws)")
    return EVENT_STREAM


async def _parse_post_request(request: Request) -> GraphQLRequest:
    media_type, *parameters = (part.strip() for part in request.headers.get("content-type", "").lower().split(";"))
    charsets = [p.partition("=")[2].strip(' "') for p in parameters if p.startswith("charset")]
    if media_type != JSON or not _UTF8_NAMES.issuperset(charsets):
        raise UnsupportedMediaType(f"send the request as 'Content-Type: {JSON}' in UTF-8")
    body = await request.body()
    try:
        return parse_request(exact_json.loads(body))
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    except InvalidInput as problem:
        raise lossy_value_error(problem) from None


def ticket_from_query(query_string: bytes) -> str | None:
    """Returns the parameter `ticket`; None if it is missing. Raises InvalidToken if it is repeated."""
    if b"ticket" not in query_string:
        return None
    tickets = [value for name, value in parse_qsl(query_string.decode(errors="replace")) if name == "ticket"]
    if len(tickets) > 1:
        raise InvalidToken("the URL has several tickets: send only one")
    return tickets[0] if tickets else None


def parse_get_request(query_string: bytes) -> GraphQLRequest:
    """Returns the GraphQL request in the query string of a GET. Raises BadRequest or InvalidInput."""
    try:
        parameters = parse_qsl(query_string.decode(), keep_blank_values=True, errors="strict", max_num_fields=20)
        members: dict[str, object] = dict(parameters)
        for name in ("variables", "extensions"):
            if members.get(name):
                members[name] = exact_json.loads(str(members[name]), field=name)
            else:
                members.pop(name, None)
    except ValueError as error:
        raise BadRequest(f"the query string cannot be read: {error}") from None
    except InvalidInput as problem:
        raise lossy_value_error(problem) from None
    return parse_request({**members, "operationName": members.get("operationName") or None})


def lossy_value_error(problem: InvalidInput) -> InvalidInput:
    """Returns the error for values that cannot be kept unchanged, with their locations as resolvers report them."""
    return InvalidInput([Violation(_input_location(v.field), v.message) for v in problem.violations])


def _input_location(pointer: str) -> str:
    """Returns `data/a/1` for `/variables/input/data/a/1`, and `first` for `/variables/first`."""
    variable, _, below = pointer.removeprefix("/payload").removeprefix("/").removeprefix("variables/").partition("/")
    return below or variable


def parse_request(value: object) -> GraphQLRequest:
    """Returns the GraphQL request in a JSON value. Raises BadRequest, which names the invalid member."""
    if isinstance(value, list):
        raise BadRequest("send one request at a time: batches are not supported")
    if not isinstance(value, dict):
        raise BadRequest("the request must be a JSON object with the member 'query'")
    members = cast(dict[str, object], value)
    query, name = members.get("query"), members.get("operationName")
    variables, extensions = members.get("variables"), members.get("extensions")
    if not isinstance(query, str):
        raise BadRequest("'query' must be a string with a GraphQL document", field="query")
    if name is not None and not isinstance(name, str):
        raise BadRequest("'operationName' must be a string", field="operationName")
    if variables is not None and not isinstance(variables, dict):
        raise BadRequest("'variables' must be an object", field="variables")
    if extensions is not None and not isinstance(extensions, dict):
        raise BadRequest("'extensions' must be an object", field="extensions")
    return GraphQLRequest(
        query,
        cast("dict[str, object] | None", variables),
        name,
        cast("dict[str, object] | None", extensions) or {},
    )


def _http_response(response: GraphQLResponse, media_type: str) -> Response:
    waits = (cast(dict[str, object], error["extensions"]).get("retryAfter") for error in response.errors)
    headers = retry_header(wait for wait in waits if isinstance(wait, float | int))
    headers["Cache-Control"] = "no-store"  # the response is for this caller only, and may contain a token
    return Response(response.to_json(), headers=headers, media_type=media_type + _UTF8)
