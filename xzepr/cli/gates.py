"""`xzepr gates`: what a unit has passed, and waiting until a gate is complete for it."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from xzepr.cli.client.http import DEFAULT_HUB, Client, HubUrl, JsonObject, connected
from xzepr.cli.client.lookup import GROUP, id_of
from xzepr.cli.client.units import UNIT_FIELDS, Name, Near, Package, Platform, Release, Unit, Version, near
from xzepr.cli.client.waiting import GATE_FIELDS, Outcome, Waiting
from xzepr.cli.output import AsJson, print_json, print_line, print_table, visible
from xzepr.core.errors import CannotStart

app = typer.Typer(no_args_is_help=True)

_OF_UNIT = f"""
query ($unit: UnitInput!) {{
  unit(key: $unit) {{ id {UNIT_FIELDS} events(first: 1) {{ nodes {{ id }} }} gates {{ {GATE_FIELDS} }} }}
}}
"""
_OF_GROUP = f"""
query ($group: ID!, $unit: UnitInput!) {{
  unit(key: $unit) {{ id {UNIT_FIELDS} events(first: 1) {{ nodes {{ id }} }} }}
  gate(groupId: $group, unit: $unit) {{ {GATE_FIELDS} }}
}}
"""

GroupType = Annotated[str | None, typer.Option(help="The group's type, where its name does not tell it.")]
GroupVersion = Annotated[str | None, typer.Option(help="The group's version, where its name does not tell it.")]


class Exit(IntEnum):
    """How `gates wait` ends."""

    COMPLETE = 0
    FAILED = 1
    MISSING = 2
    UNKNOWN = 3


class _WaitCommand(TyperCommand):
    """`gates wait`, whose exit code 2 means something: what cannot be parsed is 3, the hub was never asked."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parses the command line."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except typer.TyperException as error:
            error.exit_code = Exit.UNKNOWN
            raise


@app.callback()
def _gates() -> None:  # pyright: ignore[reportUnusedFunction] - typer calls it, for the help
    """Show what a version has passed, and wait until it has."""


@app.command()
def show(
    name: Name,
    version: Version,
    release: Release,
    platform: Platform,
    package: Package,
    group: Annotated[
        str | None,
        typer.Option(metavar="GROUP", help="Only this group, by id or name, also where nothing was reported."),
    ] = None,
    group_type: GroupType = None,
    group_version: GroupVersion = None,
    hub: HubUrl = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Show every gate that the unit's events count for, and what each member says. When nothing was reported on the
    unit, units that differ from it in one field are listed: it may be mistyped."""
    unit = Unit(name, version, release, platform, package)
    with connected(hub) as client:
        gates, reported = _gates_of(client, unit, group, group_type, group_version)
        others = [] if reported else near(client, unit)
    if as_json:
        print_json(
            {"unit": unit.as_input(), "reported": reported, "gates": gates, "near": [o.as_json() for o in others]}
        )
        return
    for gate in gates:
        print_gate(gate)
    if not reported:
        _print_near(unit, others)
    elif not gates:
        print_line(f"Events were reported on {unit}, and no group has their receivers.")


def _gates_of(
    client: Client, unit: Unit, group: str | None, type: str | None, version: str | None
) -> tuple[list[JsonObject], bool]:
    """The gates, and whether anything was reported on the unit."""
    if group is None:
        answer = client.ask(_OF_UNIT, unit=unit.as_input())
        gates = answer["unit"]["gates"]
    else:
        answer = client.ask(_OF_GROUP, unit=unit.as_input(), group=id_of(client, GROUP, group, type, version))
        gates = [answer["gate"]]
    return gates, bool(answer["unit"]["events"]["nodes"])


def print_gate(gate: JsonObject) -> None:
    """Prints a gate and its members."""
    group = gate["group"]
    title = f"{visible(group['name'])} ({visible(group['type'])} {visible(group['version'])})"
    off = "" if group["enabled"] else ", disabled"
    if gate["complete"]:
        print_line(f"{title}: complete since {gate['since']}{off}", "bold green")
    else:
        print_line(f"{title}: not complete{off}", "bold yellow")
    print_table(("member", "receiver", "event", "reported", "description"), [_row(one) for one in gate["members"]])


def _row(member: JsonObject) -> Sequence[object]:
    receiver: JsonObject = member["eventReceiver"]
    event: JsonObject = member["event"] or {}
    called = f"{receiver['name']} ({receiver['type']} {receiver['version']})"
    return (member["state"], called, event.get("id"), event.get("recordedAt"), event.get("description"))


def _print_near(unit: Unit, others: list[Near]) -> None:
    print_line(f"Nothing was reported on {unit}.")
    if others:
        print_line("Units that differ from it in one field:")
        print_table(
            ("unit", "differs in"), [(str(other.unit), f"{other.field} {visible(other.value)}") for other in others]
        )


@app.command(cls=_WaitCommand)
def wait(
    group: Annotated[str, typer.Argument(metavar="GROUP", help="The group's id or name.")],
    name: Name,
    version: Version,
    release: Release,
    platform: Platform,
    package: Package,
    timeout: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="How long to wait; 0 asks once.")],
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="End at once when a member failed.")] = False,
    group_type: GroupType = None,
    group_version: GroupVersion = None,
    hub: HubUrl = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Wait until a gate is complete for a unit. Exit code 0: it is. At the time-out 1: a member failed; 2: none failed,
    and one is missing. With --fail-fast 1 as soon as a member failed. 3: the hub cannot say."""
    unit = Unit(name, version, release, platform, package)
    try:
        with connected(hub) as client:
            group_id = id_of(client, GROUP, group, group_type, group_version)
            outcome = Waiting(client, group_id, unit, timeout, fail_fast=fail_fast).until_decided()
    except CannotStart as error:
        typer.echo(f"xzepr: {error}", err=True)
        raise typer.Exit(Exit.UNKNOWN) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if as_json:
        print_json({"outcome": outcome.name, "gate": outcome.gate})
    else:
        print_gate(outcome.gate)
    raise typer.Exit(_exit(outcome))


def _exit(outcome: Outcome) -> Exit:
    return Exit[outcome.name]
