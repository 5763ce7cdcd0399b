"""The use cases of users: create, enable, disable, list, and check passwords."""

import time
from collections.abc import Callable, Sequence

from xzepr.core.actor import Actor, Permission, Role, permissions_of
from xzepr.core.errors import Conflict, NotFound, Overloaded
from xzepr.core.ids import is_id, new_id
from xzepr.features.users import store
from xzepr.features.users.model import FirstAdmin, NewUser, User
from xzepr.features.users.rules import MAX_PASSWORD, check_new_user, fold, is_username
from xzepr.infra.cache import RepeatedRead, TTLCache
from xzepr.infra.concurrency import BatchLoader
from xzepr.infra.crypto import Passwords, new_password
from xzepr.infra.db import Connection, Database

CACHE_SECONDS = 2.0  # of users and API keys; each process rejects a disabled user after this time

_CACHE_SIZE = 10_000  # users
_MAX_LISTED = 1_000


class Users:
    """Use cases of users."""

    def __init__(
        self,
        db: Database,
        passwords: Passwords,
        *,
        min_password: int = 12,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`min_password` counts characters."""
        self._db = db
        self._passwords = passwords
        self._min_password = min_password
        self._cache = TTLCache(
            BatchLoader(RepeatedRead(self._load)).load, seconds=CACHE_SECONDS, size=_CACHE_SIZE, clock=clock
        )

    async def create(self, actor: Actor, new: NewUser) -> User:
        """Creates an enabled user. Raises InvalidInput, or Conflict if the name is taken in any spelling of case.

        The actor must have every permission of the roles: an API key restricted to `user:manage` cannot create an
        admin. Raises Forbidden otherwise.
        """
        actor.must(Permission.USER_MANAGE)
        for permission in sorted(permissions_of(new.roles)):
            actor.must(permission)
        check_new_user(new, min_password=self._min_password)
        password_hash = await self._passwords.hash(new.password)
        async with self._db.write() as connection:
            row = await store.insert(connection, new_id(), fold(new.username), password_hash, _role_names(new.roles))
        if row is None:
            raise Conflict(f"a user named {fold(new.username)!r} already exists", field="username")
        return row.user()

    async def ensure_admin(
        self, username: str, password: str | None, *, save_password: Callable[[str], None] | None = None
    ) -> FirstAdmin | None:
        """Creates an admin if there are no users, or returns None. Generates a password if `password` is None.

        Only one of several servers that start at the same time creates it. `save_password` gets a generated password
        before the user is stored, so that a crash cannot leave an admin with an unknown password.
        """
        async with self._db.read() as connection:
            if await store.has_users(connection):
                return None
        generated = new_password() if password is None else None
        new = NewUser(username, generated or password or "", (Role.ADMIN,))
        check_new_user(new, min_password=self._min_password)
        password_hash = await self._passwords.hash(new.password)
        async with self._db.write() as connection:
            await store.lock_admins(connection)
            if await store.has_users(connection):
                return None
            row = await store.insert(connection, new_id(), fold(username), password_hash, _role_names(new.roles))
            if save_password is not None and generated is not None:
                save_password(generated)
        return None if row is None else FirstAdmin(row.user(), generated)

    async def list_users(self, actor: Actor) -> Sequence[User]:
        """Returns up to 1,000 users, enabled or not, sorted by name."""
        actor.must(Permission.USER_MANAGE)
        async with self._db.read() as connection:
            return [row.user() for row in await store.first(connection, _MAX_LISTED)]

    async def set_enabled(self, actor: Actor, user_id: str, enabled: bool) -> User:
        """Enables or disables a user. Every process applies the change within 5 s.

        Raises NotFound, or Conflict for the last enabled admin.
        """
        actor.must(Permission.USER_MANAGE)
        if not is_id(user_id):
            raise NotFound("user", user_id)
        async with self._db.write() as connection:
            await store.lock_admins(connection)
            row = await store.set_enabled(connection, user_id, enabled)
            if row is None:
                raise NotFound("user", user_id)
            if not enabled and Role.ADMIN in row.user().roles and not await store.has_enabled_admin(connection):
                raise Conflict(f"{row.username!r} is the last enabled admin: create another admin first")
        self._cache.forget(user_id)
        return row.user()

    async def by_ids(self, ids: Sequence[str]) -> dict[str, User]:
        """Returns the users with these ids, by id. Unknown ids are left out."""
        async with self._db.read() as connection:
            return await _by_ids(connection, ids)

    async def _load(self, ids: Sequence[str]) -> dict[str, User]:
        # On a reserved connection: a user that keeps all others busy must not delay the check for a disabled user.
        async with self._db.read_reserved() as connection:
            return await _by_ids(connection, ids)

    async def cached(self, user_id: str) -> User | None:
        """Returns a user from a cache of at most 2 s, for checks with every request. None if there is no such user."""
        return await self._cache.get(user_id)

    def cached_now(self, user_id: str) -> User | None:
        """Returns a user as `cached` does, without waiting. None if the user is not in the cache."""
        return self._cache.cached(user_id)

    async def verify_password(self, username: str, password: str) -> User | None:
        """Returns the enabled user with this name and password, or None after the same work. Raises Overloaded."""
        row = None
        folded = fold(username)
        if is_username(folded):
            async with self._db.read() as connection:
                row = await store.by_username(connection, folded)
        if len(password) > MAX_PASSWORD:
            row, password = None, ""
        if row is None:
            await self._passwords.verify_dummy(password)
            return None
        if not await self._passwords.verify(row.password_hash, password) or not row.enabled:
            return None
        if self._passwords.is_outdated(row.password_hash):
            await self._rehash(row, password)
        return row.user()

    async def _rehash(self, row: store.UserRow, password: str) -> None:
        try:
            password_hash = await self._passwords.hash(password)
        except Overloaded:
            return  # The next login tries again.
        async with self._db.write() as connection:
            await store.replace_hash(connection, row.id, row.password_hash, password_hash)


async def _by_ids(connection: Connection, ids: Sequence[str]) -> dict[str, User]:
    return {row.id: row.user() for row in await store.by_ids(connection, [id for id in ids if is_id(id)])}


def _role_names(roles: Sequence[Role]) -> list[str]:
    return [role.value for role in dict.fromkeys(roles)]
