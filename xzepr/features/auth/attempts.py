"""The limit on failed logins of one user name within a minute, exact over all servers."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from xzepr.core.errors import Overloaded, RateLimited
from xzepr.core.ids import new_id
from xzepr.core.lru_cache import LRUCache
from xzepr.features.auth import store
from xzepr.infra.db import Database

_SLOT_TIMEOUT_SECONDS = 3.0
_POLL_SECONDS = 0.05
_MAX_CONNECTIONS = 4
_CACHE_SIZE = 10_000  # user names


@dataclass(slots=True)
class Attempt:
    """A login in progress. Set `failed` inside its context if the user name or the password is wrong."""

    id: str
    failed: bool = False


class LoginLimit:
    """Allows or rejects attempts to log in. An attempt holds a slot of its user name until the login ends."""

    def __init__(self, db: Database, failures_per_minute: int) -> None:
        """`failures_per_minute` is the number of failed logins of one name after which the next are rejected."""
        self._db = db
        self._max_failures = failures_per_minute
        # Logins that wait for the lock of one name must not use up the connections of the pool.
        self._connections = asyncio.Semaphore(_MAX_CONNECTIONS)
        self._limited_until = LRUCache[bytes, float](_CACHE_SIZE)

    @asynccontextmanager
    async def attempt(self, folded_name: str) -> AsyncGenerator[Attempt]:
        """Takes a slot of the name, and releases it at the end unless the attempt failed.

        Raises RateLimited, or Overloaded if all slots stay taken for 3 s. Many guesses at once compute no more hashes
        than there are slots, because a password is hashed only with a slot. Many correct logins at once, such as those
        of a fleet of pipelines with one user, wait for each other and all succeed.
        """
        attempt = await self._take_slot(_digest(folded_name))
        try:
            yield attempt
        finally:
            async with self._db.write() as connection:
                finish = store.mark_attempt_failed if attempt.failed else store.delete_attempt
                await finish(connection, attempt.id)

    async def _take_slot(self, name_digest: bytes) -> Attempt:
        deadline = _now() + _SLOT_TIMEOUT_SECONDS
        while True:
            self._check_cached_limit(name_digest)
            async with self._connections:
                attempt = await self._try_slot(name_digest)
            if attempt is not None:
                return attempt
            if _now() >= deadline:
                raise Overloaded("too many logins of this user are in progress", retry_after=1)
            await asyncio.sleep(_POLL_SECONDS)

    async def _try_slot(self, name_digest: bytes) -> Attempt | None:
        """Returns a slot, or None while other logins, which may yet succeed, hold all slots. Raises RateLimited."""
        async with self._db.write() as connection:
            await store.lock_name(connection, name_digest)
            attempts = await store.count_attempts(connection, name_digest)
            if attempts.failed >= self._max_failures:
                self._limited_until.put(name_digest, _now() + attempts.retry_after)
                raise _rate_limited(attempts.retry_after)
            if attempts.failed + attempts.in_progress >= self._max_failures:
                return None
            attempt = Attempt(new_id())
            await store.add_attempt(connection, attempt.id, name_digest)
            await store.delete_old_attempts(connection)
            return attempt

    def _check_cached_limit(self, name_digest: bytes) -> None:
        # Once a name has reached its limit, more guesses cost the database nothing.
        seconds_left = (self._limited_until.get(name_digest) or 0.0) - _now()
        if seconds_left > 0:
            raise _rate_limited(seconds_left)
        self._limited_until.pop(name_digest)


def _rate_limited(seconds: float) -> RateLimited:
    return RateLimited("too many failed logins of this user", retry_after=max(1.0, seconds))


def _now() -> float:
    return asyncio.get_running_loop().time()


def _digest(name: str) -> bytes:
    # A digest has a fixed length, whatever a client sends as a name, and keeps the name out of the table.
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
