"""`xzepr apply`: bring a hub's receivers and groups to what a file says."""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, cast

import orjson
import typer

from xzepr.cli import hub_file
from xzepr.cli.apply_plan import Action, Apply, Change
from xzepr.cli.client.http import DEFAULT_HUB, HubUrl, Refused, connected
from xzepr.cli.output import AsJson, print_json, print_line, visible
from xzepr.core.errors import CannotStart

_SIGNS = {Action.CREATE: ("+", "green"), Action.UPDATE: ("~", "yellow"), Action.KEEP: ("=", "dim")}
_DONE = {Action.CREATE: "created", Action.UPDATE: "updated", Action.KEEP: "unchanged"}


def apply(
    file: Annotated[Path, typer.Option("--file", "-f", metavar="FILE", help="The receivers and groups, in YAML.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the difference, and change nothing.")] = False,
    hub: HubUrl = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Create and update the receivers and groups of a file; what is as the file says stays untouched, and what the file
    does not name is left alone."""
    wanted = hub_file.read(file)
    done: list[Change] = []
    with connected(hub) as client:
        try:
            for change in Apply(client, wanted, dry_run).changes():
                done.append(change)
                if not as_json:
                    _print(change)
        except Refused as refusal:
            raise CannotStart(f"{refusal}{_so_far(done, dry_run)}") from refusal
    if as_json:
        print_json([change.as_json() for change in done])
    else:
        print_line(_summary(done, dry_run))


def _print(change: Change) -> None:
    sign, style = _SIGNS[change.action]
    print_line(f"{sign} {change.noun} {visible(change.key)}", style)
    if change.action is not Action.UPDATE:
        return
    for difference in change.differences:
        if difference.field == "schema":
            print_line("    schema:")
            for line in _unified(difference.before, difference.after):
                print_line(f"      {visible(line)}", {"+": "green", "-": "red"}.get(line[:1], ""))
        else:
            print_line(f"    {difference.field}: {_shown(difference.before)} → {_shown(difference.after)}")


def _unified(before: Any, after: Any) -> Iterator[str]:
    old, new = _indented(before).splitlines(), _indented(after).splitlines()
    # The two lines before the first `@@` name files.
    for index, line in enumerate(difflib.unified_diff(old, new, lineterm="", n=2)):
        if index >= 2:
            yield line


def _indented(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode()


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(visible(item) for item in cast("list[Any]", value)) + "]"
    return orjson.dumps(value).decode()


def _summary(done: list[Change], dry_run: bool) -> str:
    counts = [f"{sum(one.action is action for one in done)} {word}" for action, word in _DONE.items()]
    return f"{'Would be: ' if dry_run else ''}{', '.join(counts)}."


def _so_far(done: list[Change], dry_run: bool) -> str:
    changed = sum(one.action is not Action.KEEP for one in done)
    if dry_run or changed == 0:
        return ""
    return f" ({changed} changed before it; run it again when that is mended, and it goes on)"
