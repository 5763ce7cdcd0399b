"""Options of the commands that read the settings, and the function that loads them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from xzepr.settings import LoadedSettings, load

ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Settings file that overrides those in config/.")
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="Folder of all local state (setting: data_dir)."),
]


def load_settings(config: Path | None, data_dir: Path | None, flags: Mapping[str, Any] | None = None) -> LoadedSettings:
    """Loads the settings. `flags` maps dotted setting keys to further options, with None for an option not given.

    Raises CannotStart with a message that lists every mistake.
    """
    return load(config_file=config, flags={"data_dir": data_dir, **(flags or {})})
