"""`xzepr login` and `xzepr users`: credentials, their storage, and the errors of commands without them."""

import stat

import orjson
import pytest

from tests.support.command_line import CommandLineUser
from tests.support.server import ServedHub

UNREACHABLE = "http://127.0.0.1:9"  # the discard port, on which no process listens


def test_login_is_stored_for_its_owner_only(admin: CommandLineUser) -> None:
    assert stat.S_IMODE(admin.sessions_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(admin.sessions_file.parent.stat().st_mode) == 0o700
    assert admin("events", "list", "--json").code == 0


def test_login_matches_any_spelling_of_the_address(admin: CommandLineUser) -> None:
    other = admin.hub.replace("http://", "HTTP://") + "/"
    assert admin("events", "list", "--json", "--hub", other).code == 0


def test_login_does_not_apply_to_another_hub(admin: CommandLineUser) -> None:
    result = admin("events", "list", "--hub", UNREACHABLE)
    assert result.code == 1
    assert f"you are not logged in to {UNREACHABLE}: run `xzepr login --hub {UNREACHABLE}`" in result.err


def test_wrong_password_stores_nothing(anonymous: CommandLineUser) -> None:
    result = anonymous("login", "--username", "admin", "--password-stdin", stdin="wrong password, really\n")
    assert (result.code, result.out, result.err) == (1, "", "xzepr: user name or password is wrong\n")
    assert not anonymous.sessions_file.exists()


def test_login_without_a_terminal_names_the_options(anonymous: CommandLineUser) -> None:
    assert "--username" in anonymous("login").err
    assert "--password-stdin" in anonymous("login", "--username", "admin").err


def test_expired_login_fails_before_any_request(admin: CommandLineUser) -> None:
    saved = orjson.loads(admin.sessions_file.read_bytes())
    saved[admin.hub]["expires_at"] = "2026-01-01T00:00:00+00:00"
    admin.sessions_file.write_bytes(orjson.dumps(saved))
    result = admin("events", "list")
    assert result.code == 1
    assert result.err == f"xzepr: the login of admin to {admin.hub} has expired: run `xzepr login --hub {admin.hub}`\n"


def test_rejected_token_names_the_remedy(admin: CommandLineUser) -> None:
    saved = orjson.loads(admin.sessions_file.read_bytes())
    saved[admin.hub]["token"] += "x"
    admin.sessions_file.write_bytes(orjson.dumps(saved))
    result = admin("events", "list")
    assert result.code == 1
    remedy = f"run `xzepr login --hub {admin.hub}`, or put an API key into XZEPR_API_KEY, which outlasts a login"
    assert result.err.endswith(f": {remedy}\n")
    assert result.err.count("\n") == 1


def test_malformed_sessions_file_is_named(admin: CommandLineUser) -> None:
    admin.sessions_file.write_text("{")
    result = admin("events", "list")
    assert result.code == 1
    assert str(admin.sessions_file) in result.err


def test_api_key_takes_precedence_over_a_login(admin: CommandLineUser) -> None:
    result = admin("events", "list", environ={"XZEPR_API_KEY": "xzepr_" + "0" * 64})
    assert result.code == 1
    assert "check XZEPR_API_KEY" in result.err


@pytest.mark.parametrize("address", ["localhost:8042", "ftp://hub", "http://", "http://u:p@hub", "http://hub:port"])
def test_malformed_hub_address_is_rejected(anonymous: CommandLineUser, address: str) -> None:
    result = anonymous("events", "list", "--hub", address)
    assert result.code == 1
    assert "is not the address of a hub" in result.err


def test_unreachable_hub_is_one_sentence(anonymous: CommandLineUser) -> None:
    result = anonymous("events", "list", "--hub", UNREACHABLE, environ={"XZEPR_API_KEY": "xzepr_" + "0" * 64})
    assert result.code == 1
    assert result.err.startswith(f"xzepr: the hub at {UNREACHABLE} cannot be reached")
    assert result.err.count("\n") == 1


def test_address_of_no_hub_is_one_sentence(anonymous: CommandLineUser, served_hub: ServedHub) -> None:
    address = f"{served_hub.url}/health"
    result = anonymous("events", "list", "--hub", address, environ={"XZEPR_API_KEY": "xzepr_" + "0" * 64})
    assert result.code == 1
    assert "did not respond like an XZepr hub (HTTP 404)" in result.err


def test_new_user_gets_the_permissions_of_the_role(admin: CommandLineUser) -> None:
    password = "a password for a viewer"
    created = admin(
        "users", "create", "cli-viewer", "--role", "event_viewer", "--password-stdin", "--json", stdin=password
    )
    assert created.json["roles"] == ["EVENT_VIEWER"]
    admin.log_in("cli-viewer", password)
    assert admin("events", "list").code == 0
    rejected = admin("users", "create", "other", "--role", "admin", "--password-stdin", stdin=password)
    assert (rejected.code, rejected.err) == (1, "xzepr: this needs the permission user:manage\n")


def test_unknown_role_is_rejected(admin: CommandLineUser) -> None:
    result = admin("users", "create", "someone", "--role", "boss", "--password-stdin", stdin="x" * 20)
    assert result.code == 2
    assert "event_manager" in result.err
