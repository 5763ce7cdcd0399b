"""GraphQL over HTTP: bytes to document to schema to bytes, and the right status for whatever is not a GraphQL request.

Follows https://github.com/graphql/graphql-over-http, except that a document or variables that cannot be used answer 400
in both media types: a refused request must not look like a success to proxies, dashboards and `curl -f`.
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


@dataclass(frozen=True, slots=True)
class GraphQLOverHTTP:
    """The ASGI application at `/graphql` for HTTP: POST, GET for queries, event streams for those who accept them."""

    service: GraphQLService
    sessions: Sessions
    limiter: ConnectionLimiter
    heartbeat_seconds: float = 12
    stalled_seconds: float = 300

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
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
            raise MethodNotAllowed(f"{request.method} is not answered here", allow="GET, POST")
        accepted = accepted_types(", ".join(request.headers.getlist("accept")) or "*/*")
        credential = credential_from_headers(request.headers)
        if (ticket := ticket_from_query(request.scope["query_string"])) is not None:
            return await self._respond_to_ticket(
                request, request_id, ticket, alone=credential is None, accepted=accepted
            )
        actor = await actor_of(credential, self.service.authenticate)
        asked = (
            parse_get_request(request.scope["query_string"])
            if request.method == "GET"
            else await _parse_post_request(request)
        )
        operation = self.service.prepare(asked, actor)
        if request.method == "GET" and operation.type == "mutation":
            raise MethodNotAllowed("a mutation needs POST", allow="POST")
        call = Call(actor, request_id, request.headers.get("last-event-id") or None)
        media_type = _media_type_for(operation, accepted)
        if media_type == EVENT_STREAM:
            proof = None if credential is None else self.sessions.authenticated(credential, actor)
            return self._event_stream(request.scope, operation, call, proof)
        return _http_response(await self.service.run(operation, call), media_type)

    async def _respond_to_ticket(
        self, request: Request, request_id: str, ticket: str, *, alone: bool, accepted: tuple[str, ...]
    ) -> ASGIApp:
        """The one thing that a ticket opens: an event stream of a subscription, by GET."""
        if request.method != "GET":
            raise InvalidToken("a ticket opens an event stream by GET, and nothing else")
        if not alone:
            raise InvalidToken("a ticket and another credential were presented: send one")
        if EVENT_STREAM not in accepted:
            raise InvalidToken(
                f"a ticket opens an event stream, for clients that accept {EVENT_STREAM}, and nothing else"
            )
        proof = await self.sessions.authenticate_ticket(ticket)
        operation = self.service.prepare(parse_get_request(request.scope["query_string"]), proof.actor)
        if not operation.is_subscription:
            raise InvalidToken("a ticket opens a subscription and nothing else")
        call = Call(proof.actor, request_id, request.headers.get("last-event-id") or None)
        return self._event_stream(request.scope, operation, call, proof)

    def _event_stream(
        self, scope: Scope, operation: Operation, call: Call, proof: AuthenticatedCredential | None
    ) -> EventStream:
        return EventStream(
            self.service,
            operation,
            call,
            proof,
            sessions=self.sessions,
            limiter=self.limiter,
            heartbeat_seconds=self.heartbeat_seconds,
            liveness=ClientLiveness(self.stalled_seconds, unsent_bytes_of(scope)),
        )


@lru_cache(maxsize=64)
def accepted_types(accept: str) -> tuple[str, ...]:
    """The types that a client with that `Accept` takes of those we write, the most wanted first.

    Of equals `application/graphql-response+json` is first; an event stream is meant only by its name.
    Raises NotAcceptable when nothing is left.
    """
    wanted: dict[str, float] = {}
    for offer in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in offer.split(";"))
        quality = _quality(parameters)
        for one in _TYPES_BY_RANGE.get(media_type, ()):
            exact = media_type == one
            if exact or one not in wanted:
                wanted[one] = quality
    order = sorted(
        (t for t, quality in wanted.items() if quality > 0), key=lambda t: (-wanted[t], _SUPPORTED_TYPES.index(t))
    )
    if not order:
        raise NotAcceptable(f"the answer can be {RESPONSE_JSON}, {JSON} or {EVENT_STREAM}")
    return tuple(order)


_SUPPORTED_TYPES = (RESPONSE_JSON, JSON, EVENT_STREAM)
_TYPES_BY_RANGE = {
    "": (RESPONSE_JSON, JSON),
    "*/*": (RESPONSE_JSON, JSON),
    "application/*": (RESPONSE_JSON, JSON),
    "text/*": (EVENT_STREAM,),
    **{one: (one,) for one in _SUPPORTED_TYPES},
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
        return next((one for one in accepted if one != EVENT_STREAM), EVENT_STREAM)
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
    """The parameter `ticket`, None without one. Raises InvalidToken when there are several."""
    if b"ticket" not in query_string:
        return None
    found = [value for name, value in parse_qsl(query_string.decode(errors="replace")) if name == "ticket"]
    if len(found) > 1:
        raise InvalidToken("several tickets were presented: send one")
    return found[0] if found else None


def parse_get_request(query_string: bytes) -> GraphQLRequest:
    """The request in the parameters of a GET. Raises BadRequest or InvalidInput."""
    try:
        given = parse_qsl(query_string.decode(), keep_blank_values=True, errors="strict", max_num_fields=20)
        values: dict[str, object] = dict(given)
        for name in ("variables", "extensions"):
            if values.get(name):
                values[name] = exact_json.loads(str(values[name]), field=name)
            else:
                values.pop(name, None)
    except ValueError as error:
        raise BadRequest(f"the parameters cannot be read: {error}") from None
    except InvalidInput as problem:
        raise lossy_value_error(problem) from None
    return parse_request({**values, "operationName": values.get("operationName") or None})


def lossy_value_error(problem: InvalidInput) -> InvalidInput:
    """The refusal of values that would be altered, each named as resolvers name it: from below its variable."""
    return InvalidInput([Violation(_input_location(v.field), v.message) for v in problem.violations])


def _input_location(place: str) -> str:
    """`payload/a/1` of `/variables/input/payload/a/1`; the variable's name of `/variables/first`."""
    variable, _, below = place.removeprefix("/payload").removeprefix("/").removeprefix("variables/").partition("/")
    return below or variable


