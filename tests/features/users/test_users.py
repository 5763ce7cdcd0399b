"""Users: permissions, validation, passwords and the first administrator."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from argon2 import PasswordHasher

from tests.support.accounts import PASSWORD, Server, open_server
from xzepr.core.actor import ANONYMOUS, SYSTEM, Actor, ActorKind, Permission, Role, permissions_of
from xzepr.core.errors import Conflict, Forbidden, InvalidInput, NotFound, Problem, Unauthenticated
from xzepr.core.ids import new_id
from xzepr.features.users.model import NewUser

ADMIN = Actor(ActorKind.USER, "a", "admin", permissions_of((Role.ADMIN,)))
MANAGER = Actor(ActorKind.USER, "m", "manager", permissions_of((Role.EVENT_MANAGER,)))


@pytest.fixture
async def server(database_url: str) -> AsyncIterator[Server]:
    async with open_server(database_url) as server:
        yield server


async def count_users(server: Server) -> int:
    async with server.db.read() as connection:
        row = await (await connection.execute("SELECT count(*) FROM users")).fetchone()
    assert row is not None
    return int(row[0])


async def test_user_is_stored_with_folded_name(server: Server) -> None:
    user = await server.users.create(ADMIN, NewUser(" CI.Bot@Example.org ", PASSWORD, (Role.USER, Role.USER)))
    assert (user.username, user.roles, user.enabled) == ("ci.bot@example.org", (Role.USER,), True)
    assert await server.users.by_ids([user.id, "unknown"]) == {user.id: user}
    async with server.db.read() as connection:
        row = await (await connection.execute("SELECT password_hash FROM users")).fetchone()
    assert row is not None
    assert row[0].startswith("$argon2id$")
    assert PASSWORD not in row[0]


@pytest.mark.parametrize(("actor", "problem"), [(ANONYMOUS, Unauthenticated), (MANAGER, Forbidden)])
async def test_managing_users_requires_permission(server: Server, actor: Actor, problem: type[Problem]) -> None:
    user = await server.user("ada")
    with pytest.raises(problem):
        await server.users.create(actor, NewUser("another", PASSWORD, (Role.USER,)))
    with pytest.raises(problem):
        await server.users.set_enabled(actor, user.id, False)
    with pytest.raises(problem):
        await server.users.list_users(actor)
    assert await count_users(server) == 1
    assert (await server.users.by_ids([user.id]))[user.id] == user


async def test_user_list_includes_disabled_users(server: Server) -> None:
    first, second = await server.user("zoe"), await server.user("adam")
    disabled = await server.users.set_enabled(ADMIN, first.id, False)
    assert await server.users.list_users(ADMIN) == [second, disabled]


async def test_actor_cannot_grant_missing_permissions(server: Server) -> None:
    narrowed = Actor(ActorKind.API_KEY, "a", "admin", frozenset({Permission.USER_MANAGE}), "key")
    with pytest.raises(Forbidden):
        await server.users.create(narrowed, NewUser("mallory", PASSWORD, (Role.ADMIN,)))
    assert await count_users(server) == 0


@pytest.mark.parametrize(
    ("new", "field"),
    [
        (NewUser("", PASSWORD, (Role.USER,)), "username"),
        (NewUser("a b", PASSWORD, (Role.USER,)), "username"),
        (NewUser("a\x00", PASSWORD, (Role.USER,)), "username"),
        (NewUser("\ud800", PASSWORD, (Role.USER,)), "username"),
        (NewUser("\u0430dmin", PASSWORD, (Role.USER,)), "username"),  # starts with a Cyrillic letter
        (NewUser("a" * 65, PASSWORD, (Role.USER,)), "username"),
        (NewUser("System", PASSWORD, (Role.USER,)), "username"),
        (NewUser("fine", "elevenchars", (Role.USER,)), "password"),
        (NewUser("fine", "x" * 1025, (Role.USER,)), "password"),
        (NewUser("fine", PASSWORD + "\udc00", (Role.USER,)), "password"),
        (NewUser("administrator", "Administrator", (Role.USER,)), "password"),
        (NewUser("fine", PASSWORD, ()), "roles"),
    ],
)
async def test_invalid_user_is_rejected(server: Server, new: NewUser, field: str) -> None:
    with pytest.raises(InvalidInput) as error:
        await server.users.create(ADMIN, new)
    assert [violation.field for violation in error.value.violations] == [field]
    assert server.passwords.verifications == 0
    assert await count_users(server) == 0


async def test_all_violations_are_reported_together(server: Server) -> None:
    with pytest.raises(InvalidInput) as error:
        await server.users.create(ADMIN, NewUser("?", "", ()))
    assert [violation.field for violation in error.value.violations] == ["username", "password", "roles"]


async def test_username_is_unique_regardless_of_case(server: Server) -> None:
    first = await server.user("sam")
    calls = [server.users.create(ADMIN, NewUser(name, PASSWORD, (Role.ADMIN,))) for name in ("sam", "SAM", " Sam")]
    assert [type(result) for result in await asyncio.gather(*calls, return_exceptions=True)] == [Conflict] * 3
    assert (await server.users.by_ids([first.id]))[first.id] == first
    assert await count_users(server) == 1


async def test_only_first_start_creates_admin(server: Server) -> None:
    saved: list[str] = []
    first = await server.users.ensure_admin("admin", None, save_password=saved.append)
    assert first is not None
    assert first.password is not None
    assert saved == [first.password]
    assert first.password not in repr(first)
    assert await server.users.verify_password("admin", first.password) == first.user
    assert first.user.roles == (Role.ADMIN,)
    assert await server.users.ensure_admin("admin", None, save_password=saved.append) is None
    assert await server.users.ensure_admin("other", PASSWORD) is None
    assert len(saved) == 1
    assert await count_users(server) == 1


async def test_configured_admin_password_is_not_returned(server: Server) -> None:
    saved: list[str] = []
    first = await server.users.ensure_admin("admin", PASSWORD, save_password=saved.append)
    assert first is not None
    assert first.password is None
    assert saved == []
    assert await server.users.verify_password("admin", PASSWORD) == first.user


async def test_short_admin_password_is_rejected(server: Server) -> None:
    for password in ("", "short"):
        with pytest.raises(InvalidInput):
            await server.users.ensure_admin("admin", password)
    assert await count_users(server) == 0


async def test_unsaved_password_creates_no_admin(server: Server) -> None:
    def disk_full(_password: str) -> None:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        await server.users.ensure_admin("admin", None, save_password=disk_full)
    assert await count_users(server) == 0


async def test_concurrent_servers_create_one_admin(database_url: str) -> None:
    async with open_server(database_url) as first_server, open_server(database_url) as second_server:
        results = await asyncio.gather(
            *(server.users.ensure_admin("admin", None) for server in (first_server, second_server) * 4)
        )
        [first] = [admin for admin in results if admin is not None]
        assert first.password is not None
        assert await second_server.users.verify_password("admin", first.password) == first.user
        assert await count_users(first_server) == 1


async def test_last_admin_cannot_be_disabled(server: Server) -> None:
    first, second = await server.user("one", Role.ADMIN), await server.user("other", Role.ADMIN, Role.USER)
    results = await asyncio.gather(
        *(server.users.set_enabled(SYSTEM, user.id, False) for user in (first, second)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["Conflict", "User"]
    assert sorted(user.enabled for user in (await server.users.by_ids([first.id, second.id])).values()) == [False, True]


async def test_disabling_unknown_user_raises_not_found(server: Server) -> None:
    for id in ("unknown", "\x00", "\ud800", new_id()):
        with pytest.raises(NotFound):
            await server.users.set_enabled(ADMIN, id, False)
        assert await server.users.by_ids([id]) == {}


async def test_unknown_role_grants_nothing(server: Server) -> None:
    user = await server.user("sam", Role.USER)
    async with server.db.write() as connection:
        await connection.execute("UPDATE users SET roles = '{auditor,user}'")
    assert (await server.users.by_ids([user.id]))[user.id].roles == (Role.USER,)


async def test_recent_user_is_at_most_two_seconds_old(database_url: str) -> None:
    async with open_server(database_url) as server, open_server(database_url) as other_server:
        user = await server.user("sam")
        assert await server.users.cached(user.id) == await other_server.users.cached(user.id) == user
        disabled = await server.users.set_enabled(SYSTEM, user.id, False)
        assert await server.users.cached(user.id) == disabled, (
            "the process that changed the user sees the change at once"
        )
        other_server.clock.time += 2.0
        assert await other_server.users.cached(user.id) == disabled


async def test_outdated_hash_is_renewed_at_login(server: Server) -> None:
    user = await server.user("sam")
    outdated = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1).hash(PASSWORD)
    async with server.db.write() as connection:
        await connection.execute("UPDATE users SET password_hash = %s", (outdated,))
    assert await server.users.verify_password("sam", "wrong " + PASSWORD) is None
    assert await server.users.verify_password("sam", PASSWORD) == user
    async with server.db.read() as connection:
        row = await (await connection.execute("SELECT password_hash FROM users")).fetchone()
    assert row is not None
    assert "m=8,t=1" in row[0]
    assert await server.users.verify_password("sam", PASSWORD) == user
