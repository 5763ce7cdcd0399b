"""The command line: the table of command families, of which only the one that was asked for is imported."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from xzepr import __version__


@dataclass(frozen=True, slots=True)
class Family:
    """One word after `xzepr`. `where` is `module:name` of a typer app, or of one function that is the command."""

    name: str
    where: str
    help: str


FAMILIES = (
    Family("serve", "xzepr.cli.serve:serve", "Serve the hub, with a PostgreSQL of its own unless one is named."),
    Family("work", "xzepr.cli.work:work", "Relay into Kafka and keep house, beside servers that leave this to others."),
    Family("schema", "xzepr.cli.schema:schema", "Print the GraphQL schema."),
    Family(
        "migrate", "xzepr.cli.migrate:migrate", "Bring the database's schema up to date, or show what would change."
    ),
    Family("config", "xzepr.cli.config:config", "Show the settings in force and where each came from."),
    Family("keys", "xzepr.cli.keys:app", "Make the keys that sign access tokens."),
    Family("login", "xzepr.cli.login:login", "Log in to a hub; the commands below need it, or an API key."),
    Family("users", "xzepr.cli.users:app", "Create users."),
    Family("apply", "xzepr.cli.apply:apply", "Bring receivers and groups to what a file says."),
    Family("events", "xzepr.cli.events:app", "Record, list and follow events."),
    Family("gates", "xzepr.cli.gates:app", "Show what a version has passed, and wait until it has."),
    Family("stream", "xzepr.cli.stream:app", "Look after the stream and its relay into Kafka."),
    Family("demo", "xzepr.cli.demo:demo", "Play a release pipeline against a throw-away hub."),
)


def assemble(arguments: Sequence[str]) -> typer.Typer:
    """The typer app for a command line: the family it names is imported, the others are there for the help alone."""
    app = typer.Typer(
        name="xzepr",
        help="An event hub for the software supply chain.",
        no_args_is_help=True,
        add_completion=False,
        # Their tracebacks show local variables, and with them secrets.
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    wanted = next((argument for argument in arguments if not argument.startswith("-")), None)
    for family in FAMILIES:
        if family.name == wanted:
            _add(app, family)
        else:
            app.command(family.name, help=family.help)(_not_imported)
    return app


def _add(app: typer.Typer, family: Family) -> None:
    module, _, name = family.where.partition(":")
    found: typer.Typer | Callable[..., Any] = getattr(importlib.import_module(module), name)
    if isinstance(found, typer.Typer):
        app.add_typer(found, name=family.name, help=family.help)
    else:
        app.command(family.name)(found)


def _not_imported() -> None:
    raise AssertionError("the family that the command line names is imported before it is run")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"xzepr {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Options before the command's name; `--version` has done its work when this is called."""
