"""`xzepr users create`: a local account on a hub."""

from typing import Annotated

import typer

from xzepr.cli.client.http import DEFAULT_HUB, HubUrl, connected
from xzepr.cli.login import PasswordStdin, read_password
from xzepr.cli.output import AsJson, print_json, visible
from xzepr.core.actor import Role

app = typer.Typer(no_args_is_help=True)

_CREATE = """
mutation ($input: CreateUserInput!) { createUser(input: $input) { user { id username roles enabled createdAt } } }
"""


@app.callback()
def _users() -> None:  # pyright: ignore[reportUnusedFunction] - typer calls it; it makes `create` a word of its own
    """Create the accounts of a hub."""


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the user logs in with.")],
    role: Annotated[list[Role], typer.Option("--role", help="What they may do; may be given several times.")],
    password_stdin: PasswordStdin = False,
    hub: HubUrl = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Create a user. Needs user:manage. The password is asked for twice, or read from standard input."""
    with connected(hub) as client:
        password = read_password(password_stdin, confirm=True)
        asked = {"username": name, "password": password, "roles": [one.name for one in role]}
        user = client.ask(_CREATE, input=asked)["createUser"]["user"]
    if as_json:
        print_json(user)
    else:
        roles = ", ".join(str(one).lower() for one in user["roles"])
        typer.echo(f"Created user {visible(user['username'])} ({roles}), id {user['id']}.")
