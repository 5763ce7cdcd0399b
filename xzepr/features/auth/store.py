"""SQL of API keys, stream tickets and login attempts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row, scalar_row

from xzepr.core.actor import Permission
from xzepr.features.auth.model import ApiKey
from xzepr.infra.db import Connection

_PERMISSIONS = {permission.value: permission for permission in Permission}


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A row of `api_keys` without the digest of the secret."""

    id: str
    user_id: str
    name: str
    permissions: list[str] | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def key(self) -> ApiKey:
        """Returns the key. Unknown permissions, which a newer server may have granted, are left out."""
        permissions = None
        if self.permissions is not None:
            permissions = tuple(_PERMISSIONS[name] for name in self.permissions if name in _PERMISSIONS)
        return ApiKey(self.id, self.user_id, self.name, permissions, self.created_at, self.expires_at, self.revoked_at)


@dataclass(frozen=True, slots=True)
class Attempts:
    """The numbers of logins of one user name in the last minute."""

    in_progress: int
    failed: int
    retry_after: float
    """Seconds until the oldest of them is a minute old."""


async def lock_user(connection: Connection, user_id: str) -> bool:
    """Locks the row of an enabled user until the transaction ends. Returns False if there is no such user."""
    cursor = connection.cursor(row_factory=scalar_row)
    await cursor.execute("SELECT 1 FROM users WHERE id = %(id)s AND enabled FOR UPDATE", {"id": user_id})
    return await cursor.fetchone() is not None


async def insert_key(connection: Connection, new: KeyRow, digest: bytes) -> KeyRow:
    """Inserts a key and returns its row. The database sets the time of creation."""
    async with connection.cursor(row_factory=class_row(KeyRow)) as cursor:
        await cursor.execute(
            """
            INSERT INTO api_keys (id, user_id, name, digest, permissions, expires_at)
            VALUES (%(id)s, %(user_id)s, %(name)s, %(digest)s, %(permissions)s::text[], %(expires_at)s)
            RETURNING id, user_id, name, permissions, created_at, expires_at, revoked_at
            """,
            {
                "id": new.id,
                "user_id": new.user_id,
                "name": new.name,
                "digest": digest,
                "permissions": new.permissions,
                "expires_at": new.expires_at,
            },
        )
        row = await cursor.fetchone()
    assert row is not None, "an INSERT without ON CONFLICT returns its row"
    return row


@dataclass(frozen=True, slots=True)
class DigestKeyRow(KeyRow):
    """A row of `api_keys` with the digest of the secret."""

    digest: bytes


async def keys_by_digests(connection: Connection, digests: Sequence[bytes]) -> list[DigestKeyRow]:
    """Returns the keys with these digests, including revoked and expired ones."""
    async with connection.cursor(row_factory=class_row(DigestKeyRow)) as cursor:
        await cursor.execute(
            """
            SELECT id, user_id, name, permissions, created_at, expires_at, revoked_at, digest
            FROM api_keys WHERE digest = ANY(%(digests)s)
            """,
            {"digests": list(digests)},
        )
        return await cursor.fetchall()


async def keys_of(connection: Connection, user_id: str) -> list[KeyRow]:
    """Returns the keys of a user that are not revoked, newest first."""
    async with connection.cursor(row_factory=class_row(KeyRow)) as cursor:
        await cursor.execute(
            """
            SELECT id, user_id, name, permissions, created_at, expires_at, revoked_at
            FROM api_keys WHERE user_id = %(user_id)s AND revoked_at IS NULL
            ORDER BY created_at DESC, id DESC
            """,
            {"user_id": user_id},
        )
        return await cursor.fetchall()


async def revoke_key(connection: Connection, id: str, user_id: str | None) -> bytes | None:
    """Revokes a key, unless it is revoked already, and returns its digest.

    None if there is no such key, or if it belongs to another user than `user_id`. A `user_id` of None allows any user.
    """
    cursor = connection.cursor(row_factory=scalar_row)
    await cursor.execute(
        """
        UPDATE api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp())
        WHERE id = %(id)s AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s)
        RETURNING digest
        """,
        {"id": id, "user_id": user_id},
    )
    return await cursor.fetchone()


@dataclass(frozen=True, slots=True)
class TicketRow:
    """A row of `stream_tickets` that was just deleted."""

    user_id: str
    key_digest: bytes | None
    ends_at: float | None
    is_valid: bool
    """Whether the ticket had not expired."""


