"""`xzepr login` and `xzepr users`: credentials, where they are kept, and what a command says without them."""

import stat

import orjson
import pytest

from tests.support.command_line import Person
from tests.support.server import ServedHub

NOBODY = "http://127.0.0.1:9"  # discard: nothing listens


def test_a_login_is_kept_for_its_user_alone(admin: Person) -> None:
    assert stat.S_IMODE(admin.sessions_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(admin.sessions_file.parent.stat().st_mode) == 0o700
    assert admin("events", "list", "--json").code == 0


def test_a_login_counts_for_its_hub_however_the_address_is_written(admin: Person) -> None:
    other = admin.hub.replace("http://", "HTTP://") + "/"
    assert admin("events", "list", "--json", "--hub", other).code == 0


def test_a_login_at_one_hub_is_none_at_another(admin: Person) -> None:
    done = admin("events", "list", "--hub", NOBODY)
    assert done.code == 1
    assert f"you are not logged in to {NOBODY}: run `xzepr login --hub {NOBODY}`" in done.err


def test_a_wrong_password_is_refused_and_keeps_nothing(stranger: Person) -> None:
    done = stranger("login", "--username", "admin", "--password-stdin", stdin="wrong password, really\n")
    assert (done.code, done.out, done.err) == (1, "", "xzepr: user name or password is wrong\n")
    assert not stranger.sessions_file.exists()


def test_without_a_terminal_nobody_is_asked(stranger: Person) -> None:
    assert "--username" in stranger("login").err
    assert "--password-stdin" in stranger("login", "--username", "admin").err


def test_an_expired_login_is_noticed_before_anything_is_sent(admin: Person) -> None:
    saved = orjson.loads(admin.sessions_file.read_bytes())
    saved[admin.hub]["expires_at"] = "2026-01-01T00:00:00+00:00"
    admin.sessions_file.write_bytes(orjson.dumps(saved))
    done = admin("events", "list")
    assert done.code == 1
    assert done.err == f"xzepr: the login of admin to {admin.hub} has expired: run `xzepr login --hub {admin.hub}`\n"


def test_a_token_that_the_hub_does_not_take_says_what_to_do(admin: Person) -> None:
    saved = orjson.loads(admin.sessions_file.read_bytes())
    saved[admin.hub]["token"] += "x"
    admin.sessions_file.write_bytes(orjson.dumps(saved))
    done = admin("events", "list")
    assert done.code == 1
    remedy = f"run `xzepr login --hub {admin.hub}`, or put an API key into XZEPR_API_KEY, which outlasts a login"
    assert done.err.endswith(f": {remedy}\n")
    assert done.err.count("\n") == 1


def test_a_file_of_logins_that_is_none_is_named(admin: Person) -> None:
    admin.sessions_file.write_text("{")
    done = admin("events", "list")
    assert done.code == 1
    assert str(admin.sessions_file) in done.err


def test_an_api_key_goes_before_a_login(admin: Person) -> None:
    done = admin("events", "list", environ={"XZEPR_API_KEY": "xzepr_" + "0" * 64})
    assert done.code == 1
    assert "check XZEPR_API_KEY" in done.err


@pytest.mark.parametrize("address", ["localhost:8042", "ftp://hub", "http://", "http://u:p@hub", "http://hub:port"])
def test_what_is_no_address_is_refused(stranger: Person, address: str) -> None:
    done = stranger("events", "list", "--hub", address)
    assert done.code == 1
    assert "is not the address of a hub" in done.err


def test_a_hub_that_is_not_there_is_one_sentence(stranger: Person) -> None:
    done = stranger("events", "list", "--hub", NOBODY, environ={"XZEPR_API_KEY": "xzepr_" + "0" * 64})
    assert done.code == 1
    assert done.err.startswith(f"xzepr: the hub at {NOBODY} cannot be reached")
    assert done.err.count("\n") == 1


def test_what_is_no_hub_is_one_sentence(stranger: Person, served_hub: ServedHub) -> None:
    address = f"{served_hub.url}/health"
    done = stranger("events", "list", "--hub", address, environ={"XZEPR_API_KEY": "xzepr_" + "0" * 64})
    assert done.code == 1
    assert "does not answer as a hub of XZepr does (HTTP 404)" in done.err


def test_a_new_user_logs_in_and_may_what_the_role_allows(admin: Person) -> None:
    password = "a password for a viewer"
    created = admin(
        "users", "create", "cli-viewer", "--role", "event_viewer", "--password-stdin", "--json", stdin=password
    )
    assert created.json["roles"] == ["EVENT_VIEWER"]
    admin.log_in("cli-viewer", password)
    assert admin("events", "list").code == 0
    refused = admin("users", "create", "other", "--role", "admin", "--password-stdin", stdin=password)
    assert (refused.code, refused.err) == (1, "xzepr: this needs the permission user:manage\n")


def test_a_role_that_does_not_exist_is_refused(admin: Person) -> None:
    done = admin("users", "create", "somebody", "--role", "boss", "--password-stdin", stdin="x" * 20)
    assert done.code == 2
    assert "event_manager" in done.err
