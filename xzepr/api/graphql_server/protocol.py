"""The messages of graphql-transport-ws as clients send them, read strictly.

https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md
"""

import json
from dataclasses import dataclass
from typing import cast

import orjson

from xzepr.api.errors import BadRequest, JsonObject
from xzepr.api.graphql_server.http import lossy_value_error, parse_request
from xzepr.api.graphql_server.operations import GraphQLRequest
from xzepr.core import exact_json
from xzepr.core.errors import InvalidInput, Problem

SUBPROTOCOL = "graphql-transport-ws"
MAX_ID_CHARS = 255
"""Of an operation's id, which every answer repeats."""
_MAX_PAYLOAD_DEPTH = exact_json.MAX_WRITE_DEPTH - 1

BAD_REQUEST = 4400
UNAUTHORIZED = 4401
FORBIDDEN = 4403
SUBPROTOCOL_NOT_ACCEPTABLE = 4406
INIT_TIMEOUT = 4408
SUBSCRIBER_EXISTS = 4409
TOO_MANY_INITS = 4429
INTERNAL_ERROR = 4500
GOING_AWAY = 1001
SERVICE_RESTART = 1012
TOO_BIG = 1009
TRY_AGAIN_LATER = 1013


class CloseSocket(Exception):
    """The socket must be closed, with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        # A close frame holds 123 bytes of reason, and no half characters.
        self.reason = reason.encode()[:123].decode(errors="ignore")


@dataclass(frozen=True, slots=True)
class ConnectionInit:
    """connection_init: the client says who it is."""

    payload: JsonObject | None


@dataclass(frozen=True, slots=True)
class Ping:
    """ping, to be answered with a pong of the same payload."""

    payload: JsonObject | None


@dataclass(frozen=True, slots=True)
class Pong:
    """pong, the answer to a ping of ours, or a sign of life."""


@dataclass(frozen=True, slots=True)
class Subscribe:
    """subscribe: the client asks for an operation under an id of its choice; a Problem where it cannot be one."""

    id: str
    request: GraphQLRequest | Problem


@dataclass(frozen=True, slots=True)
class Complete:
    """complete: the client wants no more of an operation."""

    id: str


ClientMessage = ConnectionInit | Ping | Pong | Subscribe | Complete


def parse_message(text: str) -> ClientMessage:
    """The message in a text frame. Raises CloseSocket with 4400 when it is none of the protocol's."""
    try:
        value, refusal = exact_json.loads(text), None
    except InvalidInput as problem:
        value, refusal = _parse_lossy(text, problem), lossy_value_error(problem)
    except ValueError as error:
        raise CloseSocket(BAD_REQUEST, f"the message is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise CloseSocket(BAD_REQUEST, "a message must be a JSON object")
    message = cast(JsonObject, value)
    if message.get("type") == "subscribe":
        return _parse_subscribe(message, refusal)
    if refusal is not None:  # a ping is answered with its own payload or not at all
        raise CloseSocket(BAD_REQUEST, f"the message cannot be read: {refusal.message}")
    return _parse_other(message)


def _parse_other(message: JsonObject) -> ClientMessage:
    match message.get("type"):
        case "connection_init":
            return ConnectionInit(_parse_payload(message))
        case "ping":
            return Ping(_parse_payload(message))
        case "pong":
            _parse_payload(message)
            return Pong()
        case "complete":
            return Complete(_parse_id(message))
        case str() as kind:
            raise CloseSocket(BAD_REQUEST, f"clients do not send messages of type {kind!r}")
        case _:
            raise CloseSocket(BAD_REQUEST, "a message must have a 'type', a text")


def server_message(message_type: str, id: str | None = None, payload: object = None) -> str:
    """A message of ours as text; without a payload of None."""
    message: JsonObject = {"type": message_type}
    if id is not None:
        message["id"] = id
    if payload is not None:
        message["payload"] = payload
    return orjson.dumps(message).decode()


def _parse_lossy(text: str, problem: InvalidInput) -> object:
    """A message with values that would be altered: enough to tell which operation is refused, never to run it."""
    if not all(violation.field.startswith("/payload/") for violation in problem.violations):
        raise CloseSocket(BAD_REQUEST, f"the message cannot be read: {problem.message}")
    try:
        # The standard library reads what orjson refuses: infinite numbers, lone surrogates, integers of any length.
        return json.loads(text, parse_int=str, parse_float=str)
    except RecursionError:
        raise CloseSocket(BAD_REQUEST, "the message is nested too deeply") from None


def _parse_subscribe(message: JsonObject, refusal: InvalidInput | None) -> Subscribe:
    id = _parse_id(message)
    payload = message.get("payload")
    if not isinstance(payload, dict):
        raise CloseSocket(BAD_REQUEST, "'subscribe' needs a 'payload', an object")
    if refusal is not None:
        return Subscribe(id, refusal)
    try:
        return Subscribe(id, parse_request(cast(object, payload)))
    except BadRequest as problem:
        raise CloseSocket(BAD_REQUEST, f"'subscribe' has a bad payload: {problem.message}") from None


def _parse_id(message: JsonObject) -> str:
    id = message.get("id")
    if not isinstance(id, str) or not id:
        raise CloseSocket(BAD_REQUEST, f"{message['type']!r} needs an 'id', a text that is not empty")
    if len(id) > MAX_ID_CHARS:
        raise CloseSocket(BAD_REQUEST, f"an 'id' has at most {MAX_ID_CHARS} characters")
    return id


def _parse_payload(message: JsonObject) -> JsonObject | None:
    payload = message.get("payload")
    if payload is None:
        return None
    if not isinstance(payload, dict):
        raise CloseSocket(BAD_REQUEST, f"the 'payload' of {message['type']!r} must be an object")
    members = cast(JsonObject, payload)
    if exact_json.depth(members) > _MAX_PAYLOAD_DEPTH:
        raise CloseSocket(BAD_REQUEST, f"the 'payload' of {message['type']!r} is nested too deeply")
    return members
