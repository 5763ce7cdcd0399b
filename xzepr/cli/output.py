"""How commands print: JSON when asked, a table on a terminal, otherwise lines with tabs that other programs can cut."""

import re
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

# What a terminal obeys instead of showing: C0, DEL and C1. Names and descriptions come from whoever reports events.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def visible(value: object) -> str:
    """The value as one line of text in which nothing commands a terminal; `-` for None and the empty text."""
    text = "" if value is None else str(value)
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text) or "-"


def print_json(value: object) -> None:
    """Prints the value as indented JSON."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2))


def print_json_line(value: object) -> None:
    """Prints the value as JSON in one line, at once."""
    typer.echo(orjson.dumps(value))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a table with a heading on a terminal, and otherwise the rows alone with tabs between their cells."""
    if not sys.stdout.isatty():
        for row in rows:
            typer.echo("\t".join(visible(cell) for cell in row))
        return
    Console().print(table_of(columns, rows))


def table_of(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table as a terminal shows it."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")  # an id that ends in an ellipsis cannot be copied
    for row in rows:
        # As Text: a name in square brackets would otherwise be read as rich's own markup.
        table.add_row(*(Text(visible(cell), style=STYLES.get(str(cell), "")) for cell in row))
    return table


STYLES = {
    "PASSED": "green",
    "FAILED": "red",
    "MISSING": "yellow",
    "stopped": "red",
    "following": "green",
    "nobody": "red",
}
"""The colour of words that a table says often."""


def print_line(text: str, style: str = "") -> None:
    """Prints one line, in colour on a terminal, at once."""
    if sys.stdout.isatty():
        Console(soft_wrap=True).print(Text(text, style=style))
    else:
        typer.echo(text)


def say(text: str) -> None:
    """Tells the person at the terminal something that is not the command's answer."""
    typer.echo(f"xzepr: {text}", err=True)
