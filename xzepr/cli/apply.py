"""The command `xzepr apply`: makes the receivers and groups of a hub match a file."""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, cast

import orjson
import typer

from xzepr.cli import hub_file
from xzepr.cli.apply_plan import Action, ApplyRun, Change
from xzepr.cli.client.http import DEFAULT_HUB, HubUrl, RequestRejected, open_client
from xzepr.cli.output import AsJson, print_json, print_line, printable
from xzepr.core.errors import CannotStart

_SIGNS = {Action.CREATE: ("+", "green"), Action.UPDATE: ("~", "yellow"), Action.KEEP: ("=", "dim")}
_SUMMARY_WORDS = {Action.CREATE: "created", Action.UPDATE: "updated", Action.KEEP: "unchanged"}


def apply(
    file: Annotated[Path, typer.Option("--file", "-f", metavar="FILE", help="The receivers and groups, in YAML.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the differences and change nothing.")] = False,
    hub: HubUrl = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Create the receivers and groups of a file that the hub lacks, and update those that differ. Receivers and groups
    that the file does not name are left alone."""
    declared = hub_file.read(file)
    changes: list[Change] = []
    with open_client(hub) as client:
        try:
            for change in ApplyRun(client, declared, dry_run).changes():
                changes.append(change)
                if not as_json:
                    _print(change)
        except RequestRejected as error:
            raise CannotStart(f"{error}{_progress_note(changes, dry_run)}") from error
    if as_json:
        print_json([change.as_json() for change in changes])
    else:
        print_line(_summary(changes, dry_run))


def _print(change: Change) -> None:
    sign, style = _SIGNS[change.action]
    print_line(f"{sign} {change.noun} {printable(change.key)}", style)
    if change.action is not Action.UPDATE:
        return
    for difference in change.differences:
        if difference.field == "schema":
            print_line("    schema:")
            for line in _diff_lines(difference.before, difference.after):
                print_line(f"      {printable(line)}", {"+": "green", "-": "red"}.get(line[:1], ""))
        else:
            print_line(f"    {difference.field}: {_display(difference.before)} → {_display(difference.after)}")


def _diff_lines(before: Any, after: Any) -> Iterator[str]:
    old, new = _indented_json(before).splitlines(), _indented_json(after).splitlines()
    # The first two lines are the names of the compared files.
    for index, line in enumerate(difflib.unified_diff(old, new, lineterm="", n=2)):
        if index >= 2:
            yield line


def _indented_json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode()


def _display(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(printable(item) for item in cast("list[Any]", value)) + "]"
    return orjson.dumps(value).decode()


def _summary(changes: list[Change], dry_run: bool) -> str:
    counts = [f"{sum(change.action is action for change in changes)} {word}" for action, word in _SUMMARY_WORDS.items()]
    return f"{'Would be: ' if dry_run else ''}{', '.join(counts)}."


def _progress_note(changes: list[Change], dry_run: bool) -> str:
    """Returns what to do after an error when some changes have already been made."""
    count = sum(change.action is not Action.KEEP for change in changes)
    if dry_run or count == 0:
        return ""
    return f" ({count} changed before this error: fix its cause and run the command again to apply the rest)"
