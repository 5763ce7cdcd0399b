"""Sessions, API keys and stream tickets."""

from dataclasses import dataclass
from datetime import datetime

from xzepr.core.actor import Permission
from xzepr.core.errors import Forbidden, Problem
from xzepr.features.users.model import User


@dataclass(frozen=True, slots=True)
class Session:
    """The result of a login: a bearer token, when it expires, and its user."""

    token: str
    expires_at: datetime
    user: User

    def __repr__(self) -> str:
        return f"Session(user={self.user!r}, expires_at={self.expires_at!r})"


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """An API key to be created."""

    name: str
    permissions: tuple[Permission, ...] | None = None
    """The permissions to which the key is restricted. None for all permissions of its user."""
    expires_at: datetime | None = None
    """None if the key does not expire."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that acts for its user. The hub stores only a digest of its secret."""

    id: str
    user_id: str
    name: str
    permissions: tuple[Permission, ...] | None
    """The permissions to which the key is restricted. None for all permissions of its user."""
    created_at: datetime
    expires_at: datetime | None
    """None if the key does not expire."""
    revoked_at: datetime | None
    """None if the key is not revoked."""


@dataclass(frozen=True, slots=True)
class CreatedApiKey:
    """A new key with its secret, which cannot be read again."""

    key: ApiKey
    secret: str

    def __repr__(self) -> str:
        return f"CreatedApiKey(key={self.key!r})"


@dataclass(frozen=True, slots=True)
class StreamTicket:
    """A credential that opens one event stream, once, before it expires."""

    text: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"StreamTicket(expires_at={self.expires_at!r})"


@dataclass(frozen=True, slots=True)
class TicketHolder:
    """The user that requested a ticket, with the token or API key of the request.

    The stream that the ticket opens ends when that credential is no longer valid.
    """

    user_id: str
    key_digest: bytes | None
    """The digest of the API key. None if the ticket was requested with a token."""
    ends_at: float | None
    """When the token expires, in seconds since 1970. None if the ticket was requested with an API key."""


class LoginRequired(Forbidden):
    """The action needs a login with user name and password, and the client used an API key."""

    def __init__(self) -> None:
        Problem.__init__(self, "an API key cannot do this: log in with user name and password")
        self.permission = ""
