"""The commands `xzepr login`, `logout` and `whoami`: the token that later commands use, and what it permits."""

import os
import sys
from datetime import datetime
from typing import Annotated

import typer

from xzepr.cli.client.credentials import API_KEY, SavedLogin, forget_login, save_login
from xzepr.cli.client.http import DEFAULT_HUB, HubClient, HubUrl, normalise_address, open_client
from xzepr.cli.output import AsJson, print_json, print_notice, printable
from xzepr.core.actor import Permission
from xzepr.core.errors import CannotStart

PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]

_LOGIN = """
mutation ($input: LoginInput!) { login(input: $input) { token expiresAt user { username } } }
"""


def login(
    username: Annotated[str | None, typer.Option(help="The user name. Prompted for on a terminal.")] = None,
    password_stdin: PasswordStdin = False,
    hub: HubUrl = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Log in to a hub. The token is stored in your configuration folder, readable only by you, until it expires."""
    hub = normalise_address(hub)
    name = username or _prompt_for_username()
    saved_login = request_login(hub, name, read_password(password_stdin))
    save_login(hub, saved_login)
    if as_json:
        print_json({"hub": hub, "username": saved_login.username, "expiresAt": saved_login.expires_at})
    else:
        expires_at = saved_login.expires_at.astimezone()
        typer.echo(f"Logged in to {hub} as {printable(saved_login.username)} until {expires_at:%H:%M:%S}.")
    if os.environ.get(API_KEY, "").strip():
        print_notice(f"{API_KEY} is set and takes precedence over this login")


def logout(hub: HubUrl = DEFAULT_HUB) -> None:
    """Delete the stored login to a hub. The token itself expires after some minutes."""
    hub = normalise_address(hub)
    username = forget_login(hub)
    if username is None:
        typer.echo(f"There was no login to {hub}.")
    else:
        typer.echo(f"Logged out {printable(username)} from {hub}.")
    if os.environ.get(API_KEY, "").strip():
        print_notice(f"{API_KEY} is still set, and later commands use it")


def whoami(hub: HubUrl = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """Show the hub, your user name, the credential in use and its permissions."""
    with open_client(hub) as client:
        me = client.execute("{ me { id username permissions } }")["me"]
        address = client.hub
    credential = f"the API key in {API_KEY}" if os.environ.get(API_KEY, "").strip() else "a login"
    if as_json:
        print_json({"hub": address, "credential": credential, **me})
        return
    typer.echo(f"{printable(me['username'])} at {address}, with {credential}")
    typer.echo("permissions: " + (", ".join(Permission[name].value for name in me["permissions"]) or "none"))


def request_login(hub: str, username: str, password: str) -> SavedLogin:
    """Requests a token for the user. Raises RequestRejected if the password is wrong, or HubUnreachable."""
    client = HubClient(hub, None)
    try:
        response = client.execute(_LOGIN, input={"username": username, "password": password})["login"]
    finally:
        client.close()
    expires_at = datetime.fromisoformat(response["expiresAt"])
    return SavedLogin(response["user"]["username"], response["token"], expires_at)


def read_password(from_stdin: bool, *, confirm: bool = False) -> str:
    """Returns a password: the first line of standard input, or a hidden entry at a terminal.

    Raises CannotStart if standard input is empty or there is no terminal.
    """
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
        if not password:
            raise CannotStart("standard input contains no password")
        return password
    if not sys.stdin.isatty():
        raise CannotStart("there is no terminal to ask for the password: pass it with --password-stdin")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=confirm, err=True))


def _prompt_for_username() -> str:
    if not sys.stdin.isatty():
        raise CannotStart("there is no terminal to ask for the user name: pass it with --username")
    return str(typer.prompt("User name", default="admin", err=True))
