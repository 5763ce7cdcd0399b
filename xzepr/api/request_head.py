"""The head of a request: its headers, read once, and its id."""

import re
from collections.abc import Callable

from starlette.types import Scope

from xzepr.core.ids import new_id

_KEY = "xzepr.head"  # in an ASGI scope
_NO_LENGTH = (None, b"0")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Head:
    """The head of an HTTP request or of a WebSocket handshake. Names of headers are bytes in lower case.

    It does not hold the scope that holds it: a cycle would keep both until a garbage collection.
    """

    __slots__ = ("_has_repeated", "_headers", "first", "has_body", "is_handshake", "method", "request_id", "route")

    def __init__(self, scope: Scope) -> None:
        self._headers: list[tuple[bytes, bytes]] = scope["headers"]
        values = dict(self._headers)
        self._has_repeated = len(values) != len(self._headers)
        if self._has_repeated:
            values = dict(reversed(self._headers))
        self.first: Callable[[bytes], bytes | None] = values.get
        """Returns the first value of a header; None if it is missing."""
        self.has_body = values.get(b"content-length") not in _NO_LENGTH or b"transfer-encoding" in values
        """Whether a body follows: HTTP/1.1 requires one of these headers then."""
        self.is_handshake = scope["type"] == "websocket"
        self.method: str = scope.get("method", "")
        self.route = "none"
        """The declared path of the route that handled the request; `none` if no route did."""
        offered = values.get(b"x-request-id")
        is_valid = offered is not None and _REQUEST_ID.fullmatch(offered)
        self.request_id = offered.decode() if offered is not None and is_valid else new_id()
        """The id of the request in the log and in the response: the client's `X-Request-ID` if it is valid."""

    def repeats(self, name: bytes) -> bool:
        """Returns whether there are several headers of this name."""
        return self._has_repeated and len(self.every(name)) > 1

    def every(self, name: bytes) -> list[bytes]:
        """Returns all values of a header, in their order."""
        if self._has_repeated:
            return [value for key, value in self._headers if key == name]
        value = self.first(name)
        return [] if value is None else [value]

    def forget_headers(self) -> None:
        """Frees the memory of the headers, also in the scope, for a connection that lasts."""
        self._headers.clear()
        self.first = dict[bytes, bytes]().get


def head_of(scope: Scope) -> Head:
    """Returns the head of a request, which is read at the first call."""
    head: Head | None = scope.get(_KEY)
    if head is None:
        head = scope[_KEY] = Head(scope)
    return head


def request_id_of(scope: Scope) -> str:
    """Returns the id of a request, as in the log and the response."""
    return head_of(scope).request_id
