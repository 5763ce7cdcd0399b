"""The commands `xzepr backup` and `xzepr restore`: the hub's database to a file, and back."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from xzepr.cli.options import ConfigFile, DataDir, load_settings
from xzepr.core.errors import CannotStart
from xzepr.infra import backup as backups
from xzepr.infra.embedded import EmbeddedPostgres, running_url
from xzepr.settings import Settings

Result = TypeVar("Result")
BackupFile = Annotated[Path, typer.Argument(metavar="FILE", show_default=False)]


def backup(file: BackupFile, config: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Write the database to a new file, in the format of pg_dump, as it is at one moment.

    The hub may be running. The signing keys are not in the file."""
    settings = load_settings(config, data_dir).settings
    external = settings.database.url
    if external is not None:
        size = backups.dump(external.get_secret_value(), file)
    elif running := running_url(settings.data_dir):
        size = backups.dump(running, file)
    elif (settings.data_dir / "postgres").exists():
        size = _with_embedded(settings, lambda url: backups.dump(url, file))
    else:
        raise CannotStart(f"there is no hub in the data folder {settings.data_dir}")
    typer.echo(f"Written to {file}: {size:,} bytes")


def restore(file: BackupFile, config: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Read a file of `xzepr backup` into an empty database: that of `database.url`, or a new one in the data folder.

    The hub must not be running."""
    settings = load_settings(config, data_dir).settings
    external = settings.database.url
    if external is not None:
        backups.restore(external.get_secret_value(), file)
    elif not file.exists():
        raise CannotStart(f"{file} does not exist")
    else:
        _with_embedded(settings, lambda url: backups.restore(url, file))
    typer.echo(f"Restored from {file}. Start the hub: it brings the schema up to date.")


def _with_embedded(settings: Settings, work: Callable[[str], Result]) -> Result:
    """Runs the embedded PostgreSQL for the duration of `work`. Raises CannotStart if a hub is running."""

    async def run() -> Result:
        server = await EmbeddedPostgres.start(settings.data_dir, report=typer.echo)
        try:
            return await asyncio.to_thread(work, server.url)
        finally:
            await server.stop()

    return asyncio.run(run())
