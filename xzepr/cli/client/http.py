"""An HTTP client for a hub: sends GraphQL operations and turns each failure into one sentence for the user."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, cast
from urllib.parse import urlsplit

import orjson
import typer

from xzepr import __version__
from xzepr.cli.client.credentials import HubCredential, credential_for
from xzepr.core.errors import CannotStart

if TYPE_CHECKING:
    import httpx2

JsonObject: TypeAlias = dict[str, Any]

DEFAULT_HUB = "http://127.0.0.1:8042"
HubUrl = Annotated[str, typer.Option("--hub", envvar="XZEPR_HUB", metavar="URL", help="Address of the hub.")]

_TIMEOUT_SECONDS = 60.0
_CREDENTIAL_ERRORS = frozenset({"UNAUTHENTICATED", "INVALID_TOKEN", "TOKEN_EXPIRED"})
_NOT_FOUND = 404  # never the status of a GraphQL response
# Errors that are worth retrying although they do not carry `retryAfter`.
_TEMPORARY_ERRORS = frozenset({"TIMEOUT", "REQUEST_TIMEOUT"})


@dataclass(frozen=True, slots=True)
class ResponseError:
    """One error of a GraphQL response."""

    code: str
    message: str
    field: str | None
    retry_after_seconds: float | None = None
    """Seconds after which the same request may succeed; None if retrying does not help."""

    def __str__(self) -> str:
        """Returns the message, preceded by the field unless the message starts with it."""
        if self.field is None or self.message.startswith(self.field):
            return self.message
        return f"{self.field}: {self.message}"


class RequestRejected(CannotStart):
    """The hub responded with errors."""

    def __init__(self, message: str, errors: tuple[ResponseError, ...]) -> None:
        super().__init__(message)
        self.errors = errors

    @property
    def temporary(self) -> bool:
        """Whether the same request may succeed later."""
        return all(error.retry_after_seconds is not None or error.code in _TEMPORARY_ERRORS for error in self.errors)

    @property
    def retry_after_seconds(self) -> float:
        """Seconds to wait before a retry: the longest `retryAfter` of the errors, or 0 if none has one."""
        return max((error.retry_after_seconds or 0.0 for error in self.errors), default=0.0)


class HubUnreachable(CannotStart):
    """The hub cannot be reached, did not respond in time, or the address does not belong to a hub."""


class HubClient:
    """Sends requests to one hub with one credential. Close it after use; not thread-safe."""

    def __init__(self, hub: str, credential: HubCredential | None) -> None:
        """Prepares a client without connecting; `hub` is an address returned by `normalise_address`."""
        import httpx2  # half of the start of a command, which may end without a request

        self.hub = hub
        self.credential = credential
        headers = {
            "accept": "application/graphql-response+json, application/json",
            "content-type": "application/json",
            "user-agent": f"xzepr/{__version__}",
        }
        if credential is not None:
            headers["authorization"] = f"Bearer {credential.secret}"
        # A proxy cannot reach this machine's loopback addresses, so its settings are ignored for them.
        self._http = httpx2.Client(headers=headers, timeout=_TIMEOUT_SECONDS, trust_env=not is_local(hub))

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def execute(self, document: str, **variables: object) -> JsonObject:
        """Returns the data of a query or mutation. Raises RequestRejected or HubUnreachable."""
        return self.execute_within(_TIMEOUT_SECONDS, document, variables)

    def execute_within(self, timeout_seconds: float, document: str, variables: JsonObject) -> JsonObject:
        """Works like `execute`, but raises HubUnreachable if no data arrives for `timeout_seconds`."""
        import httpx2

        body = orjson.dumps({"query": document, "variables": variables})
        try:
            response = self._http.post(f"{self.hub}/graphql", content=body, timeout=max(timeout_seconds, 0.1))
        except httpx2.TimeoutException as error:
            raise HubUnreachable(f"the hub at {self.hub} did not respond in time") from error
        except httpx2.HTTPError as error:
            raise HubUnreachable(f"the hub at {self.hub} cannot be reached: {error}") from error
        return self._data(response)

    def permissions(self) -> frozenset[str]:
        """Returns the caller's permissions by their GraphQL names (`EVENT_READ`). Raises the errors of `execute`."""
        return frozenset(self.execute("{ me { permissions } }")["me"]["permissions"])

    def rejection(self, errors: object) -> RequestRejected:
        """Returns one exception for the GraphQL errors of a response."""
        parsed = tuple(_parse_errors(errors))
        if self.credential is not None and any(error.code in _CREDENTIAL_ERRORS for error in parsed):
            text = f"the hub at {self.hub} rejected the credential ({parsed[0].message}): {self.credential.remedy}"
        else:
            text = "; ".join(str(error) for error in parsed)
        return RequestRejected(text, parsed)

    def _data(self, response: "httpx2.Response") -> JsonObject:
        try:
            body = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            body = None
        match body:
            case {"errors": [_, *_] as errors} if response.status_code != _NOT_FOUND:
                raise self.rejection(cast(object, errors))
            case {"data": dict()}:
                return cast(JsonObject, body["data"])
            case _:
                raise HubUnreachable(
                    f"{self.hub} did not respond like an XZepr hub (HTTP {response.status_code}): "
                    "check --hub or XZEPR_HUB"
                )


def _parse_errors(errors: object) -> Iterable[ResponseError]:
    for error in cast("list[Any]", errors):
        match error:
            case {"message": str(message), "extensions": {"code": str(code)} as extensions}:
                field, seconds = extensions.get("field"), extensions.get("retryAfter")
                yield ResponseError(
                    code,
                    message,
                    field if isinstance(field, str) and field else None,
                    float(seconds) if isinstance(seconds, int | float) else None,
                )
            case _:
                yield ResponseError("INTERNAL", "the hub responded with an error without a message", None)


@contextmanager
def open_client(hub: str) -> Generator[HubClient]:
    """Opens a client with the user's credential for the hub. Raises CannotStart if there is none."""
    hub = normalise_address(hub)
    client = HubClient(hub, credential_for(hub))
    try:
        yield client
    finally:
        client.close()


def normalise_address(text: str) -> str:
    """Returns the form of the address under which logins are stored: lower-case host, no trailing slash.

    Raises CannotStart if it is not an HTTP address, or contains a user, a query or a fragment.
    """
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        raise _invalid_address(text) from None
    is_http = parts.scheme in ("http", "https") and parts.hostname
    if not is_http or parts.username is not None or parts.query or parts.fragment:
        raise _invalid_address(text)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"


def _invalid_address(text: str) -> CannotStart:
    return CannotStart(f"{text!r} is not the address of a hub: write it as {DEFAULT_HUB} (--hub or XZEPR_HUB)")


def is_local(hub: str) -> bool:
    """Returns whether the address is a loopback address of this machine."""
    host = urlsplit(hub).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
