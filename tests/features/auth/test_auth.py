"""Logins, authentication with tokens and API keys, and revocation."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from tests.support.accounts import PASSWORD, HeldHasher, Server, open_server, tokens
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

KEYS = (("reads", Permission.EVENT_READ), ("writes", Permission.EVENT_CREATE))


@pytest.fixture
async def server(database_url: str) -> AsyncIterator[Server]:
    async with open_server(database_url) as server:
        yield server


@pytest.fixture
def long_slot_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A login waits up to 60 seconds for a slot of its user name."""
    monkeypatch.setattr("xzepr.features.auth.attempts._SLOT_TIMEOUT_SECONDS", 60.0)


@pytest.fixture
async def other_server(database_url: str) -> AsyncIterator[Server]:
    """Another server on the same database."""
    async with open_server(database_url) as server:
        yield server


async def attempts(server: Server) -> list[tuple[object, ...]]:
    async with server.db.read() as connection:
        return await (await connection.execute("SELECT failed FROM login_attempts")).fetchall()


async def age_attempts(server: Server, seconds: int) -> None:
    async with server.db.write() as connection:
        await connection.execute("UPDATE login_attempts SET at = at - make_interval(secs => %s)", (seconds,))


async def session_of(server: Server, name: str) -> Actor:
    """Logs a user in. Returns the authenticated actor."""
    return await server.auth.authenticate((await server.auth.login(name, PASSWORD)).token)


async def outcomes(server: Server, name: str, password: str, times: int) -> list[str]:
    calls = [server.auth.login(name, password) for _ in range(times)]
    return sorted(type(result).__name__ for result in await asyncio.gather(*calls, return_exceptions=True))


# Logins


async def test_login_returns_token_with_user_permissions(server: Server, other_server: Server) -> None:
    user = await server.user("sam", Role.EVENT_MANAGER)
    session = await server.auth.login(" Sam ", PASSWORD)
    assert session.user == user
    assert timedelta(minutes=14) < session.expires_at - now() <= timedelta(minutes=15)
    actor = Actor(ActorKind.USER, user.id, "sam", permissions_of((Role.EVENT_MANAGER,)))
    assert await server.auth.authenticate(session.token) == await other_server.auth.authenticate(session.token) == actor
    assert server.logins.outcomes == ["success"]
    assert await attempts(server) == []
    assert session.token not in repr(session)


async def test_failed_logins_are_indistinguishable(server: Server) -> None:
    await server.user("sam")
    disabled = await server.user("disabled")
    await server.users.set_enabled(SYSTEM, disabled.id, False)
    logins = [
        ("sam", "wrong password"),
        ("unknown", PASSWORD),
        ("disabled", PASSWORD),
        ("no\x00name\ud800", PASSWORD),
        ("x" * 100_000, PASSWORD),
        ("sam", "x" * 100_000),
        ("sam", "\ud800"),
        ("sam", ""),
    ]
    error_messages: list[str] = []
    for number, (name, password) in enumerate(logins, start=1):
        with pytest.raises(InvalidCredentials) as error:
            await server.auth.login(name, password)
        error_messages.append(error.value.message)
        assert server.passwords.verifications == number
    assert len(set(error_messages)) == 1
    assert server.logins.outcomes == ["invalid"] * len(logins)
    assert await attempts(server) == [(True,)] * len(logins)


@pytest.mark.usefixtures("long_slot_wait")
async def test_ten_of_twenty_concurrent_guesses_are_hashed(server: Server) -> None:
    await server.user("sam")
    assert await outcomes(server, "sam", "a wrong password", 20) == ["InvalidCredentials"] * 10 + ["RateLimited"] * 10
    assert server.passwords.verifications == 10


async def test_login_limit_is_shared_by_servers(server: Server, other_server: Server) -> None:
    await server.user("sam")
    results = await asyncio.gather(
        *(outcomes(each, name, "a wrong password", 10) for each in (server, other_server) for name in ("sam", "SAM"))
    )
    assert [name for result in results for name in result].count("InvalidCredentials") == 10
    assert server.passwords.verifications + other_server.passwords.verifications == 10


