"""The reference page of the command line: its generated part, from the typer apps themselves.

`python -m tests.contract.command_line_page` brings docs/reference/command_line.md up to date.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from xzepr.cli import FAMILIES, assemble

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "command_line.md"
MARK = "<!-- Below this line everything is made by `python -m tests.contract.command_line_page`. -->\n"


def generated() -> str:
    """One section for each command, in the order of the table of families."""
    return "\n".join(section for family in FAMILIES for section in _sections(family.name))


def written(page: str) -> str:
    """The page with its generated part as it should be."""
    return page.partition(MARK)[0] + MARK + "\n" + generated()


def _sections(family: str) -> Iterator[str]:
    # Click's own types are private to typer, so commands and parameters are looked at as they come.
    group: Any = get_command(assemble([family]))
    command = group.commands[family]
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            yield _section(f"{family} {name}", below)
    else:
        yield _section(family, command)


def _section(name: str, command: Any) -> str:
    params = [param for param in command.params if not getattr(param, "hidden", False)]
    arguments = [param for param in params if param.param_type_name == "argument"]
    usage = " ".join(["xzepr", name, *(str(one.metavar or one.name.upper()) for one in arguments), "[OPTIONS]"])
    help = " ".join(str(command.help).split())
    rows = [_row(param) for param in [*arguments, *(one for one in params if one not in arguments)]]
    table = ["| | |", "| --- | --- |", *rows, ""] if rows else []
    return "\n".join([f"## xzepr {name}", "", f"`{usage}`", "", help, "", *table])


def _row(param: Any) -> str:
    if param.param_type_name == "argument":
        return f"| `{param.metavar or param.name.upper()}` | {param.help} |"
    names = ", ".join(f"`{name}`" for name in (*param.opts, *param.secondary_opts))
    value = f" `{param.metavar}`" if param.metavar else ""
    extra = " Required." if param.required else ""
    extra += f" Variable: `{param.envvar}`." if param.envvar else ""
    if param.default is not None and not param.is_flag and not param.required and param.default != ():
        extra += f" Default: `{param.default}`."
    return f"| {names}{value} | {param.help or ''}{extra} |"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
