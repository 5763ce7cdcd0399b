"""API keys and attempts to log in, in PostgreSQL."""

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
    """A row of `api_keys` without its digest."""

    id: str
    user_id: str
    name: str
    permissions: list[str] | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def key(self) -> ApiKey:
        """The key. A permission that this version does not know allows nothing: a newer server may have given it."""
        narrowed = self.permissions
        known = None if narrowed is None else tuple(_PERMISSIONS[name] for name in narrowed if name in _PERMISSIONS)
        return ApiKey(self.id, self.user_id, self.name, known, self.created_at, self.expires_at, self.revoked_at)


@dataclass(frozen=True, slots=True)
class Attempts:
    """How often somebody tried a name within the last minute."""

    under_way: int
    failed: int
    frees_in: float
    """Seconds until the first of them is a minute old."""


async def lock_user(connection: Connection, user_id: str) -> bool:
    """Holds the user's row until the transaction ends; says whether there is such a user who may log in."""
    cursor = connection.cursor(row_factory=scalar_row)
    await cursor.execute("SELECT 1 FROM users WHERE id = %(id)s AND enabled FOR UPDATE", {"id": user_id})
    return await cursor.fetchone() is not None


async def insert_key(connection: Connection, new: KeyRow, digest: bytes) -> KeyRow:
    """The key as stored; the database sets its time of creation."""
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
    """A row of `api_keys`."""

    digest: bytes


async def keys_by_digests(connection: Connection, digests: Sequence[bytes]) -> list[DigestKeyRow]:
    """The keys that there are of those secrets, also revoked and expired ones."""
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
    """The user's keys that are not revoked, newest first."""
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
    """The digest of the key, revoked now or earlier; None when there is none, or none of that user if one is given."""
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
    """A ticket that was just used up."""

    user_id: str
    key_digest: bytes | None
    ends_at: float | None
    in_time: bool


async def insert_ticket(
    connection: Connection, digest: bytes, user_id: str, key_id: str | None, ends_at: float | None, seconds: int
) -> datetime | None:
    """When the new ticket expires; None when there is no such user, or no such key of theirs."""
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
    """The ticket, which nobody can take again; None when there is none. In time is one that has no more than these
    seconds left either: the clock may have been set back."""
    async with connection.cursor(row_factory=class_row(TicketRow)) as cursor:
        await cursor.execute(
            """
            DELETE FROM stream_tickets WHERE digest = %(digest)s
            RETURNING user_id, key_digest, extract(epoch FROM ends_at)::float8 AS ends_at,
                      expires_at BETWEEN clock_timestamp()
                                     AND clock_timestamp() + make_interval(secs => %(seconds)s) AS in_time
            """,
            {"digest": digest, "seconds": seconds},
        )
        return await cursor.fetchone()


async def delete_expired_tickets(connection: Connection) -> None:
    """Deletes some tickets that expired; skips those that another transaction is deleting."""
    await connection.execute(
        """
        DELETE FROM stream_tickets WHERE digest IN (
            SELECT digest FROM stream_tickets WHERE expires_at < clock_timestamp()
            ORDER BY expires_at LIMIT 100 FOR UPDATE SKIP LOCKED)
        """
    )


async def lock_name(connection: Connection, name_digest: bytes) -> None:
    """Waits for others who count this name's attempts; holds until the transaction ends."""
    await connection.execute(
        "SELECT pg_advisory_xact_lock(hashtext('xzepr login'), %(key)s::int)",
        {"key": int.from_bytes(name_digest[:4], "big", signed=True)},
    )


async def count_attempts(connection: Connection, name_digest: bytes) -> Attempts:
    """The last minute's attempts, and none that a clock that was set back takes to be yet to come. One that is under
    way for 30 s has failed: its server died, or is as good as dead."""
    async with connection.cursor(row_factory=class_row(Attempts)) as cursor:
        await cursor.execute(
            """
            SELECT count(*) FILTER (WHERE NOT over) AS under_way,
                   count(*) FILTER (WHERE over) AS failed,
                   coalesce(60 - extract(epoch FROM clock_timestamp() - min(at)), 0)::float8 AS frees_in
            FROM (SELECT at, failed OR at < clock_timestamp() - interval '30 seconds' AS over
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
    """Notes that a login is under way."""
    await connection.execute(
        "INSERT INTO login_attempts (id, name_digest) VALUES (%(id)s, %(digest)s)", {"id": id, "digest": name_digest}
    )


async def mark_attempt_failed(connection: Connection, id: str) -> None:
    """Notes that the login under way failed."""
    await connection.execute("UPDATE login_attempts SET failed = true WHERE id = %(id)s", {"id": id})


async def delete_attempt(connection: Connection, id: str) -> None:
    """A login that succeeded, or was never tried, counts for nothing."""
    await connection.execute("DELETE FROM login_attempts WHERE id = %(id)s", {"id": id})


async def delete_old_attempts(connection: Connection) -> None:
    """Deletes some attempts that count no more, of any name; skips those that another transaction is deleting."""
    await connection.execute(
        """
        DELETE FROM login_attempts WHERE id IN (
            SELECT id FROM login_attempts WHERE at < clock_timestamp() - interval '2 minutes'
            ORDER BY at LIMIT 100 FOR UPDATE SKIP LOCKED)
        """
    )