async def test_ten_failures_block_correct_password_for_a_minute(
    server: Server, other_server: Server, database_url: str
) -> None:
    await server.user("sam")
    await server.user("kim")
    await outcomes(server, "sam", "a wrong password", 10)
    hashed = server.passwords.verifications
    for each in (server, server, other_server):
        with pytest.raises(RateLimited) as error:
            await each.auth.login("sam", PASSWORD)
        assert error.value.retry_after is not None
        assert 50 < error.value.retry_after <= 60
    assert (server.passwords.verifications, other_server.passwords.verifications) == (hashed, 0)
    assert server.logins.outcomes[-1] == "limited"
    assert (await server.auth.login("kim", PASSWORD)).user.username == "kim"
    await age_attempts(server, 61)
    async with open_server(database_url) as later_server:
        assert (await later_server.auth.login("sam", PASSWORD)).user.username == "sam"


@pytest.mark.usefixtures("long_slot_wait")
async def test_login_limit_follows_the_setting(database_url: str) -> None:
    async with open_server(database_url, login_failures_per_minute=3) as strict:
        await strict.user("sam")
        assert await outcomes(strict, "sam", "a wrong password", 5) == ["InvalidCredentials"] * 3 + ["RateLimited"] * 2
        assert strict.passwords.verifications == 3


@pytest.mark.usefixtures("long_slot_wait")
async def test_unknown_names_have_same_login_limit(server: Server) -> None:
    assert (await outcomes(server, "unknown", PASSWORD, 12)).count("RateLimited") == 2


@pytest.mark.usefixtures("long_slot_wait")
async def test_concurrent_correct_logins_all_succeed(server: Server) -> None:
    await server.user("pipelines")
    assert await outcomes(server, "pipelines", PASSWORD, 40) == ["Session"] * 40
    assert await attempts(server) == []


async def test_login_of_crashed_server_counts_as_failed(server: Server) -> None:
    await server.user("sam")
    async with server.db.write() as connection:
        await connection.execute(
            """INSERT INTO login_attempts (id, name_digest, at)
               SELECT n::text, sha256('sam'), clock_timestamp() - interval '31 seconds'
               FROM generate_series(1, 10) AS n"""
        )
    with pytest.raises(RateLimited) as error:
        await server.auth.login("sam", PASSWORD)
    assert error.value.retry_after is not None
    assert 20 < error.value.retry_after <= 29
    assert server.passwords.verifications == 0


async def test_clock_set_back_does_not_lock_users_out(server: Server) -> None:
    await server.user("sam")
    async with server.db.write() as connection:
        await connection.execute(
            """INSERT INTO login_attempts (id, name_digest, failed, at)
               SELECT n::text, sha256('sam'), true, clock_timestamp() + interval '59 minutes'
               FROM generate_series(1, 10) AS n"""
        )
    assert await outcomes(server, "sam", PASSWORD, 1) == ["Session"]


async def test_guess_counts_after_caller_disconnects(server: Server) -> None:
    await server.user("sam")
    calls = [asyncio.create_task(server.auth.login("sam", "a wrong password")) for _ in range(10)]
    await asyncio.sleep(0)  # the logins start
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    async with asyncio.timeout(10):
        while len(server.logins.outcomes) < 10:
            server.logins.ended.clear()
            await server.logins.ended.wait()
    assert await attempts(server) == [(True,)] * 10


async def test_old_login_attempts_are_deleted(server: Server) -> None:
    await outcomes(server, "unknown", PASSWORD, 5)
    await age_attempts(server, 121)
    await server.user("sam")
    await server.auth.login("sam", PASSWORD)
    assert await attempts(server) == []


async def test_overload_is_not_counted_as_failed_login(database_url: str) -> None:
    hasher = HeldHasher()
    async with open_server(database_url, Passwords(hasher, threads=1, max_waiting=0)) as server:
        await server.user("sam")
        calls = [asyncio.create_task(server.auth.login("sam", PASSWORD)) for _ in range(5)]
        async with asyncio.timeout(10):
            while len(server.logins.outcomes) < 4:
                server.logins.ended.clear()
                await server.logins.ended.wait()
        assert server.logins.outcomes == ["overloaded"] * 4
        hasher.released.set()
        results = [type(result).__name__ for result in await asyncio.gather(*calls, return_exceptions=True)]
        assert sorted(results) == ["Overloaded"] * 4 + ["Session"]
        assert await attempts(server) == []


# Authentication


@pytest.mark.parametrize("credential", ["", " ", "xzepr_", "xzepr_" + "0" * 64, "XZEPR_" + "0" * 64, "\ud800", "é.é.é"])
async def test_malformed_credential_is_rejected(server: Server, credential: str) -> None:
    with pytest.raises(InvalidToken):
        await server.auth.authenticate(credential)


