"""The commands `xzepr users`: create and list the local accounts of a hub."""

from typing import Annotated

import typer

from xzepr.cli.accounts.login import PasswordStdin, read_password
from xzepr.cli.client.http import DEFAULT_HUB, HubUrl, open_client
from xzepr.cli.output import AsJson, print_json, print_table, printable
from xzepr.core.actor import Role

app = typer.Typer(no_args_is_help=True)

_CREATE = """
mutation ($input: CreateUserInput!) { createUser(input: $input) { user { id username roles enabled createdAt } } }
"""
_LIST = "{ users { id username roles enabled createdAt } }"


@app.callback()
def _users() -> None:  # pyright: ignore[reportUnusedFunction] - typer calls it, for the help
    """Create and list users."""


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


@app.command("list")
def list_users(hub: HubUrl = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """List the users by name, at most 1,000. Needs user:manage."""
    with open_client(hub) as client:
        users = client.execute(_LIST)["users"]
    if as_json:
        print_json(users)
        return
    rows = [
        (
            user["username"],
            "enabled" if user["enabled"] else "disabled",
            ", ".join(map(str.lower, user["roles"])),
            user["id"],
        )
        for user in users
    ]
    print_table(("name", "state", "roles", "id"), rows)
