"""The command `xzepr config`: prints the settings in effect and their origins, with secrets masked."""

import sys
from dataclasses import asdict
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from xzepr.cli.options import ConfigFile, DataDir, load_settings
from xzepr.cli.output import AsJson
from xzepr.settings.load import DEFAULT
from xzepr.settings.masking import ShownSetting, shown_settings
from xzepr.settings.reference import reference


def config(
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    as_reference: Annotated[bool, typer.Option("--reference", hidden=True)] = False,
) -> None:
    """Show the settings in effect and where each came from. Secrets are masked."""
    if as_reference:
        typer.echo(reference(), nl=False)
        return
    lines = shown_settings(load_settings(config, data_dir))
    if as_json:
        typer.echo(orjson.dumps([asdict(line) for line in lines], option=orjson.OPT_INDENT_2))
    elif sys.stdout.isatty():
        Console().print(_table(lines))
    else:
        for line in lines:
            typer.echo("\t".join((line.key, _text(line), _origin(line))))


def _table(lines: list[ShownSetting]) -> Table:
    table = Table("key", "value", "from", box=None, pad_edge=False)
    for line in lines:
        # As Text: rich would otherwise parse a list in square brackets as markup.
        table.add_row(line.key, Text(_text(line)), Text(_origin(line)), style="dim" if line.origin == DEFAULT else None)
    return table


def _text(line: ShownSetting) -> str:
    if line.value is None:
        return "-"
    if isinstance(line.value, bool):
        return str(line.value).lower()
    return ",".join(line.value) or "-" if isinstance(line.value, list) else str(line.value)


def _origin(line: ShownSetting) -> str:
    ignored = not line.in_effect and line.origin != DEFAULT
    return f"{line.origin} (not in effect yet)" if ignored else line.origin