async def test_disabled_user_is_rejected_within_five_seconds(server: Server, other_server: Server) -> None:
    user = await server.user("sam", Role.EVENT_MANAGER)
    session = await server.auth.login("sam", PASSWORD)
    key = await server.auth.create_api_key(await server.auth.authenticate(session.token), NewApiKey("ci"))
    for credential in (session.token, key.secret):
        assert (await other_server.auth.authenticate(credential)).id == user.id
    await server.users.set_enabled(SYSTEM, user.id, False)
    other_server.clock.time += 4.9
    for each in (server, other_server):
        for credential in (session.token, key.secret):
            with pytest.raises(InvalidToken):
                await each.auth.authenticate(credential)
    await server.users.set_enabled(SYSTEM, user.id, True)
    other_server.clock.time += 4.9
    assert (await other_server.auth.authenticate(session.token)).id == user.id


async def test_permissions_come_from_current_roles(server: Server) -> None:
    await server.user("sam", Role.ADMIN)
    session = await server.auth.login("sam", PASSWORD)
    async with server.db.write() as connection:
        await connection.execute("UPDATE users SET roles = '{event_viewer}'")
    server.clock.time += 4.9
    assert (await server.auth.authenticate(session.token)).permissions == permissions_of((Role.EVENT_VIEWER,))


async def test_actor_is_reused_until_its_user_is_read_again(server: Server) -> None:
    await server.user("sam", Role.ADMIN)
    session = await server.auth.login("sam", PASSWORD)
    key = await server.auth.create_api_key(await session_of(server, "sam"), NewApiKey("ci"))
    for credential in (session.token, key.secret):
        actor = await server.auth.authenticate(credential)
        assert await server.auth.authenticate(credential) is actor
        server.clock.time += 2
        reread = await server.auth.authenticate(credential)
        assert reread == actor
        assert reread is not actor


async def test_cached_credentials_have_separate_actors(server: Server) -> None:
    await server.user("sam", Role.ADMIN)
    actor = await session_of(server, "sam")
    keys = [await server.auth.create_api_key(actor, NewApiKey(name, (permission,))) for name, permission in KEYS]
    for _ in range(2):
        actors = [await server.auth.authenticate(key.secret) for key in keys]
        assert [each.key_id for each in actors] == [key.key.id for key in keys]
        assert [each.permissions for each in actors] == [{permission} for _, permission in KEYS]


async def test_token_of_unknown_user_is_rejected(server: Server) -> None:
    forged = tokens().issue("01ARZ3NDEKTSV4RRFFQ69G5FAV", "ghost", (Role.ADMIN,)).text
    with pytest.raises(InvalidToken):
        await server.auth.authenticate(forged)


async def test_expired_token_raises_token_expired(server: Server) -> None:
    user = await server.user("sam")
    with pytest.raises(TokenExpired):
        await server.auth.authenticate(tokens(minutes=-1).issue(user.id, "sam", user.roles).text)


# API keys


async def test_api_key_acts_for_its_user(server: Server, other_server: Server) -> None:
    user = await server.user("sam", Role.EVENT_MANAGER)
    actor = await session_of(server, "sam")
    created = await server.auth.create_api_key(actor, NewApiKey("ci"))
    assert created.secret.startswith("xzepr_")
    assert len(created.secret) == 70
    assert created.secret not in repr(created)
    expected = Actor(ActorKind.API_KEY, user.id, "sam", permissions_of(user.roles), created.key.id)
    assert await other_server.auth.authenticate(created.secret) == expected
    assert await server.auth.api_keys(actor) == [created.key]
    async with server.db.read() as connection:
        row = await (await connection.execute("SELECT row_to_json(k)::text FROM api_keys AS k")).fetchone()
    assert row is not None
    assert created.secret[6:] not in row[0]


async def test_narrowed_key_never_exceeds_user_permissions(server: Server) -> None:
    await server.user("sam", Role.EVENT_MANAGER)
    narrow = (Permission.EVENT_CREATE, Permission.EVENT_READ, Permission.EVENT_READ)
    created = await server.auth.create_api_key(await session_of(server, "sam"), NewApiKey("ci", narrow))
    assert created.key.permissions == (Permission.EVENT_CREATE, Permission.EVENT_READ)
    assert (await server.auth.authenticate(created.secret)).permissions == set(narrow)
    async with server.db.write() as connection:
        await connection.execute("UPDATE users SET roles = '{event_viewer}'")
    server.clock.time += 4.9
    assert (await server.auth.authenticate(created.secret)).permissions == {Permission.EVENT_READ}


