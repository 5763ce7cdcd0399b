"""Sessions: how often credentials are checked, whatever the number of connections that use them."""

import asyncio
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace

from tests.support.hub import until
from xzepr.api.auth import Credential
from xzepr.api.graphql_server.sessions import ConnectionSession, Sessions
from xzepr.core.actor import Actor, ActorKind, Permission
from xzepr.core.errors import InvalidToken, TokenExpired, Unavailable
from xzepr.features.auth.model import TicketHolder

SECONDS = 20
ADA = Actor(ActorKind.USER, "01ADA", "ada", frozenset({Permission.EVENT_READ}))


class FakeAuthenticator:
    """Authenticates secrets with the results that a test sets, and records each lookup."""

    def __init__(self) -> None:
        self.results: dict[str, Actor | Exception | None] = {}
        self.lookups: list[str] = []

    async def __call__(self, secret: str) -> Actor:
        """Returns the actor or raises the error of a secret. Never returns if its result is None."""
        self.lookups.append(secret)
        await asyncio.sleep(0)  # stands for the query to the database
        result = self.results.get(secret, ADA)
        if isinstance(result, Exception):
            raise result
        if result is None:
            await asyncio.Event().wait()
        return ADA if result is None else result

    async def redeem_stream_ticket(self, ticket: str) -> TicketHolder:
        """Rejects every ticket."""
        raise InvalidToken()

    async def actor_by_ticket(self, holder: TicketHolder) -> Actor:
        """Rejects every ticket."""
        raise InvalidToken()


def open_without_lookup(sessions: Sessions, stack: ExitStack, secrets: Iterable[str]) -> list[ConnectionSession]:
    """Opens sessions without a lookup, before the first round begins."""
    return [stack.enter_context(sessions.open(sessions.authenticated(Credential(secret), ADA))) for secret in secrets]


async def open_session(sessions: Sessions, stack: ExitStack, secret: str) -> ConnectionSession:
    """Opens a session after one lookup of its secret."""
    return stack.enter_context(sessions.open(await sessions.authenticate(Credential(secret))))


async def test_shared_credential_costs_one_lookup_per_round() -> None:
    authenticator = FakeAuthenticator()
    sessions = Sessions(authenticator, authenticator, interval_seconds=0.01)
    with ExitStack() as stack:
        proof = await sessions.authenticate(Credential("one"))
        many = [stack.enter_context(sessions.open(proof)) for _ in range(1000)]
        await until(lambda: len(authenticator.lookups) >= 4)
        assert not any(session.ended.done() for session in many)
        authenticator.results["one"] = InvalidToken()
        lookups = len(authenticator.lookups)
        await asyncio.gather(*(session.ended for session in many))
        assert len(authenticator.lookups) <= lookups + 2


async def test_no_lookups_without_connections() -> None:
    authenticator = FakeAuthenticator()
    sessions = Sessions(authenticator, authenticator, interval_seconds=0)
    with ExitStack() as stack:
        await open_session(sessions, stack, "one")
        await until(lambda: len(authenticator.lookups) > 2)
    for _ in range(5):  # lets lookups end that had already begun
        await asyncio.sleep(0)
    lookups = len(authenticator.lookups)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(authenticator.lookups) == lookups


async def test_expired_token_is_noticed_beside_slow_lookups() -> None:
    authenticator = FakeAuthenticator()
    authenticator.results |= {f"slow {n}": None for n in range(200)}
    authenticator.results["expired"] = TokenExpired()
    sessions = Sessions(authenticator, authenticator, interval_seconds=0, timeout_seconds=0.2)
    with ExitStack() as stack:
        *waiting, expired = open_without_lookup(sessions, stack, authenticator.results)
        async with asyncio.timeout(SECONDS):  # sequential lookups would take 40 s
            assert isinstance(await expired.ended, TokenExpired)
        assert authenticator.lookups.count("expired") == 1
        await until(lambda: authenticator.lookups.count("slow 199") > 1)  # a hanging lookup is abandoned and repeated
        assert not any(session.ended.done() for session in waiting)


async def test_session_ends_only_when_permissions_shrink() -> None:
    authenticator = FakeAuthenticator()
    sessions = Sessions(authenticator, authenticator, interval_seconds=0)
    with ExitStack() as stack:
        session = await open_session(sessions, stack, "one")
        authenticator.results["one"] = more = replace(ADA, permissions=frozenset(Permission))
        await until(lambda: session.actor == more)
        assert not session.ended.done()
        authenticator.results["one"] = ADA
        assert isinstance(await session.ended, InvalidToken)


async def test_unavailable_database_ends_no_session() -> None:
    authenticator = FakeAuthenticator()
    sessions = Sessions(authenticator, authenticator, interval_seconds=0)
    with ExitStack() as stack:
        session = await open_session(sessions, stack, "one")
        for error in (Unavailable("the database cannot be reached"), RuntimeError("internal error")):
            authenticator.results["one"] = error
            lookups = len(authenticator.lookups)
            await until(lambda since=lookups: len(authenticator.lookups) > since + 2)
            assert not session.ended.done()


async def test_hanging_lookup_does_not_delay_other_lookups() -> None:
    authenticator = FakeAuthenticator()
    authenticator.results |= {f"key {n}": InvalidToken() for n in (1, 150, 999)}
    authenticator.results["key 0"] = None
    sessions = Sessions(authenticator, authenticator, interval_seconds=0, timeout_seconds=60)
    with ExitStack() as stack:
        many = open_without_lookup(sessions, stack, [f"key {n}" for n in range(1000)])
        async with asyncio.timeout(SECONDS):
            await asyncio.gather(*(many[n].ended for n in (1, 150, 999)))
        assert [authenticator.lookups.count(f"key {n}") for n in (0, 1, 150, 999)] == [1, 1, 1, 1]
        assert sum(session.ended.done() for session in many) == 3


async def test_hanging_lookups_do_not_hide_an_expired_token() -> None:
    authenticator = FakeAuthenticator()
    authenticator.results |= {f"slow {n}": None for n in range(5000)}
    authenticator.results["expired"] = TokenExpired()
    sessions = Sessions(authenticator, authenticator, interval_seconds=0.1, timeout_seconds=1)
    with ExitStack() as stack:
        *_, expired = open_without_lookup(sessions, stack, authenticator.results)
        async with asyncio.timeout(25):  # lookups in groups of one hundred would take 50 s
            assert isinstance(await expired.ended, TokenExpired)
