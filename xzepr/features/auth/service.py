"""The use cases of authentication: login, credentials, stream tickets and API keys."""

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from xzepr.core.actor import Actor, ActorKind, Permission, permissions_of
from xzepr.core.clock import now
from xzepr.core.errors import (
    Conflict,
    InvalidCredentials,
    InvalidToken,
    NotFound,
    Overloaded,
    RateLimited,
    TokenExpired,
    Unauthenticated,
)
from xzepr.core.ids import is_id, new_id
from xzepr.core.lru_cache import LRUCache
from xzepr.features.auth import store
from xzepr.features.auth.attempts import LoginLimit
from xzepr.features.auth.model import (
    ApiKey,
    CreatedApiKey,
    LoginRequired,
    NewApiKey,
    Session,
    StreamTicket,
    TicketHolder,
)
from xzepr.features.auth.rules import MAX_KEYS, TICKET_SECONDS, check_new_key, is_api_key, is_stream_ticket
from xzepr.features.auth.tokens import Tokens
from xzepr.features.users.model import User
from xzepr.features.users.rules import fold
from xzepr.features.users.service import CACHE_SECONDS, Users
from xzepr.infra.cache import RepeatedRead, TTLCache
from xzepr.infra.concurrency import BatchLoader
from xzepr.infra.crypto import digest_of, new_api_key, new_stream_ticket
from xzepr.infra.db import Database

_CACHE_SIZE = 10_000  # API keys, and actors
_MAX_LOGINS = 256  # in progress in this process


def _ignore(_outcome: str) -> None:
    """Ignores the outcome of a login."""


