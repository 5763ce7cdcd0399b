"""Logging in, knowing who presents a credential, and API keys."""

import asyncio
import time
from collections.abc import Callable, Sequence

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

_CACHE_SIZE = 10_000
_MAX_LOGINS = 256


def _ignore(_outcome: str) -> None:
    """For who counts no logins."""


class Auth:
    """Who is asking."""

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
        """`observe_login` hears of each login: success, invalid, limited, overloaded or error."""
        self._db = db
        self._users = users
        self._tokens = tokens
        self._limit = LoginLimit(db, login_failures_per_minute)
        self._observe_login = observe_login
        self._keys = TTLCache(
            BatchLoader(RepeatedRead(self._load_keys)).load, seconds=CACHE_SECONDS, size=_CACHE_SIZE, clock=clock
        )
        self._logins: set[asyncio.Task[Session]] = set()

    async def login(self, username: str, password: str) -> Session:
        """A session for the user; raises InvalidCredentials, RateLimited (retry_after in seconds) or Overloaded.

        A user who does not exist and one who is disabled get the answer, and take the work, of a wrong password.
        """
        if len(self._logins) >= _MAX_LOGINS:
            self._observe_login("overloaded")
            raise Overloaded("too many logins are under way", retry_after=1)
        # A task of its own: a guess is counted also when its caller hangs up.
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
        """Who presents this access token or API key, with what they may do now (at most 2 s ago, in every process).

        Raises TokenExpired, or InvalidToken for whatever else is not, or no longer, good here.
        """
        if is_api_key(credential):
            return await self._key_actor(digest_of(credential))
        claims = self._tokens.verify(credential)
        return await self._token_actor(claims.user_id, claims.expires_at)

    async def _token_actor(self, user_id: str, ends_at: float | None) -> Actor:
        user = await self._enabled_user(user_id)
        return Actor(ActorKind.USER, user.id, user.username, permissions_of(user.roles), ends_at=ends_at)

    async def _key_actor(self, digest: bytes) -> Actor:
        key = await self._keys.get(digest)
        if key is None or key.revoked_at is not None:
            raise InvalidToken()
        if key.expires_at is not None and key.expires_at <= now():
            raise InvalidToken("the API key has expired")
        user = await self._enabled_user(key.user_id)
        permissions = permissions_of(user.roles)
        if key.permissions is not None:
            permissions &= frozenset(key.permissions)
        return Actor(ActorKind.API_KEY, user.id, user.username, permissions, key.id)

    async def _enabled_user(self, user_id: str) -> User:
        user = await self._users.cached(user_id)
        if user is None or not user.enabled:
            raise InvalidToken()
        return user

    async def create_stream_ticket(self, actor: Actor) -> StreamTicket:
        """What opens one event stream for the actor within 30 s, in any process; it may stand in an address."""
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
        """Who asked for the ticket, which is good for nothing after that. Raises InvalidToken."""
        refusal = InvalidToken("the stream ticket is not valid, was used, or is too old: ask for another")
        if not is_stream_ticket(ticket):
            raise refusal
        async with self._db.write() as connection:
            row = await store.delete_ticket(connection, digest_of(ticket), TICKET_SECONDS)
        if row is None or not row.in_time:
            raise refusal
        return TicketHolder(row.user_id, row.key_digest, row.ends_at)

    async def actor_by_ticket(self, holder: TicketHolder) -> Actor:
        """Whom a redeemed ticket stands for now; raises as `authenticate` does for the holder's token or key."""
        if holder.key_digest is not None:
            return await self._key_actor(holder.key_digest)
        if holder.ends_at is not None and holder.ends_at <= time.time():
            raise TokenExpired()
        return await self._token_actor(holder.user_id, holder.ends_at)

    async def create_api_key(self, actor: Actor, new: NewApiKey) -> CreatedApiKey:
        """A key that acts for the actor; its secret cannot be had again.

        Only a user who logged in makes keys (else a key that leaked could outlive its own revocation), and only with
        permissions that they have. Raises Forbidden, InvalidInput, or Conflict when they have a hundred keys.
        """
        _require_login(actor)
        for permission in new.permissions or ():
            actor.must(permission)
        check_new_key(new, now())
        secret = new_api_key()
        narrowed = None if new.permissions is None else [str(p) for p in dict.fromkeys(new.permissions)]
        row = store.KeyRow(new_id(), actor.id, new.name, narrowed, now(), new.expires_at, None)
        async with self._db.write() as connection:
            if not await store.lock_user(connection, actor.id):
                raise InvalidToken()
            if len(await store.keys_of(connection, actor.id)) >= MAX_KEYS:
                raise Conflict(f"you have {MAX_KEYS} API keys: revoke one first")
            stored = await store.insert_key(connection, row, digest_of(secret))
        return CreatedApiKey(stored.key(), secret)

    async def revoke_api_key(self, actor: Actor, id: str) -> None:
        """Ends a key of the actor's own, with user:manage anybody's; again is no error. Raises NotFound, Forbidden.

        This process refuses the key at once, every other within 5 s.
        """
        manages = actor.may(Permission.USER_MANAGE)
        if not manages:
            _require_login(actor)
        if not is_id(id):
            raise NotFound("API key", id)
        async with self._db.write() as connection:
            digest = await store.revoke_key(connection, id, None if manages else actor.id)
        if digest is None:
            raise NotFound("API key", id)
        self._keys.forget(digest)

    async def api_keys(self, actor: Actor) -> list[ApiKey]:
        """The actor's own keys that are not revoked, newest first."""
        actor.require_authenticated()
        async with self._db.read() as connection:
            return [row.key() for row in await store.keys_of(connection, actor.id)]

    async def _load_keys(self, digests: Sequence[bytes]) -> dict[bytes, ApiKey]:
        # Who keeps all connections busy must not keep the hub from noticing that their key is revoked.
        async with self._db.read_reserved() as connection:
            return {row.digest: row.key() for row in await store.keys_by_digests(connection, digests)}


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
