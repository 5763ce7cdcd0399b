"""The command `xzepr migrate`: applies database migrations, or lists what it would apply."""

from typing import Annotated

import typer

from xzepr.cli.options import ConfigFile, DataDir, load_settings
from xzepr.core.errors import CannotStart
from xzepr.infra import migrate as migrations


def migrate(
    config: ConfigFile = None,
    data_dir: DataDir = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be applied and change nothing.")] = False,
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL that would run and change nothing.")] = False,
) -> None:
    """Migrate the database at `database.url`. The embedded database is migrated when `xzepr serve` starts."""
    if dry_run and sql:
        raise CannotStart("--dry-run and --sql exclude each other: choose one")
    secret = load_settings(config, data_dir).settings.database.url
    url = secret.get_secret_value() if secret else None
    if sql:
        typer.echo(migrations.script(url))
    elif url is None:
        # A job that lacks its secret must fail.
        raise CannotStart("database.url is not set: `xzepr serve` migrates the embedded database when it starts")
    elif dry_run:
        _print_revisions("to apply", migrations.pending(url))
    else:
        _print_revisions("applied", migrations.migrate(url, report=typer.echo))


def _print_revisions(label: str, revisions: list[str]) -> None:
    for revision in revisions:
        typer.echo(f"{label}: {revision}")
    if not revisions:
        typer.echo("The schema is up to date.")
