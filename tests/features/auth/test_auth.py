"""Logging in, being known by a token or a key, and ceasing to be."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from tests.support.accounts import PASSWORD, HeldHasher, Server, server, tokens
from xzepr.core.actor import ANONYMOUS, SYSTEM, Actor, ActorKind, Permission, Role, permissions_of
from xzepr.core.clock import now
from xzepr.core.errors import (
    Conflict,
    Forbidden,
    InvalidCredentials,
    InvalidInput,
    InvalidToken,
    NotFound,
    Problem,
    RateLimited,
    TokenExpired,
    Unauthenticated,
)
from xzepr.core.ids import new_id
from xzepr.features.auth.model import ApiKey, NewApiKey
from xzepr.features.auth.rules import MAX_KEYS
from xzepr.infra.crypto import Passwords


@pytest.fixture
async def here(database_url: str) -> AsyncIterator[Server]:
    async with server(database_url) as one:
        yield one


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever finds the places of a name taken waits for one as long as it takes."""
    monkeypatch.setattr("xzepr.features.auth.attempts._WAIT_SECONDS", 60.0)


@pytest.fixture
async def there(database_url: str) -> AsyncIterator[Server]:
    """Another server on the same database."""
    async with server(database_url) as other:
        yield other


async def attempts(here: Server) -> list[tuple[object, ...]]:
    async with here.db.read() as connection:
        return await (await connection.execute("SELECT failed FROM login_attempts")).fetchall()


async def age_attempts(here: Server, seconds: int) -> None:
    async with here.db.write() as connection:
        await connection.execute("UPDATE login_attempts SET at = at - make_interval(secs => %s)", (seconds,))


async def session_of(here: Server, name: str) -> Actor:
    """The actor of a user who logs in now."""
    return await here.auth.authenticate((await here.auth.login(name, PASSWORD)).token)


async def outcomes(here: Server, name: str, password: str, times: int) -> list[str]:
    calls = [here.auth.login(name, password) for _ in range(times)]
    return sorted(type(answer).__name__ for answer in await asyncio.gather(*calls, return_exceptions=True))


# Logging in


async def test_login_returns_token_with_user_permissions(here: Server, there: Server) -> None:
    user = await here.user("sam", Role.EVENT_MANAGER)
    session = await here.auth.login(" Sam ", PASSWORD)
    assert session.user == user
    assert timedelta(minutes=14) < session.expires_at - now() <= timedelta(minutes=15)
    actor = Actor(ActorKind.USER, user.id, "sam", permissions_of((Role.EVENT_MANAGER,)))
    assert await here.auth.authenticate(session.token) == await there.auth.authenticate(session.token) == actor
    assert here.logins.outcomes == ["success"]
    assert await attempts(here) == []
    assert session.token not in repr(session)


async def test_failed_logins_are_indistinguishable(here: Server) -> None:
    await here.user("sam")
    disabled = await here.user("disabled")
    await here.users.set_enabled(SYSTEM, disabled.id, False)
    tries = [
        ("sam", "wrong password"),
        ("nobody", PASSWORD),
        ("disabled", PASSWORD),
        ("no\x00name\ud800", PASSWORD),
        ("x" * 100_000, PASSWORD),
        ("sam", "x" * 100_000),
        ("sam", "\ud800"),
        ("sam", ""),
    ]
    answers: list[str] = []
    for number, (name, password) in enumerate(tries, start=1):
        with pytest.raises(InvalidCredentials) as refusal:
            await here.auth.login(name, password)
        answers.append(refusal.value.message)
        assert here.passwords.verified == number
    assert len(set(answers)) == 1
    assert here.logins.outcomes == ["invalid"] * len(tries)
    assert await attempts(here) == [(True,)] * len(tries)


@pytest.mark.usefixtures("patience")
async def test_ten_of_twenty_concurrent_guesses_are_hashed(here: Server) -> None:
    await here.user("sam")
    assert await outcomes(here, "sam", "a wrong password", 20) == ["InvalidCredentials"] * 10 + ["RateLimited"] * 10
    assert here.passwords.verified == 10


async def test_login_limit_is_shared_by_servers(here: Server, there: Server) -> None:
    await here.user("sam")
    results = await asyncio.gather(
        *(outcomes(one, name, "a wrong password", 10) for one in (here, there) for name in ("sam", "SAM"))
    )
    assert [name for result in results for name in result].count("InvalidCredentials") == 10
    assert here.passwords.verified + there.passwords.verified == 10


