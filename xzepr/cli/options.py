"""The options of commands that read the settings, and the reading."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from xzepr.settings import Loaded, load

ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Settings that override those in config/.")
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="Folder of all local state: data_dir of the settings."),
]


def load_settings(config: Path | None, data_dir: Path | None, flags: Mapping[str, Any] | None = None) -> Loaded:
    """The settings of this command; `flags` holds further options by dotted key, None where one was not given.

    Raises CannotStart with a message that lists everything wrong.
    """
    return load(config_file=config, flags={"data_dir": data_dir, **(flags or {})})