async def insert_ticket(
    connection: Connection, digest: bytes, user_id: str, key_id: str | None, ends_at: float | None, seconds: int
) -> datetime | None:
    """Inserts a ticket and returns when it expires. None if the user or the user's key does not exist."""
    cursor = connection.cursor(row_factory=scalar_row)
    await cursor.execute(
        """
        INSERT INTO stream_tickets (digest, user_id, key_digest, ends_at, expires_at)
        SELECT %(digest)s, users.id, api_keys.digest, to_timestamp(%(ends_at)s::float8),
               clock_timestamp() + make_interval(secs => %(seconds)s)
        FROM users LEFT JOIN api_keys ON api_keys.id = %(key_id)s::text AND api_keys.user_id = users.id
        WHERE users.id = %(user_id)s AND (%(key_id)s::text IS NULL OR api_keys.id IS NOT NULL)
        RETURNING expires_at
        """,
        {"digest": digest, "user_id": user_id, "key_id": key_id, "ends_at": ends_at, "seconds": seconds},
    )
    return await cursor.fetchone()


async def delete_ticket(connection: Connection, digest: bytes, seconds: int) -> TicketRow | None:
    """Deletes a ticket, so that it cannot be used again, and returns it. None if there is no such ticket.

    A ticket that expires in more than `seconds` is not valid: the clock was set back.
    """
    async with connection.cursor(row_factory=class_row(TicketRow)) as cursor:
        await cursor.execute(
            """
            DELETE FROM stream_tickets WHERE digest = %(digest)s
            RETURNING user_id, key_digest, extract(epoch FROM ends_at)::float8 AS ends_at,
                      expires_at BETWEEN clock_timestamp()
                                     AND clock_timestamp() + make_interval(secs => %(seconds)s) AS is_valid
            """,
            {"digest": digest, "seconds": seconds},
        )
        return await cursor.fetchone()


async def delete_expired_tickets(connection: Connection) -> None:
    """Deletes up to 100 expired tickets, and skips those that another transaction is deleting."""
    await connection.execute(
        """
        DELETE FROM stream_tickets WHERE digest IN (
            SELECT digest FROM stream_tickets WHERE expires_at < clock_timestamp()
            ORDER BY expires_at LIMIT 100 FOR UPDATE SKIP LOCKED)
        """
    )


async def lock_name(connection: Connection, name_digest: bytes) -> None:
    """Waits for the lock that counting the attempts of a name needs, and holds it until the transaction ends."""
    await connection.execute(
        "SELECT pg_advisory_xact_lock(hashtext('xzepr login'), %(key)s::int)",
        {"key": int.from_bytes(name_digest[:4], "big", signed=True)},
    )


async def count_attempts(connection: Connection, name_digest: bytes) -> Attempts:
    """Counts the attempts of the last minute.

    An attempt in progress for 30 s counts as failed, because its server has crashed or hangs. Attempts with a time in
    the future are not counted: the clock was set back.
    """
    async with connection.cursor(row_factory=class_row(Attempts)) as cursor:
        await cursor.execute(
            """
            SELECT count(*) FILTER (WHERE NOT recent.failed) AS in_progress,
                   count(*) FILTER (WHERE recent.failed) AS failed,
                   coalesce(60 - extract(epoch FROM clock_timestamp() - min(at)), 0)::float8 AS retry_after
            FROM (SELECT at, failed OR at < clock_timestamp() - interval '30 seconds' AS failed
                  FROM login_attempts
                  WHERE name_digest = %(digest)s
                    AND at BETWEEN clock_timestamp() - interval '1 minute' AND clock_timestamp()) AS recent
            """,
            {"digest": name_digest},
        )
        row = await cursor.fetchone()
    assert row is not None, "a SELECT of aggregates without GROUP BY has one row"
    return row


async def add_attempt(connection: Connection, id: str, name_digest: bytes) -> None:
    """Records that a login is in progress."""
    await connection.execute(
        "INSERT INTO login_attempts (id, name_digest) VALUES (%(id)s, %(digest)s)", {"id": id, "digest": name_digest}
    )


async def mark_attempt_failed(connection: Connection, id: str) -> None:
    """Records that a login failed."""
    await connection.execute("UPDATE login_attempts SET failed = true WHERE id = %(id)s", {"id": id})


async def delete_attempt(connection: Connection, id: str) -> None:
    """Deletes the attempt of a login that succeeded or did not check a password."""
    await connection.execute("DELETE FROM login_attempts WHERE id = %(id)s", {"id": id})


async def delete_old_attempts(connection: Connection) -> None:
    """Deletes up to 100 attempts that no longer count, and skips those that another transaction is deleting."""
    await connection.execute(
        """
        DELETE FROM login_attempts WHERE id IN (
            SELECT id FROM login_attempts WHERE at < clock_timestamp() - interval '2 minutes'
            ORDER BY at LIMIT 100 FOR UPDATE SKIP LOCKED)
        """
    )