async def test_ten_failures_block_correct_password_for_a_minute(here: Server, there: Server, database_url: str) -> None:
    await here.user("sam")
    await here.user("kim")
    await outcomes(here, "sam", "a wrong password", 10)
    hashed = here.passwords.verified
    for one in (here, here, there):
        with pytest.raises(RateLimited) as refusal:
            await one.auth.login("sam", PASSWORD)
        assert refusal.value.retry_after is not None
        assert 50 < refusal.value.retry_after <= 60
    assert (here.passwords.verified, there.passwords.verified) == (hashed, 0)
    assert here.logins.outcomes[-1] == "limited"
    assert (await here.auth.login("kim", PASSWORD)).user.username == "kim"
    await age_attempts(here, 61)
    async with server(database_url) as later:
        assert (await later.auth.login("sam", PASSWORD)).user.username == "sam"


@pytest.mark.usefixtures("patience")
async def test_unknown_names_have_same_login_limit(here: Server) -> None:
    assert (await outcomes(here, "nobody", PASSWORD, 12)).count("RateLimited") == 2


@pytest.mark.usefixtures("patience")
async def test_concurrent_correct_logins_all_succeed(here: Server) -> None:
    await here.user("pipelines")
    assert await outcomes(here, "pipelines", PASSWORD, 40) == ["Session"] * 40
    assert await attempts(here) == []


async def test_login_of_crashed_server_counts_as_failed(here: Server) -> None:
    await here.user("sam")
    async with here.db.write() as connection:
        await connection.execute(
            """INSERT INTO login_attempts (id, name_digest, at)
               SELECT n::text, sha256('sam'), clock_timestamp() - interval '31 seconds'
               FROM generate_series(1, 10) AS n"""
        )
    with pytest.raises(RateLimited) as refusal:
        await here.auth.login("sam", PASSWORD)
    assert refusal.value.retry_after is not None
    assert 20 < refusal.value.retry_after <= 29
    assert here.passwords.verified == 0


async def test_clock_set_back_does_not_lock_users_out(here: Server) -> None:
    await here.user("sam")
    async with here.db.write() as connection:
        await connection.execute(
            """INSERT INTO login_attempts (id, name_digest, failed, at)
               SELECT n::text, sha256('sam'), true, clock_timestamp() + interval '59 minutes'
               FROM generate_series(1, 10) AS n"""
        )
    assert await outcomes(here, "sam", PASSWORD, 1) == ["Session"]


async def test_guess_counts_after_caller_disconnects(here: Server) -> None:
    await here.user("sam")
    calls = [asyncio.create_task(here.auth.login("sam", "a wrong password")) for _ in range(10)]
    await asyncio.sleep(0)  # They have begun.
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    async with asyncio.timeout(10):
        while len(here.logins.outcomes) < 10:
            here.logins.ended.clear()
            await here.logins.ended.wait()
    assert await attempts(here) == [(True,)] * 10


async def test_old_login_attempts_are_deleted(here: Server) -> None:
    await outcomes(here, "nobody", PASSWORD, 5)
    await age_attempts(here, 121)
    await here.user("sam")
    await here.auth.login("sam", PASSWORD)
    assert await attempts(here) == []


async def test_overload_is_not_counted_as_failed_login(database_url: str) -> None:
    hasher = HeldHasher()
    async with server(database_url, Passwords(hasher, threads=1, waiting=0)) as one:
        await one.user("sam")
        calls = [asyncio.create_task(one.auth.login("sam", PASSWORD)) for _ in range(5)]
        async with asyncio.timeout(10):
            while len(one.logins.outcomes) < 4:
                one.logins.ended.clear()
                await one.logins.ended.wait()
        assert one.logins.outcomes == ["overloaded"] * 4
        hasher.let.set()
        answers = [type(answer).__name__ for answer in await asyncio.gather(*calls, return_exceptions=True)]
        assert sorted(answers) == ["Overloaded"] * 4 + ["Session"]
        assert await attempts(one) == []


# Being known


@pytest.mark.parametrize("credential", ["", " ", "xzepr_", "xzepr_" + "0" * 64, "XZEPR_" + "0" * 64, "\ud800", "é.é.é"])
async def test_malformed_credential_is_rejected(here: Server, credential: str) -> None:
    with pytest.raises(InvalidToken):
        await here.auth.authenticate(credential)


