"""What a login gives, and API keys."""

from dataclasses import dataclass
from datetime import datetime

from xzepr.core.actor import Permission
from xzepr.core.errors import Forbidden, Problem
from xzepr.features.users.model import User


@dataclass(frozen=True, slots=True)
class Session:
    """A login's result: a bearer token, when it ends, and whose it is."""

    token: str
    expires_at: datetime
    user: User

    def __repr__(self) -> str:
        return f"Session(user={self.user!r}, expires_at={self.expires_at!r})"


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """An API key to be created. `permissions` narrows it (None: all that its user may do); `expires_at` ends it."""

    name: str
    permissions: tuple[Permission, ...] | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that acts for its user. Its secret is known to nobody but who was given it."""

    id: str
    user_id: str
    name: str
    permissions: tuple[Permission, ...] | None
    """What it is narrowed to; None: whatever its user may do."""
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class CreatedApiKey:
    """A new key with its secret, which is shown this once."""

    key: ApiKey
    secret: str

    def __repr__(self) -> str:
        return f"CreatedApiKey(key={self.key!r})"


@dataclass(frozen=True, slots=True)
class StreamTicket:
    """What opens one event stream, once, until it expires."""

    text: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"StreamTicket(expires_at={self.expires_at!r})"


@dataclass(frozen=True, slots=True)
class TicketHolder:
    """Who asked for a ticket, and with what: the stream that it opened lasts no longer than that."""

    user_id: str
    key_digest: bytes | None
    """Of the API key; None: it was a token."""
    ends_at: float | None
    """When the token expires, in seconds since 1970; None: it was a key."""


class LoginRequired(Forbidden):
    """An API key tried what only a user who logged in may do."""

    def __init__(self) -> None:
        Problem.__init__(self, "an API key cannot do this: log in with user name and password")
        self.permission = ""
