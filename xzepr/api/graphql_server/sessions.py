"""Who is at the other end of an open connection, asked again every second for as long as it lasts.

One loop for the whole process asks once for each distinct credential, whatever the number of connections that present
it, so that thousands of sockets of one dashboard cost one look. With answers of `authenticate` that are at most 2 s
old, a connection whose credential holds no longer is known within 5 s.
"""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Hashable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog

from xzepr.api.auth import Authenticate, Credential
from xzepr.core.actor import ANONYMOUS, Actor
from xzepr.core.errors import InvalidToken, Problem
from xzepr.features.auth.model import TicketHolder

_log = structlog.stdlib.get_logger(__name__)

CheckCredential = Callable[[], Awaitable[Actor]]
"""Gives the actor of a credential as of now, or raises InvalidToken when it holds no longer."""


class Tickets(Protocol):
    """Knows the tickets that open one event stream each."""

    async def redeem_stream_ticket(self, ticket: str) -> TicketHolder:
        """Whose it is; it cannot be used again. Raises InvalidToken."""
        ...

    async def actor_by_ticket(self, holder: TicketHolder) -> Actor:
        """Whom a redeemed ticket stands for now. Raises InvalidToken or TokenExpired."""
        ...


_CHECK_INTERVAL_SECONDS = 1.0
_CHECK_TIMEOUT_SECONDS = 1.0
_BATCH_SIZE = 100
"""Credentials that are asked for together: features look them up with one statement, and nobody waits long for them."""
_BATCH_INTERVAL_SECONDS = 0.02
"""The next hundred are asked for as soon as these are answered, and after so long anyway: a look-up that hangs takes
time from nobody but those who are looked up with it."""


@dataclass(frozen=True, slots=True)
class AuthenticatedCredential:
    """What a connection showed: whose it was then, and how to ask again. `key` is equal for equal credentials."""

    actor: Actor
    key: Hashable
    check: CheckCredential


class ConnectionSession:
    """One connection's actor: `actor` is who may ask now, `over` is done with the reason when nobody may any more."""

    def __init__(self, credential: AuthenticatedCredential | None) -> None:
        self.actor = ANONYMOUS if credential is None else credential.actor
        self.credential = credential
        self.ended: asyncio.Future[InvalidToken] = asyncio.get_running_loop().create_future()

    def update(self, actor: Actor) -> None:
        """The credential gives this actor now. One with less than before ends the session: what runs began with it."""
        if actor.id != self.actor.id or not actor.permissions >= self.actor.permissions:
            return self.end(InvalidToken("what you may do has changed: connect again"))
        self.actor = actor
        return None

    def end(self, reason: InvalidToken) -> None:
        """Nobody may ask here any more."""
        if not self.ended.done():
            self.ended.set_result(reason)


class Sessions:
    """The open connections of one process. Its loop runs while there is one that presented a credential."""

    def __init__(
        self,
        authenticate: Authenticate,
        tickets: Tickets,
        *,
        interval_seconds: float = _CHECK_INTERVAL_SECONDS,
        timeout_seconds: float = _CHECK_TIMEOUT_SECONDS,
    ) -> None:
        """A round begins `round_seconds` after the last one ended; it waits `patience_seconds` for each answer."""
        self._authenticate = authenticate
        self._tickets = tickets
        self._interval_seconds = interval_seconds
        self._timeout_seconds = timeout_seconds
        self._open_sessions: dict[Hashable, tuple[AuthenticatedCredential, set[ConnectionSession]]] = {}
        self._loop: asyncio.Task[None] | None = None

    async def authenticate(self, credential: Credential | None) -> AuthenticatedCredential | None:
        """What a credential proves; None without one. Raises what `authenticate` raises."""
        return (
            None if credential is None else self.authenticated(credential, await self._authenticate(credential.secret))
        )

    def authenticated(self, credential: Credential, actor: Actor) -> AuthenticatedCredential:
        """What a credential proves that `authenticate` has just said to be this actor's."""
        return AuthenticatedCredential(actor, credential.secret, lambda: self._authenticate(credential.secret))

    async def authenticate_ticket(self, ticket: str) -> AuthenticatedCredential:
        """What a ticket proves, this once. Raises InvalidToken or TokenExpired."""
        holder = await self._tickets.redeem_stream_ticket(ticket)
        ask = partial(self._tickets.actor_by_ticket, holder)
        return AuthenticatedCredential(await ask(), holder, ask)

    @contextmanager
    def open(self, credential: AuthenticatedCredential | None) -> Generator[ConnectionSession]:
        """A session that is watched while the block lasts; without a proof it is an anonymous one that nothing ends."""
        session = ConnectionSession(credential)
        self._watch(session)
        try:
            yield session
        finally:
            self._unwatch(session)

    def reauthenticate(self, session: ConnectionSession, credential: AuthenticatedCredential) -> None:
        """The session goes on with another credential of the same user. Raises InvalidToken for anybody else's, and
        for one that may do less: what runs began with the rights of the first."""
        actor = session.actor
        if credential.actor.id != actor.id or not credential.actor.permissions >= actor.permissions:
            raise InvalidToken("a connection goes on only with a credential of the same user and the same rights")
        self._unwatch(session)
        session.credential, session.actor = credential, credential.actor
        self._watch(session)

    def _watch(self, session: ConnectionSession) -> None:
        if (proof := session.credential) is None:
            return
        self._open_sessions.setdefault(proof.key, (proof, set()))[1].add(session)
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._check_periodically())

    def _unwatch(self, session: ConnectionSession) -> None:
        if session.credential is None or (held := self._open_sessions.get(session.credential.key)) is None:
            return
        held[1].discard(session)
        if not held[1]:
            del self._open_sessions[session.credential.key]
        if not self._open_sessions and self._loop is not None:
            self._loop.cancel()
            self._loop = None

    async def _check_periodically(self) -> None:
        while True:
            await asyncio.sleep(self._interval_seconds)
            await self._check_all()

    async def _check_all(self) -> None:
        held = list(self._open_sessions.values())
        async with asyncio.TaskGroup() as hundreds:
            for begin in range(0, len(held), _BATCH_SIZE):
                asking = hundreds.create_task(self._check_batch(held[begin : begin + _BATCH_SIZE]))
                await asyncio.wait([asking], timeout=_BATCH_INTERVAL_SECONDS)

    async def _check_batch(self, held: Sequence[tuple[AuthenticatedCredential, set[ConnectionSession]]]) -> None:
        await asyncio.gather(*(self._check(proof, sessions) for proof, sessions in held))

    async def _check(self, credential: AuthenticatedCredential, sessions: set[ConnectionSession]) -> None:
        """Tells the sessions what became of their credential. Nobody is sent away because the database is: but what can
        be known without it, as that a token has expired, is."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                actor = await credential.check()
        except InvalidToken as reason:
            for session in list(sessions):
                session.end(reason)
        except (Problem, TimeoutError):
            return
        except Exception:
            _log.exception("a credential could not be checked again")
        else:
            for session in list(sessions):
                session.update(actor)
