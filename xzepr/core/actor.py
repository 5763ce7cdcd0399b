"""Actors, their roles and their permissions. This is the only table of them: schema and documentation use it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from xzepr.core.errors import Forbidden, Unauthenticated


class Permission(StrEnum):
    """An action that an actor may be allowed to do."""

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
    """Returns the permissions that at least one of the roles has."""
    return frozenset[Permission]().union(*(ROLES[role] for role in roles))


class ActorKind(StrEnum):
    """How an actor was authenticated."""

    USER = "user"
    API_KEY = "api_key"
    SYSTEM = "system"
    ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Actor:
    """The author of a request: a user, an API key, the hub itself, or an anonymous caller.

    `id` is the user's id, also for an API key; empty for an anonymous caller.
    """

    kind: ActorKind
    id: str
    name: str
    permissions: frozenset[Permission]
    key_id: str | None = None
    """Id of the API key that authenticated the actor; None for other actors."""
    ends_at: float | None = field(default=None, compare=False)
    """When the actor's token expires, in seconds since 1970; None if the actor has no token."""

    def may(self, permission: Permission) -> bool:
        """Returns whether the actor has the permission."""
        return permission in self.permissions

    def must(self, permission: Permission) -> None:
        """Raises Forbidden if the actor lacks the permission, Unauthenticated if it is also anonymous.

        Every service call starts with this check.
        """
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
