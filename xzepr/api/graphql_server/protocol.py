"""The messages and close codes of graphql-transport-ws.

See https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md. Messages that deviate from it close the socket.
"""

import json
from dataclasses import dataclass
from typing import cast

import orjson

from xzepr.api.errors import BadRequest, JsonObject, PersistedQueryNotSupported
from xzepr.api.graphql_server.operations import GraphQLRequest
from xzepr.api.graphql_server.requests import lossy_value_error, parse_request
from xzepr.core import exact_json
from xzepr.core.errors import InvalidInput, Problem

SUBPROTOCOL = "graphql-transport-ws"
MAX_ID_CHARS = 255  # of an operation's id, which every response repeats
_MAX_PAYLOAD_DEPTH = exact_json.MAX_WRITE_DEPTH - 1  # a pong wraps the payload in one more object

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
    """Raised to close the socket with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        # A close frame has space for 123 bytes of UTF-8; a character that is cut off is dropped.
        self.reason = reason.encode()[:123].decode(errors="ignore")


@dataclass(frozen=True, slots=True)
class ConnectionInit:
    """`connection_init`: opens the session; the payload may hold a credential."""

    payload: JsonObject | None


@dataclass(frozen=True, slots=True)
class Ping:
    """`ping`: the hub replies with a `pong` of the same payload."""

    payload: JsonObject | None


@dataclass(frozen=True, slots=True)
class Pong:
    """`pong`: the reply to the hub's ping, or an unsolicited sign of life."""


@dataclass(frozen=True, slots=True)
class Subscribe:
    """`subscribe`: requests an operation under an id that the client chooses.

    `request` is a Problem if it contains values that cannot be kept unchanged.
    """

    id: str
    request: GraphQLRequest | Problem


@dataclass(frozen=True, slots=True)
class Complete:
    """`complete`: ends an operation of the client."""

    id: str


ClientMessage = ConnectionInit | Ping | Pong | Subscribe | Complete


def parse_message(text: str) -> ClientMessage:
    """Returns the message in a text frame. Raises CloseSocket with 4400 if it violates the protocol."""
    try:
        value, lossy_error = exact_json.loads(text), None
    except InvalidInput as problem:
        value, lossy_error = _parse_lossy(text, problem), lossy_value_error(problem)
    except ValueError as error:
        raise CloseSocket(BAD_REQUEST, f"the message is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise CloseSocket(BAD_REQUEST, "a message must be a JSON object")
    message = cast(JsonObject, value)
    if message.get("type") == "subscribe":
        return _parse_subscribe(message, lossy_error)
    if lossy_error is not None:  # a ping's payload, for example, could not be sent back unchanged
        raise CloseSocket(BAD_REQUEST, f"the message cannot be read: {lossy_error.message}")
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
        case str() as message_type:
            raise CloseSocket(BAD_REQUEST, f"clients cannot send messages of type {message_type!r}")
        case _:
            raise CloseSocket(BAD_REQUEST, "'type' of a message must be a string")


def server_message(message_type: str, id: str | None = None, payload: object = None) -> bytes:
    """Returns a server message as JSON, without `id` or `payload` if they are None."""
    message: JsonObject = {"type": message_type}
    if id is not None:
        message["id"] = id
    if payload is not None:
        message["payload"] = payload
    return orjson.dumps(message)


def _parse_lossy(text: str, problem: InvalidInput) -> object:
    """Returns a message with values that cannot be kept unchanged. Callers may use only its type and id."""
    if not all(violation.field.startswith("/payload/") for violation in problem.violations):
        raise CloseSocket(BAD_REQUEST, f"the message cannot be read: {problem.message}")
    try:
        # The standard library reads what orjson rejects: infinite numbers, lone surrogates, integers of any length.
        return json.loads(text, parse_int=str, parse_float=str)
    except RecursionError:
        raise CloseSocket(BAD_REQUEST, "the message is nested too deeply") from None


def _parse_subscribe(message: JsonObject, lossy_error: InvalidInput | None) -> Subscribe:
    id = _parse_id(message)
    payload = message.get("payload")
    if not isinstance(payload, dict):
        raise CloseSocket(BAD_REQUEST, "the 'payload' of 'subscribe' must be an object")
    if lossy_error is not None:
        return Subscribe(id, lossy_error)
    try:
        return Subscribe(id, parse_request(cast(object, payload)))
    except PersistedQueryNotSupported as problem:
        return Subscribe(id, problem)
    except BadRequest as problem:
        raise CloseSocket(BAD_REQUEST, f"the 'payload' of 'subscribe' is invalid: {problem.message}") from None


def _parse_id(message: JsonObject) -> str:
    id = message.get("id")
    if not isinstance(id, str) or not id:
        raise CloseSocket(BAD_REQUEST, f"the 'id' of {message['type']!r} must be a non-empty string")
    if len(id) > MAX_ID_CHARS:
        raise CloseSocket(BAD_REQUEST, f"an 'id' may have at most {MAX_ID_CHARS} characters")
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
