"""The command `xzepr config`: prints the settings in effect and their origins, with secrets masked."""

import sys
from dataclasses import asdict
from typing import Annotated

import orjson
import typer

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
    settings = shown_settings(load_settings(config, data_dir))
    if as_json:
        typer.echo(orjson.dumps([asdict(setting) for setting in settings], option=orjson.OPT_INDENT_2))
    elif sys.stdout.isatty():
        _print_table(settings)
    else:
        for setting in settings:
            typer.echo("\t".join((setting.key, _text(setting), setting.origin)))


def _print_table(settings: list[ShownSetting]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("key", "value", "from", box=None, pad_edge=False)
    for setting in settings:
        # As Text: rich would otherwise parse a list in square brackets as markup.
        style = "dim" if setting.origin == DEFAULT else None
        table.add_row(setting.key, Text(_text(setting)), Text(setting.origin), style=style)
    Console().print(table)


def _text(setting: ShownSetting) -> str:
    if setting.value is None:
        return "-"
    if isinstance(setting.value, bool):
        return str(setting.value).lower()
    return ",".join(setting.value) or "-" if isinstance(setting.value, list) else str(setting.value)
