"""Who is asking and what they may do: the one table of permissions and roles for code, SDL and documentation."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from xzepr.core.errors import Forbidden, Unauthenticated


class Permission(StrEnum):
    """One thing that an actor may be allowed to do."""

    EVENT_CREATE = "event:create"
    EVENT_READ = "event:read"
    RECEIVER_CREATE = "receiver:create"
    RECEIVER_READ = "receiver:read"
    RECEIVER_UPDATE = "receiver:update"
    RECEIVER_DELETE = "receiver:delete"
    GROUP_CREATE = "group:create"
    GROUP_READ = "group:read"
    GROUP_UPDATE = "group:update"
    GROUP_DELETE = "group:delete"
    USER_MANAGE = "user:manage"
    STREAM_ADMIN = "stream:admin"


class Role(StrEnum):
    """A named set of permissions; a user has one or more."""

    ADMIN = "admin"
    EVENT_MANAGER = "event_manager"
    EVENT_VIEWER = "event_viewer"
    USER = "user"


_READS = frozenset({Permission.EVENT_READ, Permission.RECEIVER_READ, Permission.GROUP_READ})

ROLES: dict[Role, frozenset[Permission]] = {
    Role.ADMIN: frozenset(Permission),
    Role.EVENT_MANAGER: frozenset(Permission) - {Permission.USER_MANAGE, Permission.STREAM_ADMIN},
    Role.EVENT_VIEWER: _READS,
    Role.USER: frozenset({Permission.RECEIVER_READ, Permission.GROUP_READ}),
}


def permissions_of(roles: Iterable[Role]) -> frozenset[Permission]:
    """The union of what the roles allow."""
    return frozenset[Permission]().union(*(ROLES[role] for role in roles))


class ActorKind(StrEnum):
    """How an actor came to be known."""

    USER = "user"
    API_KEY = "api_key"
    SYSTEM = "system"
    ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who is asking. `id` is the user's id, also for an API key, and empty for anonymous callers."""

    kind: ActorKind
    id: str
    name: str
    permissions: frozenset[Permission]
    key_id: str | None = None
    """The API key that was presented, if one was."""
    ends_at: float | None = field(default=None, compare=False)
    """When the token that was presented expires, in seconds since 1970; None without one."""

    def may(self, permission: Permission) -> bool:
        """Whether the actor has the permission."""
        return permission in self.permissions

    def must(self, permission: Permission) -> None:
        """The first line of every service call: raises Unauthenticated or Forbidden."""
        if permission in self.permissions:
            return
        self.require_authenticated()
        raise Forbidden(permission)

    def require_authenticated(self) -> None:
        """Raises Unauthenticated for anonymous callers."""
        if self.kind is ActorKind.ANONYMOUS:
            raise Unauthenticated()


ANONYMOUS = Actor(ActorKind.ANONYMOUS, "", "anonymous", frozenset())
SYSTEM = Actor(ActorKind.SYSTEM, "system", "system", frozenset(Permission))
