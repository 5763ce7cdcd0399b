"""Users: making them, letting them in or not, and asking who they are now."""

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

CACHE_SECONDS = 2.0
"""How long a process goes on believing what it read about a user: a disabled one is refused after this, everywhere."""

_CACHE_SIZE = 10_000
_MAX_LISTED = 1_000


class Users:
    """What can be done with users."""

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
        """The new user, enabled; raises InvalidInput, or Conflict when the name is taken in any spelling of case.

        Nobody gives rights that they lack: an API key narrowed to user:manage cannot make an admin.
        """
        actor.must(Permission.USER_MANAGE)
        for permission in sorted(permissions_of(new.roles)):
            actor.must(permission)
        check_new_user(new, min_password=self._min_password)
        password_hash = await self._passwords.hash(new.password)
        async with self._db.write() as connection:
            row = await store.insert(connection, new_id(), fold(new.username), password_hash, _role_names(new.roles))
        if row is None:
            raise Conflict(f"there is a user {fold(new.username)!r} already", field="username")
        return row.user()

    async def ensure_admin(
        self, username: str, password: str | None, *, save_password: Callable[[str], None] | None = None
    ) -> FirstAdmin | None:
        """Makes an admin if there is no user at all, with a password made up unless one is given; else None.

        Of several servers that start at once one makes it. `keep` gets a made-up password before the user is stored,
        so that a crash cannot leave an admin whose password nobody knows.
        """
        async with self._db.read() as connection:
            if await store.has_users(connection):
                return None
        made_up = new_password() if password is None else None
        new = NewUser(username, made_up or password or "", (Role.ADMIN,))
        check_new_user(new, min_password=self._min_password)
        password_hash = await self._passwords.hash(new.password)
        async with self._db.write() as connection:
            await store.lock_admins(connection)
            if await store.has_users(connection):
                return None
            row = await store.insert(connection, new_id(), fold(username), password_hash, _role_names(new.roles))
            if save_password is not None and made_up is not None:
                save_password(made_up)
        return None if row is None else FirstAdmin(row.user(), made_up)

    async def list_users(self, actor: Actor) -> Sequence[User]:
        """Everybody who may or might log in, by name; at most a thousand."""
        actor.must(Permission.USER_MANAGE)
        async with self._db.read() as connection:
            return [row.user() for row in await store.first(connection, _MAX_LISTED)]

    async def set_enabled(self, actor: Actor, user_id: str, enabled: bool) -> User:
        """The user afterwards; every process follows within 5 s. Raises Conflict for the last admin who may log in."""
        actor.must(Permission.USER_MANAGE)
        if not is_id(user_id):
            raise NotFound("user", user_id)
        async with self._db.write() as connection:
            await store.lock_admins(connection)
            row = await store.set_enabled(connection, user_id, enabled)
            if row is None:
                raise NotFound("user", user_id)
            if not enabled and Role.ADMIN in row.user().roles and not await store.has_enabled_admin(connection):
                raise Conflict(f"{row.username!r} is the last admin who may log in; make another one first")
        self._cache.forget(user_id)
        return row.user()

    async def by_ids(self, ids: Sequence[str]) -> dict[str, User]:
        """The users of these ids that there are, by id."""
        async with self._db.read() as connection:
            return await _by_ids(connection, ids)

    async def _load(self, ids: Sequence[str]) -> dict[str, User]:
        # Who keeps all connections busy must not keep the hub from noticing that they are disabled.
        async with self._db.read_reserved() as connection:
            return await _by_ids(connection, ids)

    async def cached(self, user_id: str) -> User | None:
        """The user as of at most 2 s ago, for those who ask with every request; None when there is none."""
        return await self._cache.get(user_id)

    async def verify_password(self, username: str, password: str) -> User | None:
        """The enabled user whose name and password these are, else None after the same work; raises Overloaded."""
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
            return  # The next login does it.
        async with self._db.write() as connection:
            await store.replace_hash(connection, row.id, row.password_hash, password_hash)


async def _by_ids(connection: Connection, ids: Sequence[str]) -> dict[str, User]:
    return {row.id: row.user() for row in await store.by_ids(connection, [id for id in ids if is_id(id)])}


def _role_names(roles: Sequence[Role]) -> list[str]:
    return [role.value for role in dict.fromkeys(roles)]