def parse_request(value: object) -> GraphQLRequest:
    """The request in a JSON value. Raises BadRequest, naming the member that is wrong."""
    if isinstance(value, list):
        raise BadRequest("send one request at a time: batches are not supported")
    if not isinstance(value, dict):
        raise BadRequest("the request must be a JSON object with the member 'query'")
    members = cast(dict[str, object], value)
    query, name = members.get("query"), members.get("operationName")
    variables, extensions = members.get("variables"), members.get("extensions")
    if not isinstance(query, str):
        raise BadRequest("'query' must be the text of a GraphQL document", field="query")
    if name is not None and not isinstance(name, str):
        raise BadRequest("'operationName' must be a text", field="operationName")
    if variables is not None and not isinstance(variables, dict):
        raise BadRequest("'variables' must be an object", field="variables")
    if extensions is not None and not isinstance(extensions, dict):
        raise BadRequest("'extensions' must be an object", field="extensions")
    given = cast("dict[str, object] | None", extensions)
    return GraphQLRequest(query, cast("dict[str, object] | None", variables), name, given or {})


def _http_response(answer: GraphQLResponse, media_type: str) -> Response:
    waits = (cast(dict[str, object], one["extensions"]).get("retryAfter") for one in answer.errors)
    headers = retry_header(wait for wait in waits if isinstance(wait, float | int))
    headers["Cache-Control"] = "no-store"  # an answer may hold a token, and is the caller's own anyway
    return Response(answer.to_json(), headers=headers, media_type=media_type + _UTF8)
