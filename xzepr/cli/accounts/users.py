"""The command `xzepr users create`: creates a local account on a hub."""

from typing import Annotated

import typer

from xzepr.cli.client.http import DEFAULT_HUB, HubUrl, open_client
from xzepr.cli.login import PasswordStdin, read_password
from xzepr.cli.output import AsJson, print_json, printable
from xzepr.core.actor import Role

app = typer.Typer(no_args_is_help=True)

_CREATE = """
mutation ($input: CreateUserInput!) { createUser(input: $input) { user { id username roles enabled createdAt } } }
"""


@app.callback()
def _users() -> None:  # pyright: ignore[reportUnusedFunction] - typer calls it so that `create` is a subcommand
    """Create users."""


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="The user name.")],
    role: Annotated[list[Role], typer.Option("--role", help="Role of the user. May be given several times.")],
    password_stdin: PasswordStdin = False,
    hub: HubUrl = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Create a user. The password is prompted for twice or read from standard input. Needs user:manage."""
    with open_client(hub) as client:
        password = read_password(password_stdin, confirm=True)
        input = {"username": name, "password": password, "roles": [item.name for item in role]}
        user = client.execute(_CREATE, input=input)["createUser"]["user"]
    if as_json:
        print_json(user)
    else:
        roles = ", ".join(str(item).lower() for item in user["roles"])
        typer.echo(f"Created user {printable(user['username'])} ({roles}), id {user['id']}.")
