"""The commands `xzepr api-keys`: create, list and revoke the keys with which programs act for a user."""

from typing import Annotated, Any

import typer

from xzepr.cli.client.http import DEFAULT_HUB, HubUrl, open_client
from xzepr.cli.output import AsJson, print_json, print_notice, print_table, printable
from xzepr.cli.times import parse_future
from xzepr.core.actor import Permission
from xzepr.core.errors import CannotStart
from xzepr.core.ids import is_id

app = typer.Typer(no_args_is_help=True)

_FIELDS = "id name permissions createdAt expiresAt"
_CREATE = f"""
mutation ($input: CreateApiKeyInput!) {{ createApiKey(input: $input) {{ secret apiKey {{ {_FIELDS} }} }} }}
"""
_LIST = f"{{ apiKeys {{ {_FIELDS} }} }}"
_REVOKE = "mutation ($input: RevokeApiKeyInput!) { revokeApiKey(input: $input) { id } }"


@app.callback()
def _api_keys() -> None:  # pyright: ignore[reportUnusedFunction] - typer calls it, for the help
    """Create, list and revoke API keys."""


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name that tells your keys apart.")],
    permission: Annotated[
        list[Permission] | None,
        typer.Option(
            "--permission",
            help="Limit the key to this permission. May be given several times. All of yours by default.",
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="When it expires: 90d, a date or a time. Never by default.", parser=parse_future
        ),
    ] = None,
    hub: HubUrl = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Create an API key that acts for you, and print its secret, which is shown only once. Needs a login."""
    permissions = [item.name for item in permission] if permission else None
    with open_client(hub) as client:
        input = {"name": name, "permissions": permissions, "expiresAt": expires}
        created = client.execute(_CREATE, input=input)["createApiKey"]
    if as_json:
        print_json(created)
        return
    key = created["apiKey"]
    print_notice(
        f"created API key {key['id']} ({_permissions(key)}; expires {key['expiresAt'] or 'never'}); "
        "its secret is shown only now"
    )
    typer.echo(created["secret"])


@app.command("list")
def list_keys(hub: HubUrl = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """List your API keys that are not revoked, newest first. Secrets are not shown."""
    with open_client(hub) as client:
        keys = client.execute(_LIST)["apiKeys"]
    if as_json:
        print_json(keys)
        return
    rows = [(key["id"], key["name"], key["expiresAt"] or "never", _permissions(key)) for key in keys]
    print_table(("id", "name", "expires", "permissions"), rows)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key's id, or its name if only one has it.")],
    hub: HubUrl = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Revoke an API key. It is rejected within 5 seconds. With user:manage, also of another user, by its id."""
    with open_client(hub) as client:
        id = key if is_id(key) else _id_of(client.execute(_LIST)["apiKeys"], key)
        revoked = client.execute(_REVOKE, input={"id": id})["revokeApiKey"]
    if as_json:
        print_json(revoked)
    else:
        typer.echo(f"Revoked API key {revoked['id']}.")


def _id_of(keys: list[Any], name: str) -> str:
    ids = [str(key["id"]) for key in keys if key["name"] == name]
    if not ids:
        raise CannotStart(f"you have no API key named {printable(name)!r}: `xzepr api-keys list` lists yours")
    if len(ids) > 1:
        raise CannotStart(f"{len(ids)} of your API keys are named {printable(name)!r}: use an id ({', '.join(ids)})")
    return ids[0]


def _permissions(key: dict[str, Any]) -> str:
    if key["permissions"] is None:
        return "all permissions of its user"
    return ", ".join(Permission[name].value for name in key["permissions"])