async def keys_of(server: Server, actor: Actor) -> list[ApiKey]:
    return await server.auth.api_keys(actor)


async def test_api_key_cannot_create_keys(server: Server) -> None:
    await server.user("sam", Role.ADMIN)
    actor = await session_of(server, "sam")
    created = await server.auth.create_api_key(actor, NewApiKey("ci"))
    for caller, problem in [
        (await server.auth.authenticate(created.secret), Forbidden),
        (SYSTEM, Forbidden),
        (ANONYMOUS, Unauthenticated),
    ]:
        with pytest.raises(problem):
            await server.auth.create_api_key(caller, NewApiKey("more"))
    assert await keys_of(server, actor) == [created.key]


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
async def test_invalid_new_key_is_rejected(server: Server, new: NewApiKey, problem: type[Problem]) -> None:
    await server.user("sam", Role.EVENT_VIEWER)
    actor = await session_of(server, "sam")
    with pytest.raises(problem):
        await server.auth.create_api_key(actor, new)
    assert await keys_of(server, actor) == []


async def test_expired_key_is_rejected(server: Server) -> None:
    await server.user("sam")
    actor = await session_of(server, "sam")
    created = await server.auth.create_api_key(actor, NewApiKey("ci", None, now() + timedelta(hours=1)))
    assert (await server.auth.authenticate(created.secret)).key_id == created.key.id
    async with server.db.write() as connection:
        await connection.execute("UPDATE api_keys SET expires_at = now()")
    server.clock.time += 4.9
    with pytest.raises(InvalidToken, match="expired"):
        await server.auth.authenticate(created.secret)


async def test_revoked_key_is_rejected_within_five_seconds(server: Server, other_server: Server) -> None:
    await server.user("sam")
    actor = await session_of(server, "sam")
    created = await server.auth.create_api_key(actor, NewApiKey("ci"))
    for each in (server, other_server):
        assert (await each.auth.authenticate(created.secret)).key_id == created.key.id
    await server.auth.revoke_api_key(actor, created.key.id)
    other_server.clock.time += 4.9
    for each in (server, other_server):
        with pytest.raises(InvalidToken):
            await each.auth.authenticate(created.secret)
    assert await keys_of(server, actor) == []
    await server.auth.revoke_api_key(actor, created.key.id)


async def test_only_user_managers_revoke_keys_of_others(server: Server) -> None:
    for name, role in [("sam", Role.EVENT_MANAGER), ("kim", Role.EVENT_MANAGER), ("root", Role.ADMIN)]:
        await server.user(name, role)
    sam, kim, root = [await session_of(server, name) for name in ("sam", "kim", "root")]
    created = await server.auth.create_api_key(sam, NewApiKey("ci"))
    other = await server.auth.create_api_key(sam, NewApiKey("laptop"))
    by_key = await server.auth.authenticate(other.secret)
    errors: list[tuple[Actor, type[Problem]]] = [(kim, NotFound), (by_key, Forbidden), (ANONYMOUS, Unauthenticated)]
    for caller, problem in errors:
        with pytest.raises(problem):
            await server.auth.revoke_api_key(caller, created.key.id)
    assert await keys_of(server, kim) == []
    assert await keys_of(server, sam) == [other.key, created.key]
    assert await server.auth.authenticate(created.secret)
    for id in ("nothing", "\x00", "\ud800", new_id()):
        with pytest.raises(NotFound):
            await server.auth.revoke_api_key(root, id)
    await server.auth.revoke_api_key(root, created.key.id)
    assert await keys_of(server, sam) == [other.key]


async def test_number_of_keys_per_user_is_limited(server: Server) -> None:
    user = await server.user("sam")
    actor = await session_of(server, "sam")
    async with server.db.write() as connection:
        await connection.execute(
            """INSERT INTO api_keys (id, user_id, name, digest)
               SELECT n::text, %s, 'k', sha256(n::text::bytea) FROM generate_series(2, %s) AS n""",
            (user.id, MAX_KEYS),
        )
    calls = [server.auth.create_api_key(actor, NewApiKey("one more")) for _ in range(5)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(result, Conflict) for result in results) == 4
    assert len(await keys_of(server, actor)) == MAX_KEYS


async def test_disabled_user_cannot_create_key(server: Server) -> None:
    user = await server.user("sam")
    actor = await session_of(server, "sam")
    await server.users.set_enabled(SYSTEM, user.id, False)
    with pytest.raises(InvalidToken):
        await server.auth.create_api_key(actor, NewApiKey("ci"))
    assert await keys_of(server, actor) == []
