"""`xzepr api-keys`, `whoami`, `logout` and `users list`: the credentials of a user, and what they permit."""

import pytest

from tests.support.command_line import CommandLineUser


def test_created_key_has_only_the_named_permissions(admin: CommandLineUser) -> None:
    created = admin("api-keys", "create", "pipeline", "--permission", "event:read", "--expires", "90d")
    secret = created.out.strip()
    assert created.out == f"{secret}\n"  # `KEY=$(xzepr api-keys create …)` must take the secret alone
    assert "event:read" in created.err
    environ = {"XZEPR_API_KEY": secret}
    assert admin("whoami", "--json", environ=environ).json["permissions"] == ["EVENT_READ"]
    assert admin("events", "list", environ=environ).code == 0
    assert admin("users", "list", environ=environ).code == 1


def test_key_is_revoked_by_its_name(admin: CommandLineUser) -> None:
    created = admin("api-keys", "create", "to be revoked", "--json").json
    assert created["apiKey"]["id"] in admin("api-keys", "list").out
    assert admin("api-keys", "revoke", "to be revoked").out == f"Revoked API key {created['apiKey']['id']}.\n"
    assert created["apiKey"]["id"] not in admin("api-keys", "list").out
    result = admin("whoami", environ={"XZEPR_API_KEY": created["secret"]})
    assert (result.code, "check XZEPR_API_KEY" in result.err) == (1, True)


def test_shared_name_is_not_revoked(admin: CommandLineUser) -> None:
    ids = [admin("api-keys", "create", "twins", "--json").json["apiKey"]["id"] for _ in range(2)]
    result = admin("api-keys", "revoke", "twins")
    assert result.code == 1
    assert all(id in result.err for id in ids)
    assert all(id in admin("api-keys", "list").out for id in ids)
    assert "no API key named 'unknown'" in admin("api-keys", "revoke", "unknown").err


@pytest.mark.parametrize("expires", ["yesteryear", "90", "2026-02-30"])
def test_unreadable_expiry_names_the_option(admin: CommandLineUser, expires: str) -> None:
    result = admin("api-keys", "create", "never made", "--expires", expires)
    assert result.code == 2
    assert "--expires" in result.err
    assert "never made" not in admin("api-keys", "list").out


def test_logout_deletes_the_login_of_this_hub_only(admin: CommandLineUser) -> None:
    assert admin("whoami").out.startswith(f"admin at {admin.hub}, with a login\n")
    assert admin("logout", "--hub", "http://127.0.0.1:9").out == "There was no login to http://127.0.0.1:9.\n"
    assert admin("whoami").code == 0
    assert admin("logout").out == f"Logged out admin from {admin.hub}.\n"
    assert "you are not logged in" in admin("whoami").err


def test_users_are_listed_with_their_roles(admin: CommandLineUser) -> None:
    listed = {user["username"]: user["roles"] for user in admin("users", "list", "--json").json}
    assert listed["admin"] == ["ADMIN"]
    assert "admin\tenabled\tadmin\t" in admin("users", "list").out
