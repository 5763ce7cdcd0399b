"""SQL of users."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from xzepr.core.actor import Role
from xzepr.features.users.model import User
from xzepr.infra.db import Connection

_ROLES = {role.value: role for role in Role}


@dataclass(frozen=True, slots=True)
class UserRow:
    """A row of `users`, with the hash of the password."""

    id: str
    username: str
    password_hash: str
    roles: list[str]
    enabled: bool
    created_at: datetime
    updated_at: datetime

    def user(self) -> User:
        """Returns the user. Unknown roles, which a newer server may have granted, are left out."""
        roles = tuple(_ROLES[name] for name in self.roles if name in _ROLES)
        return User(self.id, self.username, roles, self.enabled, self.created_at, self.updated_at)


async def insert(
    connection: Connection, id: str, username: str, password_hash: str, roles: list[str]
) -> UserRow | None:
    """Inserts a user and returns the row. None if the name is taken."""
    async with connection.cursor(row_factory=class_row(UserRow)) as cursor:
        await cursor.execute(
            """
            INSERT INTO users (id, username, password_hash, roles)
            VALUES (%(id)s, %(username)s, %(password_hash)s, %(roles)s)
            ON CONFLICT (username) DO NOTHING
            RETURNING id, username, password_hash, roles, enabled, created_at, updated_at
            """,
            {"id": id, "username": username, "password_hash": password_hash, "roles": roles},
        )
        return await cursor.fetchone()


async def by_username(connection: Connection, username: str) -> UserRow | None:
    """Returns the user with a folded name. None if there is none."""
    async with connection.cursor(row_factory=class_row(UserRow)) as cursor:
        await cursor.execute(
            """
            SELECT id, username, password_hash, roles, enabled, created_at, updated_at
            FROM users WHERE username = %(username)s
            """,
            {"username": username},
        )
        return await cursor.fetchone()


async def by_ids(connection: Connection, ids: Sequence[str]) -> list[UserRow]:
    """Returns the users with these ids, in any order. Unknown ids are left out."""
    async with connection.cursor(row_factory=class_row(UserRow)) as cursor:
        await cursor.execute(
            """
            SELECT id, username, password_hash, roles, enabled, created_at, updated_at
            FROM users WHERE id = ANY (%(ids)s)
            """,
            {"ids": list(ids)},
        )
        return await cursor.fetchall()


async def first(connection: Connection, limit: int) -> list[UserRow]:
    """Returns up to `limit` users, sorted by name."""
    async with connection.cursor(row_factory=class_row(UserRow)) as cursor:
        await cursor.execute(
            """
            SELECT id, username, password_hash, roles, enabled, created_at, updated_at
            FROM users ORDER BY username LIMIT %(limit)s
            """,
            {"limit": limit},
        )
        return await cursor.fetchall()


async def set_enabled(connection: Connection, id: str, enabled: bool) -> UserRow | None:
    """Enables or disables a user and returns the changed row. None if there is no such user."""
    async with connection.cursor(row_factory=class_row(UserRow)) as cursor:
        await cursor.execute(
            """
            UPDATE users SET enabled = %(enabled)s, updated_at = clock_timestamp() WHERE id = %(id)s
            RETURNING id, username, password_hash, roles, enabled, created_at, updated_at
            """,
            {"id": id, "enabled": enabled},
        )
        return await cursor.fetchone()


async def replace_hash(connection: Connection, id: str, old: str, new: str) -> None:
    """Replaces the hash of a password, unless the hash is no longer `old`."""
    await connection.execute(
        "UPDATE users SET password_hash = %(new)s WHERE id = %(id)s AND password_hash = %(old)s",
        {"id": id, "old": old, "new": new},
    )


async def lock_admins(connection: Connection) -> None:
    """Takes the lock under which admins are counted and changed, until the transaction ends."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtext('xzepr'), hashtext('xzepr admins'))")


async def has_users(connection: Connection) -> bool:
    """Returns whether there is any user."""
    cursor = await connection.execute("SELECT 1 FROM users LIMIT 1")
    return await cursor.fetchone() is not None


async def has_enabled_admin(connection: Connection) -> bool:
    """Returns whether an enabled user has the role admin."""
    cursor = await connection.execute("SELECT 1 FROM users WHERE enabled AND 'admin' = ANY (roles) LIMIT 1")
    return await cursor.fetchone() is not None