async def test_disabled_user_is_rejected_within_five_seconds(here: Server, there: Server) -> None:
    user = await here.user("sam", Role.EVENT_MANAGER)
    session = await here.auth.login("sam", PASSWORD)
    key = await here.auth.create_api_key(await here.auth.authenticate(session.token), NewApiKey("ci"))
    for credential in (session.token, key.secret):
        assert (await there.auth.authenticate(credential)).id == user.id
    await here.users.set_enabled(SYSTEM, user.id, False)
    there.clock.time += 4.9
    for one in (here, there):
        for credential in (session.token, key.secret):
            with pytest.raises(InvalidToken):
                await one.auth.authenticate(credential)
    await here.users.set_enabled(SYSTEM, user.id, True)
    there.clock.time += 4.9
    assert (await there.auth.authenticate(session.token)).id == user.id


async def test_permissions_come_from_current_roles(here: Server) -> None:
    await here.user("sam", Role.ADMIN)
    session = await here.auth.login("sam", PASSWORD)
    async with here.db.write() as connection:
        await connection.execute("UPDATE users SET roles = '{event_viewer}'")
    here.clock.time += 4.9
    assert (await here.auth.authenticate(session.token)).permissions == permissions_of((Role.EVENT_VIEWER,))


async def test_token_of_unknown_user_is_rejected(here: Server) -> None:
    forged = tokens().issue("01ARZ3NDEKTSV4RRFFQ69G5FAV", "ghost", (Role.ADMIN,)).text
    with pytest.raises(InvalidToken):
        await here.auth.authenticate(forged)


async def test_expired_token_raises_token_expired(here: Server) -> None:
    user = await here.user("sam")
    with pytest.raises(TokenExpired):
        await here.auth.authenticate(tokens(minutes=-1).issue(user.id, "sam", user.roles).text)


# API keys


async def test_api_key_acts_for_its_user(here: Server, there: Server) -> None:
    user = await here.user("sam", Role.EVENT_MANAGER)
    actor = await session_of(here, "sam")
    created = await here.auth.create_api_key(actor, NewApiKey("ci"))
    assert created.secret.startswith("xzepr_")
    assert len(created.secret) == 70
    assert created.secret not in repr(created)
    known = Actor(ActorKind.API_KEY, user.id, "sam", permissions_of(user.roles), created.key.id)
    assert await there.auth.authenticate(created.secret) == known
    assert await here.auth.api_keys(actor) == [created.key]
    async with here.db.read() as connection:
        row = await (await connection.execute("SELECT row_to_json(k)::text FROM api_keys AS k")).fetchone()
    assert row is not None
    assert created.secret[6:] not in row[0]


async def test_narrowed_key_never_exceeds_user_permissions(here: Server) -> None:
    await here.user("sam", Role.EVENT_MANAGER)
    narrow = (Permission.EVENT_CREATE, Permission.EVENT_READ, Permission.EVENT_READ)
    created = await here.auth.create_api_key(await session_of(here, "sam"), NewApiKey("ci", narrow))
    assert created.key.permissions == (Permission.EVENT_CREATE, Permission.EVENT_READ)
    assert (await here.auth.authenticate(created.secret)).permissions == set(narrow)
    async with here.db.write() as connection:
        await connection.execute("UPDATE users SET roles = '{event_viewer}'")
    here.clock.time += 4.9
    assert (await here.auth.authenticate(created.secret)).permissions == {Permission.EVENT_READ}


async def keys_of(here: Server, actor: Actor) -> list[ApiKey]:
    return await here.auth.api_keys(actor)


async def test_api_key_cannot_create_keys(here: Server) -> None:
    await here.user("sam", Role.ADMIN)
    actor = await session_of(here, "sam")
    created = await here.auth.create_api_key(actor, NewApiKey("ci"))
    for asking, problem in [
        (await here.auth.authenticate(created.secret), Forbidden),
        (SYSTEM, Forbidden),
        (ANONYMOUS, Unauthenticated),
    ]:
        with pytest.raises(problem):
            await here.auth.create_api_key(asking, NewApiKey("more"))
    assert await keys_of(here, actor) == [created.key]


