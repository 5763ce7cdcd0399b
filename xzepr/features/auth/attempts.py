"""Limits the failed logins of one name within a minute: exact over all servers, checked before a hash is computed."""

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
_CACHE_SIZE = 10_000


@dataclass(slots=True)
class Attempt:
    """A login under way; set `failed` before leaving its context if user name and password did not fit."""

    id: str
    failed: bool = False


class LoginLimit:
    """Lets logins through, or refuses them."""

    def __init__(self, db: Database, failures_per_minute: int) -> None:
        """`failures_per_minute` is the number of failed logins of one name after which the next are rejected."""
        self._db = db
        self._max_failures = failures_per_minute
        # Those who wait for one name's lock must leave the pool's other connections to other work.
        self._connections = asyncio.Semaphore(_MAX_CONNECTIONS)
        self._limited_until = LRUCache[bytes, float](_CACHE_SIZE)

    @asynccontextmanager
    async def attempt(self, folded_name: str) -> AsyncGenerator[Attempt]:
        """Takes one of the slots of this name and returns it unless the attempt is marked failed. Raises RateLimited.

        The slot is taken before the password is checked. Of many guesses at once, no more are hashed than there are
        slots. Many correct logins at once (a fleet of pipelines with one user) wait for each other and all succeed.
        """
        attempt = await self._take_slot(_digest(folded_name))
        try:
            yield attempt
        finally:
            async with self._db.write() as connection:
                settle = store.mark_attempt_failed if attempt.failed else store.delete_attempt
                await settle(connection, attempt.id)

    async def _take_slot(self, name_digest: bytes) -> Attempt:
        until = _now() + _SLOT_TIMEOUT_SECONDS
        while True:
            self._check_cached_limit(name_digest)
            async with self._connections:
                attempt = await self._try_slot(name_digest)
            if attempt is not None:
                return attempt
            if _now() >= until:
                raise Overloaded("too many logins of this user are under way", retry_after=1)
            await asyncio.sleep(_POLL_SECONDS)

    async def _try_slot(self, name_digest: bytes) -> Attempt | None:
        """A place; or None while other attempts, which may yet succeed, hold them all. Raises RateLimited."""
        async with self._db.write() as connection:
            await store.lock_name(connection, name_digest)
            seen = await store.count_attempts(connection, name_digest)
            if seen.failed >= self._max_failures:
                self._limited_until.put(name_digest, _now() + seen.frees_in)
                raise _rate_limited(seen.frees_in)
            if seen.failed + seen.under_way >= self._max_failures:
                return None
            attempt = Attempt(new_id())
            await store.add_attempt(connection, attempt.id, name_digest)
            await store.delete_old_attempts(connection)
            return attempt

    def _check_cached_limit(self, name_digest: bytes) -> None:
        # A flood of guesses for one name costs the database nothing once it has said no.
        left = (self._limited_until.get(name_digest) or 0.0) - _now()
        if left > 0:
            raise _rate_limited(left)
        self._limited_until.pop(name_digest)


def _rate_limited(seconds: float) -> RateLimited:
    return RateLimited("too many failed logins of this user", retry_after=max(1.0, seconds))


def _now() -> float:
    return asyncio.get_running_loop().time()


def _digest(name: str) -> bytes:
    # A digest has one length, whatever is sent as a name, and says nothing to who reads the table.
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
