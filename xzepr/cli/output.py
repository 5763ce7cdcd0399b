"""Prints the results of commands: JSON, a table on a terminal, or lines with tabs for other programs."""

import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

if TYPE_CHECKING:  # rich is imported where it is needed: on a terminal
    from rich.table import Table

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

# Characters that a terminal would interpret or not show: controls (C0, DEL, C1), invisible characters, those that
# change the direction of text, and lone surrogates. Names and descriptions come from clients and are not trusted.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ud800-\udfff\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def printable(value: object) -> str:
    """Returns the value as one line with control, invisible and bidirectional characters escaped.

    `-` stands for None and the empty string.
    """
    text = "" if value is None else str(value)
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text) or "-"


def unknown_key_message(key: str, allowed: Sequence[str]) -> str:
    """Returns a message about an unknown key, with the most similar allowed key or else all of them."""
    similar = difflib.get_close_matches(key, allowed, n=1)
    hint = f"did you mean {similar[0]}?" if similar else f"use one of {', '.join(allowed)}"
    return f"{printable(key)!r} is not known here: {hint}"


def print_json(value: object) -> None:
    """Prints the value as indented JSON."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2))


def print_json_line(value: object) -> None:
    """Prints the value as one line of JSON."""
    typer.echo(orjson.dumps(value))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a table with headings on a terminal; elsewhere, only the rows, with tabs between the cells."""
    if not sys.stdout.isatty():
        for row in rows:
            typer.echo("\t".join(printable(cell) for cell in row))
        return
    from rich.console import Console

    Console().print(rich_table(columns, rows))


def rich_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> "Table":
    """Returns a table for a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")  # a truncated id could not be copied
    for row in rows:
        # As Text: rich would otherwise parse a name in square brackets as markup.
        table.add_row(*(Text(printable(cell), style=_STYLES.get(str(cell), "")) for cell in row))
    return table


# The colours of table cells with these texts.
_STYLES = {
    "PASSED": "green",
    "FAILED": "red",
    "MISSING": "yellow",
    "stopped": "red",
    "following": "green",
    "none": "red",
}


def print_line(text: str, style: str = "") -> None:
    """Prints one line, styled on a terminal."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.text import Text

        Console(soft_wrap=True).print(Text(text, style=style))
    else:
        typer.echo(text)


def print_notice(text: str) -> None:
    """Prints a notice for the user on standard error, apart from the command's output."""
    typer.echo(f"xzepr: {text}", err=True)
