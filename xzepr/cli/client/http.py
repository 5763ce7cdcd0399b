"""A hub as the command line reaches it: GraphQL over HTTP, and what goes wrong as one sentence."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, cast
from urllib.parse import urlsplit

import httpx2
import orjson
import typer

from xzepr import __version__
from xzepr.cli.client.credentials import Credential, credential
from xzepr.core.errors import CannotStart

JsonObject: TypeAlias = dict[str, Any]

DEFAULT_HUB = "http://127.0.0.1:8042"
HubUrl = Annotated[str, typer.Option("--hub", envvar="XZEPR_HUB", metavar="URL", help="Address of the hub.")]

_SECONDS = 60.0
_NOT_TAKEN = frozenset({"UNAUTHENTICATED", "INVALID_TOKEN", "TOKEN_EXPIRED"})
_NO_SUCH_PAGE = 404  # never the status of a GraphQL answer
_PASSING = frozenset({"TIMEOUT", "REQUEST_TIMEOUT"})
"""What passes although the hub cannot say when."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """One error of an answer."""

    code: str
    message: str
    field: str | None
    retry_after: float | None = None
    """Seconds after which the same call may succeed; None where waiting does not help."""

    def __str__(self) -> str:
        """The message, with the field before it unless the message names it."""
        if self.field is None or self.message.startswith(self.field):
            return self.message
        return f"{self.field}: {self.message}"


class Refused(CannotStart):
    """The hub answered, and the answer is no."""

    def __init__(self, message: str, complaints: tuple[Complaint, ...]) -> None:
        super().__init__(message)
        self.complaints = complaints

    @property
    def passing(self) -> bool:
        """Whether the same call may succeed in a while."""
        return all(one.retry_after is not None or one.code in _PASSING for one in self.complaints)

    @property
    def retry_after(self) -> float:
        """Seconds after which it may; 0 where the hub does not say."""
        return max((one.retry_after or 0.0 for one in self.complaints), default=0.0)


class Unreachable(CannotStart):
    """No hub answers at the address, or not now."""


class Client:
    """One hub and one actor. Use it in `with`, from one thread."""

    def __init__(self, hub: str, presented: Credential | None) -> None:
        """`hub` as `address` gives it; nothing is sent before the first question."""
        self.hub = hub
        self.presented = presented
        headers = {
            "accept": "application/graphql-response+json, application/json",
            "content-type": "application/json",
            "user-agent": f"xzepr/{__version__}",
        }
        if presented is not None:
            headers["authorization"] = f"Bearer {presented.secret}"
        # A proxy knows nothing of this machine's own addresses.
        self._http = httpx2.Client(headers=headers, timeout=_SECONDS, trust_env=not is_local(hub))

    def close(self) -> None:
        """Ends the connections."""
        self._http.close()

    def ask(self, document: str, **variables: object) -> JsonObject:
        """The data of a query or mutation. Raises Refused or Unreachable."""
        return self.ask_within(_SECONDS, document, variables)

    def ask_within(self, seconds: float, document: str, variables: JsonObject) -> JsonObject:
        """As `ask`, and Unreachable when nothing comes for so long."""
        body = orjson.dumps({"query": document, "variables": variables})
        try:
            response = self._http.post(f"{self.hub}/graphql", content=body, timeout=max(seconds, 0.1))
        except httpx2.TimeoutException as error:
            raise Unreachable(f"the hub at {self.hub} did not answer in time") from error
        except httpx2.HTTPError as error:
            raise Unreachable(f"the hub at {self.hub} cannot be reached: {error}") from error
        return self._data(response)

    def permissions(self) -> frozenset[str]:
        """What the actor may do, as GraphQL names it (`EVENT_READ`); raises also when the credential is not taken."""
        return frozenset(self.ask("{ me { permissions } }")["me"]["permissions"])

    def refusal(self, errors: object) -> Refused:
        """GraphQL errors as one exception."""
        complaints = tuple(_complaints(errors))
        if self.presented is not None and any(one.code in _NOT_TAKEN for one in complaints):
            text = f"the hub at {self.hub} says that {complaints[0].message}: {self.presented.remedy}"
        else:
            text = "; ".join(str(one) for one in complaints)
        return Refused(text, complaints)

    def _data(self, response: httpx2.Response) -> JsonObject:
        try:
            answer = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            answer = None
        match answer:
            case {"errors": [_, *_] as errors} if response.status_code != _NO_SUCH_PAGE:
                raise self.refusal(cast(object, errors))
            case {"data": dict()}:
                return cast(JsonObject, answer["data"])
            case _:
                raise Unreachable(
                    f"{self.hub} does not answer as a hub of XZepr does (HTTP {response.status_code}): "
                    "check --hub or XZEPR_HUB"
                )


def _complaints(errors: object) -> Iterable[Complaint]:
    for error in cast("list[Any]", errors):
        match error:
            case {"message": str(message), "extensions": {"code": str(code)} as more}:
                field, seconds = more.get("field"), more.get("retryAfter")
                yield Complaint(
                    code,
                    message,
                    field if isinstance(field, str) and field else None,
                    float(seconds) if isinstance(seconds, int | float) else None,
                )
            case _:
                yield Complaint("INTERNAL", "the hub gave an error without a message", None)


@contextmanager
def connected(hub: str) -> Generator[Client]:
    """A client with this person's credential for the hub. Raises CannotStart when there is none."""
    hub = address(hub)
    client = Client(hub, credential(hub))
    try:
        yield client
    finally:
        client.close()


def address(text: str) -> str:
    """The address in the one form under which logins are kept: lower-case host, no slash at the end."""
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        raise _no_address(text) from None
    known = parts.scheme in ("http", "https") and parts.hostname
    if not known or parts.username is not None or parts.query or parts.fragment:
        raise _no_address(text)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"


def _no_address(text: str) -> CannotStart:
    return CannotStart(f"{text!r} is not the address of a hub: write it as {DEFAULT_HUB} (--hub or XZEPR_HUB)")


def is_local(hub: str) -> bool:
    """Whether the address is this machine's own."""
    host = urlsplit(hub).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
