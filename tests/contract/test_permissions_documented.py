"""Permissions and roles: the reference page matches the code, and each role has its permissions."""

import pytest

from tests.contract.permissions_page import PAGE, page
from xzepr.core.actor import ANONYMOUS, ROLES, Actor, ActorKind, Permission, Role, permissions_of
from xzepr.core.errors import Forbidden, Unauthenticated


def test_permissions_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "update it: python -m tests.contract.permissions_page"


def test_every_role_has_permissions() -> None:
    assert set(ROLES) == set(Role)
    assert ROLES[Role.ADMIN] == set(Permission)


def test_viewer_roles_only_read() -> None:
    for role in (Role.EVENT_VIEWER, Role.USER):
        assert {permission.split(":")[1] for permission in ROLES[role]} == {"read"}


def test_only_admin_manages_users_or_stream() -> None:
    for permission in (Permission.USER_MANAGE, Permission.STREAM_ADMIN):
        assert [role for role in Role if permission in ROLES[role]] == [Role.ADMIN]


def test_permissions_of_roles_are_united() -> None:
    assert permissions_of(()) == frozenset()
    assert permissions_of((Role.USER, Role.EVENT_VIEWER)) == ROLES[Role.USER] | ROLES[Role.EVENT_VIEWER]


@pytest.mark.parametrize("permission", list(Permission))
def test_missing_permission_is_named_in_error(permission: Permission) -> None:
    user = Actor(ActorKind.USER, "u", "sam", frozenset(Permission) - {permission})
    with pytest.raises(Forbidden, match=permission):
        user.must(permission)
    with pytest.raises(Unauthenticated):
        ANONYMOUS.must(permission)
    Actor(ActorKind.USER, "u", "sam", frozenset({permission})).must(permission)