@pytest.mark.parametrize(
    ("new", "problem"),
    [
        (NewApiKey("ci", (Permission.USER_MANAGE,)), Forbidden),
        (NewApiKey("ci", ()), InvalidInput),
        (NewApiKey(""), InvalidInput),
        (NewApiKey("a\nb"), InvalidInput),
        (NewApiKey("\x00"), InvalidInput),
        (NewApiKey("\ud800"), InvalidInput),
        (NewApiKey("x" * 256), InvalidInput),
        (NewApiKey("ci", None, now() - timedelta(seconds=1)), InvalidInput),
        (NewApiKey("ci", None, now().replace(tzinfo=None) + timedelta(days=1)), InvalidInput),
    ],
)
async def test_invalid_new_key_is_rejected(here: Server, new: NewApiKey, problem: type[Problem]) -> None:
    await here.user("sam", Role.EVENT_VIEWER)
    actor = await session_of(here, "sam")
    with pytest.raises(problem):
        await here.auth.create_api_key(actor, new)
    assert await keys_of(here, actor) == []


async def test_expired_key_is_rejected(here: Server) -> None:
    await here.user("sam")
    actor = await session_of(here, "sam")
    created = await here.auth.create_api_key(actor, NewApiKey("ci", None, now() + timedelta(hours=1)))
    assert (await here.auth.authenticate(created.secret)).key_id == created.key.id
    async with here.db.write() as connection:
        await connection.execute("UPDATE api_keys SET expires_at = now()")
    here.clock.time += 4.9
    with pytest.raises(InvalidToken, match="expired"):
        await here.auth.authenticate(created.secret)


async def test_revoked_key_is_rejected_within_five_seconds(here: Server, there: Server) -> None:
    await here.user("sam")
    actor = await session_of(here, "sam")
    created = await here.auth.create_api_key(actor, NewApiKey("ci"))
    for one in (here, there):
        assert (await one.auth.authenticate(created.secret)).key_id == created.key.id
    await here.auth.revoke_api_key(actor, created.key.id)
    there.clock.time += 4.9
    for one in (here, there):
        with pytest.raises(InvalidToken):
            await one.auth.authenticate(created.secret)
    assert await keys_of(here, actor) == []
    await here.auth.revoke_api_key(actor, created.key.id)


async def test_only_user_managers_revoke_keys_of_others(here: Server) -> None:
    for name, role in [("sam", Role.EVENT_MANAGER), ("kim", Role.EVENT_MANAGER), ("root", Role.ADMIN)]:
        await here.user(name, role)
    sam, kim, root = [await session_of(here, name) for name in ("sam", "kim", "root")]
    created = await here.auth.create_api_key(sam, NewApiKey("ci"))
    other = await here.auth.create_api_key(sam, NewApiKey("laptop"))
    by_key = await here.auth.authenticate(other.secret)
    refusals: list[tuple[Actor, type[Problem]]] = [(kim, NotFound), (by_key, Forbidden), (ANONYMOUS, Unauthenticated)]
    for asking, problem in refusals:
        with pytest.raises(problem):
            await here.auth.revoke_api_key(asking, created.key.id)
    assert await keys_of(here, kim) == []
    assert await keys_of(here, sam) == [other.key, created.key]
    assert await here.auth.authenticate(created.secret)
    for id in ("nothing", "\x00", "\ud800", new_id()):
        with pytest.raises(NotFound):
            await here.auth.revoke_api_key(root, id)
    await here.auth.revoke_api_key(root, created.key.id)
    assert await keys_of(here, sam) == [other.key]


async def test_number_of_keys_per_user_is_limited(here: Server) -> None:
    user = await here.user("sam")
    actor = await session_of(here, "sam")
    async with here.db.write() as connection:
        await connection.execute(
            """INSERT INTO api_keys (id, user_id, name, digest)
               SELECT n::text, %s, 'k', sha256(n::text::bytea) FROM generate_series(2, %s) AS n""",
            (user.id, MAX_KEYS),
        )
    calls = [here.auth.create_api_key(actor, NewApiKey("one more")) for _ in range(5)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(answer, Conflict) for answer in answers) == 4
    assert len(await keys_of(here, actor)) == MAX_KEYS


async def test_disabled_user_cannot_create_key(here: Server) -> None:
    user = await here.user("sam")
    actor = await session_of(here, "sam")
    await here.users.set_enabled(SYSTEM, user.id, False)
    with pytest.raises(InvalidToken):
        await here.auth.create_api_key(actor, NewApiKey("ci"))
    assert await keys_of(here, actor) == []
