"""Users: who may make them, what they must be, and the first admin."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from argon2 import PasswordHasher

from tests.support.accounts import PASSWORD, Server, server
from xzepr.core.actor import ANONYMOUS, SYSTEM, Actor, ActorKind, Permission, Role, permissions_of
from xzepr.core.errors import Conflict, Forbidden, InvalidInput, NotFound, Problem, Unauthenticated
from xzepr.core.ids import new_id
from xzepr.features.users.model import NewUser

ADMIN = Actor(ActorKind.USER, "a", "admin", permissions_of((Role.ADMIN,)))
MANAGER = Actor(ActorKind.USER, "m", "manager", permissions_of((Role.EVENT_MANAGER,)))


@pytest.fixture
async def here(database_url: str) -> AsyncIterator[Server]:
    async with server(database_url) as one:
        yield one


async def count_users(here: Server) -> int:
    async with here.db.read() as connection:
        row = await (await connection.execute("SELECT count(*) FROM users")).fetchone()
    assert row is not None
    return int(row[0])


async def test_user_is_stored_with_folded_name(here: Server) -> None:
    user = await here.users.create(ADMIN, NewUser(" CI.Bot@Example.org ", PASSWORD, (Role.USER, Role.USER)))
    assert (user.username, user.roles, user.enabled) == ("ci.bot@example.org", (Role.USER,), True)
    assert await here.users.by_ids([user.id, "nobody"]) == {user.id: user}
    async with here.db.read() as connection:
        row = await (await connection.execute("SELECT password_hash FROM users")).fetchone()
    assert row is not None
    assert row[0].startswith("$argon2id$")
    assert PASSWORD not in row[0]


@pytest.mark.parametrize(("actor", "problem"), [(ANONYMOUS, Unauthenticated), (MANAGER, Forbidden)])
async def test_managing_users_requires_permission(here: Server, actor: Actor, problem: type[Problem]) -> None:
    user = await here.user("somebody")
    with pytest.raises(problem):
        await here.users.create(actor, NewUser("another", PASSWORD, (Role.USER,)))
    with pytest.raises(problem):
        await here.users.set_enabled(actor, user.id, False)
    with pytest.raises(problem):
        await here.users.everybody(actor)
    assert await count_users(here) == 1
    assert (await here.users.by_ids([user.id]))[user.id] == user


async def test_user_list_includes_disabled_users(here: Server) -> None:
    first, second = await here.user("zoe"), await here.user("adam")
    disabled = await here.users.set_enabled(ADMIN, first.id, False)
    assert await here.users.everybody(ADMIN) == [second, disabled]


async def test_actor_cannot_grant_missing_permissions(here: Server) -> None:
    narrowed = Actor(ActorKind.API_KEY, "a", "admin", frozenset({Permission.USER_MANAGE}), "key")
    with pytest.raises(Forbidden):
        await here.users.create(narrowed, NewUser("mallory", PASSWORD, (Role.ADMIN,)))
    assert await count_users(here) == 0


@pytest.mark.parametrize(
    ("new", "field"),
    [
        (NewUser("", PASSWORD, (Role.USER,)), "username"),
        (NewUser("a b", PASSWORD, (Role.USER,)), "username"),
        (NewUser("a\x00", PASSWORD, (Role.USER,)), "username"),
        (NewUser("\ud800", PASSWORD, (Role.USER,)), "username"),
        (NewUser("\u0430dmin", PASSWORD, (Role.USER,)), "username"),  # begins with a Cyrillic letter
        (NewUser("a" * 65, PASSWORD, (Role.USER,)), "username"),
        (NewUser("System", PASSWORD, (Role.USER,)), "username"),
        (NewUser("fine", "elevenchars", (Role.USER,)), "password"),
        (NewUser("fine", "x" * 1025, (Role.USER,)), "password"),
        (NewUser("fine", PASSWORD + "\udc00", (Role.USER,)), "password"),
        (NewUser("administrator", "Administrator", (Role.USER,)), "password"),
        (NewUser("fine", PASSWORD, ()), "roles"),
    ],
)
async def test_invalid_user_is_rejected(here: Server, new: NewUser, field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        await here.users.create(ADMIN, new)
    assert [violation.field for violation in refusal.value.violations] == [field]
    assert here.passwords.verified == 0
    assert await count_users(here) == 0


async def test_all_violations_are_reported_together(here: Server) -> None:
    with pytest.raises(InvalidInput) as refusal:
        await here.users.create(ADMIN, NewUser("?", "", ()))
    assert [violation.field for violation in refusal.value.violations] == ["username", "password", "roles"]


async def test_username_is_unique_regardless_of_case(here: Server) -> None:
    first = await here.user("sam")
    taken = [here.users.create(ADMIN, NewUser(name, PASSWORD, (Role.ADMIN,))) for name in ("sam", "SAM", " Sam")]
    assert [type(answer) for answer in await asyncio.gather(*taken, return_exceptions=True)] == [Conflict] * 3
    assert (await here.users.by_ids([first.id]))[first.id] == first
    assert await count_users(here) == 1


async def test_only_first_start_creates_admin(here: Server) -> None:
    kept: list[str] = []
    first = await here.users.ensure_admin("admin", None, keep=kept.append)
    assert first is not None
    assert first.password is not None
    assert kept == [first.password]
    assert first.password not in repr(first)
    assert await here.users.with_password("admin", first.password) == first.user
    assert first.user.roles == (Role.ADMIN,)
    assert await here.users.ensure_admin("admin", None, keep=kept.append) is None
    assert await here.users.ensure_admin("other", PASSWORD) is None
    assert len(kept) == 1
    assert await count_users(here) == 1


async def test_configured_admin_password_is_not_returned(here: Server) -> None:
    kept: list[str] = []
    first = await here.users.ensure_admin("admin", PASSWORD, keep=kept.append)
    assert first is not None
    assert first.password is None
    assert kept == []
    assert await here.users.with_password("admin", PASSWORD) == first.user


async def test_short_admin_password_is_rejected(here: Server) -> None:
    for password in ("", "short"):
        with pytest.raises(InvalidInput):
            await here.users.ensure_admin("admin", password)
    assert await count_users(here) == 0


async def test_unsaved_password_creates_no_admin(here: Server) -> None:
    def disk_full(_password: str) -> None:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        await here.users.ensure_admin("admin", None, keep=disk_full)
    assert await count_users(here) == 0


async def test_concurrent_servers_create_one_admin(database_url: str) -> None:
    async with server(database_url) as one, server(database_url) as other:
        made = await asyncio.gather(*(s.users.ensure_admin("admin", None) for s in (one, other) * 4))
        [first] = [admin for admin in made if admin is not None]
        assert first.password is not None
        assert await other.users.with_password("admin", first.password) == first.user
        assert await count_users(one) == 1


async def test_last_admin_cannot_be_disabled(here: Server) -> None:
    one, other = await here.user("one", Role.ADMIN), await here.user("other", Role.ADMIN, Role.USER)
    answers = await asyncio.gather(
        *(here.users.set_enabled(SYSTEM, user.id, False) for user in (one, other)), return_exceptions=True
    )
    assert sorted(type(answer).__name__ for answer in answers) == ["Conflict", "User"]
    assert sorted(user.enabled for user in (await here.users.by_ids([one.id, other.id])).values()) == [False, True]


async def test_disabling_unknown_user_raises_not_found(here: Server) -> None:
    for id in ("nobody", "\x00", "\ud800", new_id()):
        with pytest.raises(NotFound):
            await here.users.set_enabled(ADMIN, id, False)
        assert await here.users.by_ids([id]) == {}


async def test_unknown_role_grants_nothing(here: Server) -> None:
    user = await here.user("sam", Role.USER)
    async with here.db.write() as connection:
        await connection.execute("UPDATE users SET roles = '{auditor,user}'")
    assert (await here.users.by_ids([user.id]))[user.id].roles == (Role.USER,)


async def test_recent_user_is_at_most_two_seconds_old(database_url: str) -> None:
    async with server(database_url) as here, server(database_url) as there:
        user = await here.user("sam")
        assert await here.users.recent(user.id) == await there.users.recent(user.id) == user
        disabled = await here.users.set_enabled(SYSTEM, user.id, False)
        assert await here.users.recent(user.id) == disabled, "the process that changed it knows at once"
        there.clock.time += 2.0
        assert await there.users.recent(user.id) == disabled


async def test_outdated_hash_is_renewed_at_login(here: Server) -> None:
    user = await here.user("sam")
    dear = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1).hash(PASSWORD)
    async with here.db.write() as connection:
        await connection.execute("UPDATE users SET password_hash = %s", (dear,))
    assert await here.users.with_password("sam", "wrong " + PASSWORD) is None
    assert await here.users.with_password("sam", PASSWORD) == user
    async with here.db.read() as connection:
        row = await (await connection.execute("SELECT password_hash FROM users")).fetchone()
    assert row is not None
    assert "m=8,t=1" in row[0]
    assert await here.users.with_password("sam", PASSWORD) == user
