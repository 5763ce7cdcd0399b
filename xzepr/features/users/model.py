"""Users: people and programs with a name, a password and roles."""

from dataclasses import dataclass
from datetime import datetime

from xzepr.core.actor import Role


@dataclass(frozen=True, slots=True)
class User:
    """A person or program that can log in."""

    id: str
    username: str
    """The name in lower case."""
    roles: tuple[Role, ...]
    enabled: bool
    """A disabled user cannot log in, and the user's credentials are rejected."""
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class NewUser:
    """A user to be created."""

    username: str
    password: str
    roles: tuple[Role, ...]

    def __repr__(self) -> str:
        return f"NewUser(username={self.username!r}, roles={self.roles!r})"


@dataclass(frozen=True, slots=True)
class FirstAdmin:
    """The admin that the first start of the hub creates."""

    user: User
    password: str | None
    """The generated password. None if the operator chose the password."""

    def __repr__(self) -> str:
        return f"FirstAdmin(user={self.user!r})"
