"""`xzepr login`: change a password for a token, and keep it for the commands that follow."""

import os
import sys
from datetime import datetime
from typing import Annotated

import typer

from xzepr.cli.client import credentials as session
from xzepr.cli.client.http import DEFAULT_HUB, Client, HubUrl, address
from xzepr.cli.output import AsJson, print_json, visible
from xzepr.core.errors import CannotStart

PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]

_LOGIN = """
mutation ($input: LoginInput!) { login(input: $input) { token expiresAt user { username } } }
"""


def login(
    username: Annotated[str | None, typer.Option(help="Who logs in; asked for on a terminal.")] = None,
    password_stdin: PasswordStdin = False,
    hub: HubUrl = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Log in to a hub. The token is kept in your configuration folder, readable by you alone, until it expires."""
    hub = address(hub)
    name = username or _ask_for_name()
    made = sign_in(hub, name, read_password(password_stdin))
    session.save(hub, made)
    if as_json:
        print_json({"hub": hub, "username": made.username, "expiresAt": made.expires_at})
    else:
        typer.echo(f"Logged in to {hub} as {visible(made.username)} until {made.expires_at.astimezone():%H:%M:%S}.")
    if os.environ.get(session.API_KEY, "").strip():
        typer.echo(f"xzepr: {session.API_KEY} is set and goes before this login.", err=True)


def sign_in(hub: str, username: str, password: str) -> session.Login:
    """A token of the hub for the user. Raises Refused for a wrong password, and Unreachable."""
    client = Client(hub, None)
    try:
        answer = client.ask(_LOGIN, input={"username": username, "password": password})["login"]
    finally:
        client.close()
    return session.Login(answer["user"]["username"], answer["token"], datetime.fromisoformat(answer["expiresAt"]))


def read_password(from_stdin: bool, *, confirm: bool = False) -> str:
    """A password from standard input (its first line) or from a person at a terminal, unseen. Raises CannotStart when
    there is neither."""
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
        if not password:
            raise CannotStart("standard input holds no password")
        return password
    if not sys.stdin.isatty():
        raise CannotStart("there is no terminal to ask for the password: pass it with --password-stdin")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=confirm, err=True))


def _ask_for_name() -> str:
    if not sys.stdin.isatty():
        raise CannotStart("there is no terminal to ask who logs in: name the user with --username")
    return str(typer.prompt("User name", default="admin", err=True))
