"""The command line: a table of command families, of which only the requested one is imported."""

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from xzepr.core.errors import CannotStart


@dataclass(frozen=True, slots=True)
class CommandFamily:
    """A first word after `xzepr`: a command, or a group of commands."""

    name: str
    target: str
    """`module:name` of a typer app, or of a function that is the command."""
    help: str
    server: bool = False
    """Whether it needs the packages of the extra `server`."""


FAMILIES = (
    CommandFamily("serve", "xzepr.cli.serve:serve", "Serve the hub.", server=True),
    CommandFamily("work", "xzepr.cli.work:work", "Relay into Kafka, in a process that serves no clients.", server=True),
    CommandFamily("schema", "xzepr.cli.local.schema:schema", "Print the GraphQL schema.", server=True),
    CommandFamily(
        "migrate",
        "xzepr.cli.local.migrate:migrate",
        "Bring the database's schema up to date, or show what would change.",
        server=True,
    ),
    CommandFamily("backup", "xzepr.cli.local.backup:backup", "Write the database to a file.", server=True),
    CommandFamily("restore", "xzepr.cli.local.backup:restore", "Read a backup into an empty database.", server=True),
    CommandFamily(
        "config", "xzepr.cli.local.config:config", "Show the settings in effect and where each came from.", server=True
    ),
    CommandFamily("keys", "xzepr.cli.local.keys:app", "Create the keys that sign access tokens.", server=True),
    CommandFamily(
        "login", "xzepr.cli.accounts.login:login", "Log in to a hub. The commands below need a login or an API key."
    ),
    CommandFamily("logout", "xzepr.cli.accounts.login:logout", "Delete the stored login to a hub."),
    CommandFamily("whoami", "xzepr.cli.accounts.login:whoami", "Show your user name, credential and permissions."),
    CommandFamily("api-keys", "xzepr.cli.accounts.api_keys:app", "Create, list and revoke API keys."),
    CommandFamily("users", "xzepr.cli.accounts.users:app", "Create and list users."),
    CommandFamily("apply", "xzepr.cli.apply:apply", "Make the receivers and groups of a hub match a file."),
    CommandFamily("events", "xzepr.cli.events:app", "Record, list and follow events."),
    CommandFamily("gates", "xzepr.cli.gates:app", "Show which gates of a unit are complete, and wait for one."),
    CommandFamily("stream", "xzepr.cli.stream:app", "Show the status of the stream, and manage its relay into Kafka."),
    CommandFamily("demo", "xzepr.cli.demo:demo", "Run a release pipeline against a temporary hub.", server=True),
)


def assemble(arguments: Sequence[str]) -> typer.Typer:
    """Returns the typer app for a command line.

    Only the family that the arguments name is imported. The others are listed in the help but cannot run.
    """
    app = typer.Typer(
        name="xzepr",
        help="An event hub for the software supply chain.",
        no_args_is_help=True,
        add_completion=False,
        # Typer's tracebacks show local variables, which may contain secrets.
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    requested = next((argument for argument in arguments if not argument.startswith("-")), None)
    for family in FAMILIES:
        if family.name == requested:
            _add(app, family)
        else:
            app.command(family.name, help=family.help)(_not_imported)
    return app


def _add(app: typer.Typer, family: CommandFamily) -> None:
    if family.server and importlib.util.find_spec("psycopg") is None:
        raise CannotStart(f"xzepr {family.name} needs the server, which is not installed: pip install 'xzepr[server]'")
    module, _, name = family.target.partition(":")
    command: typer.Typer | Callable[..., Any] = getattr(importlib.import_module(module), name)
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=family.name, help=family.help)
    else:
        app.command(family.name)(command)


def _not_imported() -> None:
    raise AssertionError("the family named on the command line was not imported")


def _print_version(requested: bool) -> None:
    if requested:
        from xzepr.cli.version import version

        typer.echo(f"xzepr {version()}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Accepts the options before the command's name. `--version` is handled by its callback."""
