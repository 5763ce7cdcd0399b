"""Sessions: how often credentials are asked for again, whatever the number of connections that present them."""

import asyncio
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace

from tests.support.hub import until
from xzepr.api.auth import Credential
from xzepr.api.graphql.sessions import Session, Sessions
from xzepr.core.actor import Actor, ActorKind, Permission
from xzepr.core.errors import InvalidToken, TokenExpired, Unavailable
from xzepr.features.auth.model import TicketHolder

SECONDS = 20
ADA = Actor(ActorKind.USER, "01ADA", "ada", frozenset({Permission.EVENT_READ}))


class Authority:
    """Says who presents a secret; `answer` may be changed, and `asked` counts."""

    def __init__(self) -> None:
        self.answer: dict[str, Actor | Exception | None] = {}
        self.asked: list[str] = []

    async def __call__(self, secret: str) -> Actor:
        """The actor, an error, or nothing for ever."""
        self.asked.append(secret)
        await asyncio.sleep(0)  # it is looked up
        answer = self.answer.get(secret, ADA)
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            await asyncio.Event().wait()
        return ADA if answer is None else answer

    async def redeem_stream_ticket(self, ticket: str) -> TicketHolder:
        """Nobody's."""
        raise InvalidToken()

    async def actor_by_ticket(self, holder: TicketHolder) -> Actor:
        """Nobody."""
        raise InvalidToken()


def opened_at_once(sessions: Sessions, held: ExitStack, secrets: Iterable[str]) -> list[Session]:
    """Without asking the authority, and before a round begins."""
    return [held.enter_context(sessions.open(sessions.proven(Credential(secret), ADA))) for secret in secrets]


async def opened(sessions: Sessions, held: ExitStack, secret: str) -> Session:
    return held.enter_context(sessions.open(await sessions.prove(Credential(secret))))


async def test_shared_credential_costs_one_lookup_per_round() -> None:
    authority = Authority()
    sessions = Sessions(authority, authority, round_seconds=0.01)
    with ExitStack() as held:
        proof = await sessions.prove(Credential("one"))
        many = [held.enter_context(sessions.open(proof)) for _ in range(1000)]
        await until(lambda: len(authority.asked) >= 4)
        assert not any(session.over.done() for session in many)
        authority.answer["one"] = InvalidToken()
        asked = len(authority.asked)
        await asyncio.gather(*(session.over for session in many))
        assert len(authority.asked) <= asked + 2


async def test_no_lookups_without_connections() -> None:
    authority = Authority()
    sessions = Sessions(authority, authority, round_seconds=0)
    with ExitStack() as held:
        await opened(sessions, held, "one")
        await until(lambda: len(authority.asked) > 2)
    for _ in range(5):  # what was on its way
        await asyncio.sleep(0)
    asked = len(authority.asked)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(authority.asked) == asked


async def test_expired_token_is_noticed_beside_slow_lookups() -> None:
    authority = Authority()
    authority.answer |= {f"slow {n}": None for n in range(200)}
    authority.answer["expired"] = TokenExpired()
    sessions = Sessions(authority, authority, round_seconds=0, patience_seconds=0.2)
    with ExitStack() as held:
        *waiting, expired = opened_at_once(sessions, held, authority.answer)
        async with asyncio.timeout(SECONDS):  # one after the other it would be 40 s
            assert isinstance(await expired.over, TokenExpired)
        assert authority.asked.count("expired") == 1
        await until(lambda: authority.asked.count("slow 199") > 1)  # nobody's patience is endless
        assert not any(session.over.done() for session in waiting)


async def test_session_ends_only_when_permissions_shrink() -> None:
    authority = Authority()
    sessions = Sessions(authority, authority, round_seconds=0)
    with ExitStack() as held:
        session = await opened(sessions, held, "one")
        authority.answer["one"] = more = replace(ADA, permissions=frozenset(Permission))
        await until(lambda: session.actor == more)
        assert not session.over.done()
        authority.answer["one"] = ADA
        assert isinstance(await session.over, InvalidToken)


async def test_unavailable_database_ends_no_session() -> None:
    authority = Authority()
    sessions = Sessions(authority, authority, round_seconds=0)
    with ExitStack() as held:
        session = await opened(sessions, held, "one")
        for trouble in (Unavailable("away"), RuntimeError("our own fault")):
            authority.answer["one"] = trouble
            asked = len(authority.asked)
            await until(lambda since=asked: len(authority.asked) > since + 2)
            assert not session.over.done()


async def test_hanging_lookup_does_not_delay_other_lookups() -> None:
    authority = Authority()
    authority.answer |= {f"key {n}": InvalidToken() for n in (1, 150, 999)}
    authority.answer["key 0"] = None
    sessions = Sessions(authority, authority, round_seconds=0, patience_seconds=60)
    with ExitStack() as held:
        many = opened_at_once(sessions, held, [f"key {n}" for n in range(1000)])
        async with asyncio.timeout(SECONDS):
            await asyncio.gather(*(many[n].over for n in (1, 150, 999)))
        assert [authority.asked.count(f"key {n}") for n in (0, 1, 150, 999)] == [1, 1, 1, 1]
        assert sum(session.over.done() for session in many) == 3


async def test_hanging_lookups_do_not_hide_an_expired_token() -> None:
    authority = Authority()
    authority.answer |= {f"slow {n}": None for n in range(5000)}
    authority.answer["expired"] = TokenExpired()
    sessions = Sessions(authority, authority, round_seconds=0.1, patience_seconds=1)
    with ExitStack() as held:
        *_, expired = opened_at_once(sessions, held, authority.answer)
        async with asyncio.timeout(25):  # one hundred after the other it would be 50 s
            assert isinstance(await expired.over, TokenExpired)
