"""The sessions of open connections, whose credentials are checked again every second.

One loop per process checks each distinct credential once, however many connections use it: thousands of sockets of one
dashboard cost one lookup. Since `authenticate` may return cached results up to 2 s old, an invalid credential is
noticed within 5 s.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog

from xzepr.api.auth import Authenticate, Credential
from xzepr.core.actor import ANONYMOUS, Actor
from xzepr.core.errors import InvalidToken, Problem
from xzepr.features.auth.model import TicketHolder

_log = structlog.stdlib.get_logger(__name__)

_CHECK_INTERVAL_SECONDS = 1.0
_CHECK_TIMEOUT_SECONDS = 1.0  # of the lookup of one credential
_BATCH_SIZE = 100  # credentials checked together: `authenticate` looks them up with one statement, which stays short
_BATCH_INTERVAL_SECONDS = 0.02  # after which the next batch starts, even if a lookup of this one hangs

# Returns the current actor of a credential. Raises InvalidToken if the credential is no longer valid.
CheckCredential = Callable[[], Awaitable[Actor]]


class Tickets(Protocol):
    """Verifies tickets, each of which opens one event stream."""

    async def redeem_stream_ticket(self, ticket: str) -> TicketHolder:
        """Returns the holder of a ticket, which cannot be used again. Raises InvalidToken."""
        ...

    async def actor_by_ticket(self, holder: TicketHolder) -> Actor:
        """Returns the current actor of a redeemed ticket. Raises InvalidToken or TokenExpired."""
        ...


@dataclass(frozen=True, slots=True)
class AuthenticatedCredential:
    """A verified credential: its actor at that time, and a function that checks it again.

    `key` is equal for equal credentials.
    """

    actor: Actor
    key: Hashable
    check: CheckCredential


class ConnectionSession:
    """The session of one connection: its credential and the credential's current actor."""

    __slots__ = ("actor", "credential", "ended")

    def __init__(self, credential: AuthenticatedCredential | None) -> None:
        self.actor = ANONYMOUS if credential is None else credential.actor
        self.credential = credential
        self.ended: asyncio.Future[InvalidToken] = asyncio.get_running_loop().create_future()
        """Done once the credential is no longer valid; the result is the reason."""

    def update(self, actor: Actor) -> None:
        """Sets the credential's current actor. Ends the session if the actor has lost permissions.

        Running operations were authorised with the permissions of their start.
        """
        if actor.id != self.actor.id or not actor.permissions >= self.actor.permissions:
            return self.end(InvalidToken("your permissions have changed: connect again"))
        self.actor = actor
        return None

    def end(self, reason: InvalidToken) -> None:
        """Ends the session, if it has not ended yet."""
        if not self.ended.done():
            self.ended.set_result(reason)


class Sessions:
    """The sessions of one process. A loop checks their credentials while any session has one."""

    def __init__(
        self,
        authenticate: Authenticate,
        tickets: Tickets,
        *,
        interval_seconds: float = _CHECK_INTERVAL_SECONDS,
        timeout_seconds: float = _CHECK_TIMEOUT_SECONDS,
    ) -> None:
        """All credentials are checked again `interval_seconds` after the last check; a lookup has `timeout_seconds`."""
        self._authenticate = authenticate
        self._tickets = tickets
        self._interval_seconds = interval_seconds
        self._timeout_seconds = timeout_seconds
        self._open_sessions: dict[Hashable, tuple[AuthenticatedCredential, set[ConnectionSession]]] = {}
        self._loop: asyncio.Task[None] | None = None

    async def authenticate(self, credential: Credential | None) -> AuthenticatedCredential | None:
        """Verifies a credential; returns None if it is None. Raises InvalidToken, TokenExpired or another Problem."""
        if credential is None:
            return None
        return self.authenticated(credential, await self._authenticate(credential.secret))

    def authenticated(self, credential: Credential, actor: Actor) -> AuthenticatedCredential:
        """Returns a credential that was just verified to belong to this actor."""
        return AuthenticatedCredential(actor, credential.secret, lambda: self._authenticate(credential.secret))

    async def authenticate_ticket(self, ticket: str) -> AuthenticatedCredential:
        """Redeems a ticket, which cannot be used again. Raises InvalidToken or TokenExpired."""
        holder = await self._tickets.redeem_stream_ticket(ticket)
        check = partial(self._tickets.actor_by_ticket, holder)
        return AuthenticatedCredential(await check(), holder, check)

    def open(self, credential: AuthenticatedCredential | None) -> AbstractContextManager[ConnectionSession]:
        """Opens a session while a block runs, and checks its credential. None opens an anonymous session."""
        return _OpenSession(self, ConnectionSession(credential))

    def reauthenticate(self, session: ConnectionSession, credential: AuthenticatedCredential) -> None:
        """Continues a session with another credential of the same user.

        Raises InvalidToken if it belongs to another user or has fewer permissions, because running operations were
        authorised with those of the first credential.
        """
        actor = session.actor
        if credential.actor.id != actor.id or not credential.actor.permissions >= actor.permissions:
            raise InvalidToken("the new credential must be of the same user, with at least the same permissions")
        self.unwatch(session)
        session.credential, session.actor = credential, credential.actor
        self.watch(session)

    def watch(self, session: ConnectionSession) -> None:
        """Checks the credential of a session from now on."""
        if (proof := session.credential) is None:
            return
        self._open_sessions.setdefault(proof.key, (proof, set()))[1].add(session)
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._check_periodically())

    def unwatch(self, session: ConnectionSession) -> None:
        """Ends the checks of a session."""
        if session.credential is None or (entry := self._open_sessions.get(session.credential.key)) is None:
            return
        _, sessions = entry
        sessions.discard(session)
        if not sessions:
            del self._open_sessions[session.credential.key]
        if not self._open_sessions and self._loop is not None:
            self._loop.cancel()
            self._loop = None

    async def _check_periodically(self) -> None:
        while True:
            await asyncio.sleep(self._interval_seconds)
            await self._check_all()

    async def _check_all(self) -> None:
        entries = list(self._open_sessions.values())
        async with asyncio.TaskGroup() as batches:
            for start in range(0, len(entries), _BATCH_SIZE):
                batch = batches.create_task(self._check_batch(entries[start : start + _BATCH_SIZE]))
                await asyncio.wait([batch], timeout=_BATCH_INTERVAL_SECONDS)

    async def _check_batch(self, entries: Sequence[tuple[AuthenticatedCredential, set[ConnectionSession]]]) -> None:
        await asyncio.gather(*(self._check(credential, sessions) for credential, sessions in entries))

    async def _check(self, credential: AuthenticatedCredential, sessions: set[ConnectionSession]) -> None:
        """Checks one credential and updates or ends its sessions.

        Sessions stay open if the check fails, for example because the database is down. An expired token is recognised
        without the database.
        """
        try:
            async with asyncio.timeout(self._timeout_seconds):
                actor = await credential.check()
        except InvalidToken as reason:
            for session in list(sessions):
                session.end(reason)
        except (Problem, TimeoutError):
            return
        except Exception:
            _log.exception("the check of a connection's credential failed")
        else:
            for session in list(sessions):
                session.update(actor)


class _OpenSession:
    """Watches a session while a block runs."""

    __slots__ = ("_session", "_sessions")

    def __init__(self, sessions: Sessions, session: ConnectionSession) -> None:
        self._sessions = sessions
        self._session = session

    def __enter__(self) -> ConnectionSession:
        self._sessions.watch(self._session)
        return self._session

    def __exit__(self, *_: object) -> None:
        self._sessions.unwatch(self._session)