class Auth:
    """Authenticates callers, and manages their API keys and stream tickets."""

    def __init__(
        self,
        db: Database,
        users: Users,
        tokens: Tokens,
        *,
        login_failures_per_minute: int,
        observe_login: Callable[[str], None] = _ignore,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`observe_login` is called with the outcome of each login: success, invalid, limited, overloaded or error."""
        self._db = db
        self._users = users
        self._tokens = tokens
        self._limit = LoginLimit(db, login_failures_per_minute)
        self._observe_login = observe_login
        self._keys = TTLCache(
            BatchLoader(RepeatedRead(self._load_keys)).load, seconds=CACHE_SECONDS, size=_CACHE_SIZE, clock=clock
        )
        self._actors = LRUCache[Hashable, _KnownActor](_CACHE_SIZE)
        self._logins: set[asyncio.Task[Session]] = set()

    async def login(self, username: str, password: str) -> Session:
        """Returns a session. Raises InvalidCredentials, RateLimited or Overloaded, both with `retry_after` in seconds.

        An unknown or disabled user gets the same error after the same work as a wrong password.
        """
        if len(self._logins) >= _MAX_LOGINS:
            self._observe_login("overloaded")
            raise Overloaded("too many logins are in progress", retry_after=1)
        # In a separate task, so that a guess counts even if its caller disconnects.
        task = asyncio.create_task(self._login(fold(username), password))
        self._logins.add(task)
        task.add_done_callback(self._finish_login)
        return await asyncio.shield(task)

    async def _login(self, username: str, password: str) -> Session:
        async with self._limit.attempt(username) as attempt:
            user = await self._users.verify_password(username, password)
            attempt.failed = user is None
        if user is None:
            raise InvalidCredentials()
        token = await asyncio.to_thread(self._tokens.issue, user.id, user.username, user.roles)
        return Session(token.text, token.expires_at, user)

    def _finish_login(self, task: "asyncio.Task[Session]") -> None:
        self._logins.discard(task)
        self._observe_login("error" if task.cancelled() else _outcome(task.exception()))

    async def authenticate(self, credential: str) -> Actor:
        """Returns the actor of an access token or API key, with permissions that are at most 2 s old.

        Raises TokenExpired, or InvalidToken if the credential is unknown, revoked or invalid, or its user is disabled.
        """
        if is_api_key(credential):
            digest = digest_of(credential)
            key = self._keys.cached(digest)
            user = None if key is None else self._users.cached_now(key.user_id)
            if key is None or user is None:
                return await self._key_actor(digest)
            return self._actor_of_key(digest, key, user)
        claims = self._tokens.verify(credential)
        user = self._users.cached_now(claims.user_id)
        if user is None:
            return await self._token_actor(claims.user_id, claims.expires_at)
        return self._actor_of_token(user, claims.expires_at)

    async def _token_actor(self, user_id: str, ends_at: float | None) -> Actor:
        return self._actor_of_token(await self._existing_user(user_id), ends_at)

    async def _key_actor(self, digest: bytes) -> Actor:
        key = await self._keys.get(digest)
        if key is None:
            raise InvalidToken()
        _check_key(key)  # also before the lookup of the user
        return self._actor_of_key(digest, key, await self._existing_user(key.user_id))

    async def _existing_user(self, user_id: str) -> User:
        user = await self._users.cached(user_id)
        if user is None:
            raise InvalidToken()
        return user

    def _actor_of_token(self, user: User, ends_at: float | None) -> Actor:
        """Returns the actor of a token. Raises InvalidToken if its user is disabled."""
        if not user.enabled:
            raise InvalidToken()
        known = self._actors.get((user.id, ends_at))
        if known is None or known.user is not user:
            actor = Actor(ActorKind.USER, user.id, user.username, permissions_of(user.roles), ends_at=ends_at)
            known = _KnownActor(None, user, actor)
            self._actors.put((user.id, ends_at), known)
        return known.actor

    def _actor_of_key(self, digest: bytes, key: ApiKey, user: User) -> Actor:
        """Returns the actor of an API key. Raises InvalidToken if it is no longer valid, or its user is disabled."""
        _check_key(key)
        if not user.enabled:
            raise InvalidToken()
        known = self._actors.get(digest)
        if known is None or known.key is not key or known.user is not user:
            known = _KnownActor(key, user, _new_actor_of_key(key, user))
            self._actors.put(digest, known)
        return known.actor

    async def create_stream_ticket(self, actor: Actor) -> StreamTicket:
        """Returns a ticket that opens one event stream of the actor within 30 s, in any process.

        The ticket may be part of a URL, because it can be used only once. Raises Unauthenticated, or InvalidToken if
        the user or the API key no longer exists.
        """
        actor.require_authenticated()
        ticket = new_stream_ticket()
        async with self._db.write() as connection:
            expires_at = await store.insert_ticket(
                connection, digest_of(ticket), actor.id, actor.key_id, actor.ends_at, TICKET_SECONDS
            )
            await store.delete_expired_tickets(connection)
        if expires_at is None:
            raise InvalidToken()
        return StreamTicket(ticket, expires_at)

    async def redeem_stream_ticket(self, ticket: str) -> TicketHolder:
        """Returns the holder of a ticket and makes the ticket invalid. Raises InvalidToken."""
        error = InvalidToken("the stream ticket is not valid, was used, or has expired: request a new one")
        if not is_stream_ticket(ticket):
            raise error
        async with self._db.write() as connection:
            row = await store.delete_ticket(connection, digest_of(ticket), TICKET_SECONDS)
        if row is None or not row.is_valid:
            raise error
        return TicketHolder(row.user_id, row.key_digest, row.ends_at)

    async def actor_by_ticket(self, holder: TicketHolder) -> Actor:
        """Returns the actor of a redeemed ticket. Raises as `authenticate` does for the holder's token or API key."""
        if holder.key_digest is not None:
            return await self._key_actor(holder.key_digest)
        if holder.ends_at is not None and holder.ends_at <= time.time():
            raise TokenExpired()
        return await self._token_actor(holder.user_id, holder.ends_at)

    async def create_api_key(self, actor: Actor, new: NewApiKey) -> CreatedApiKey:
        """Creates a key that acts for the actor, and returns it with its secret, which cannot be read again.

        The actor must have logged in, because a leaked key could otherwise create its own successor. A user can grant
        only permissions that the user has. Raises Unauthenticated, Forbidden, InvalidInput, or Conflict at 100 keys.
        """
        _require_login(actor)
        for permission in new.permissions or ():
            actor.must(permission)
        check_new_key(new, now())
        secret = new_api_key()
        permissions = None
        if new.permissions is not None:
            permissions = [str(permission) for permission in dict.fromkeys(new.permissions)]
        row = store.KeyRow(new_id(), actor.id, new.name, permissions, now(), new.expires_at, None)
        async with self._db.write() as connection:
            if not await store.lock_user(connection, actor.id):
                raise InvalidToken()
            if len(await store.keys_of(connection, actor.id)) >= MAX_KEYS:
                raise Conflict(f"you have {MAX_KEYS} API keys: revoke one first")
            stored = await store.insert_key(connection, row, digest_of(secret))
        return CreatedApiKey(stored.key(), secret)

    async def revoke_api_key(self, actor: Actor, id: str) -> None:
        """Revokes one of the actor's keys, or with `user:manage` a key of any user. A revoked key stays revoked.

        This process rejects the key at once, every other process within 5 s. Raises Unauthenticated, Forbidden or
        NotFound.
        """
        can_manage = actor.may(Permission.USER_MANAGE)
        if not can_manage:
            _require_login(actor)
        if not is_id(id):
            raise NotFound("API key", id)
        async with self._db.write() as connection:
            digest = await store.revoke_key(connection, id, None if can_manage else actor.id)
        if digest is None:
            raise NotFound("API key", id)
        self._keys.forget(digest)

    async def api_keys(self, actor: Actor) -> list[ApiKey]:
        """Returns the actor's keys that are not revoked, newest first."""
        actor.require_authenticated()
        async with self._db.read() as connection:
            return [row.key() for row in await store.keys_of(connection, actor.id)]

    async def _load_keys(self, digests: Sequence[bytes]) -> dict[bytes, ApiKey]:
        # On a reserved connection: a user that keeps all others busy must not delay the check for a revoked key.
        async with self._db.read_reserved() as connection:
            return {row.digest: row.key() for row in await store.keys_by_digests(connection, digests)}


@dataclass(frozen=True, slots=True)
class _KnownActor:
    """An actor, and the objects from which it was made. A lookup that reads them again makes other objects."""

    key: ApiKey | None
    user: User
    actor: Actor


def _check_key(key: ApiKey) -> None:
    if key.revoked_at is not None:
        raise InvalidToken()
    if key.expires_at is not None and key.expires_at <= now():
        raise InvalidToken("the API key has expired")


def _new_actor_of_key(key: ApiKey, user: User) -> Actor:
    permissions = permissions_of(user.roles)
    if key.permissions is not None:
        permissions &= frozenset(key.permissions)
    return Actor(ActorKind.API_KEY, user.id, user.username, permissions, key.id)


def _require_login(actor: Actor) -> None:
    if actor.kind is ActorKind.ANONYMOUS:
        raise Unauthenticated()
    if actor.kind is not ActorKind.USER:
        raise LoginRequired()


def _outcome(error: BaseException | None) -> str:
    match error:
        case None:
            return "success"
        case InvalidCredentials():
            return "invalid"
        case RateLimited():
            return "limited"
        case Overloaded():
            return "overloaded"
        case _:
            return "error"
