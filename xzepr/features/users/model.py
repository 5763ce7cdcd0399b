"""Users: people and machines with a name, a password and roles."""

from dataclasses import dataclass
from datetime import datetime

from xzepr.core.actor import Role


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may log in while `enabled`. The name is in lower case."""

    id: str
    username: str
    roles: tuple[Role, ...]
    enabled: bool
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
    """The admin whom the first start made."""

    user: User
    password: str | None
    """The password, only if it was made up for the occasion."""

    def __repr__(self) -> str:
        return f"FirstAdmin(user={self.user!r})"
