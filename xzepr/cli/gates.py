"""The commands `xzepr gates`: show the gates of a unit, and wait until one is complete."""

import time
from collections.abc import Sequence
from enum import IntEnum
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from xzepr.cli.client.http import DEFAULT_HUB, HubClient, HubUrl, JsonObject, open_client
from xzepr.cli.client.lookup import GROUP, resolve_id
from xzepr.cli.client.units import (
    UNIT_FIELDS,
    NameArgument,
    PackageArgument,
    PlatformArgument,
    ReleaseArgument,
    SimilarUnit,
    UnitKey,
    VersionArgument,
    similar_units,
)
from xzepr.cli.client.waiting import GATE_FIELDS, GateWait, retry_while_away
from xzepr.cli.output import AsJson, print_json, print_line, print_table, printable
from xzepr.cli.times import parse_duration
from xzepr.core.errors import CannotStart

app = typer.Typer(no_args_is_help=True)

_UNIT_GATES = f"""
query ($unit: UnitInput!) {{
  unit(unit: $unit) {{ id {UNIT_FIELDS} events(first: 1) {{ nodes {{ id }} }} gates {{ {GATE_FIELDS} }} }}
}}
"""
_GROUP_GATE = f"""
query ($group: ID!, $unit: UnitInput!) {{
  unit(unit: $unit) {{ id {UNIT_FIELDS} events(first: 1) {{ nodes {{ id }} }} }}
  gate(eventReceiverGroupId: $group, unit: $unit) {{ {GATE_FIELDS} }}
}}
"""

GroupTypeOption = Annotated[str | None, typer.Option(help="The group's type, if the name is not unique.")]
GroupVersionOption = Annotated[str | None, typer.Option(help="The group's version, if the name is not unique.")]


class WaitExitCode(IntEnum):
    """Exit codes of `gates wait`."""

    COMPLETE = 0
    FAILED = 1
    MISSING = 2
    UNKNOWN = 3


class _WaitCommand(TyperCommand):
    """The command `gates wait`: a usage error exits with 3 instead of 2, which here means a missing event."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parses the command line. A usage error gets the exit code 3."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except typer.TyperException as error:
            error.exit_code = WaitExitCode.UNKNOWN
            raise


@app.callback()
def _gates() -> None:  # pyright: ignore[reportUnusedFunction] - typer calls it, for the help
    """Show which gates of a unit are complete, and wait for one."""


@app.command()
def show(
    name: NameArgument,
    version: VersionArgument,
    release: ReleaseArgument,
    platform: PlatformArgument,
    package: PackageArgument,
    group: Annotated[
        str | None,
        typer.Option(metavar="GROUP", help="Only this group, by id or name. Shown even if the unit has no events."),
    ] = None,
    group_type: GroupTypeOption = None,
    group_version: GroupVersionOption = None,
    hub: HubUrl = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Show the gates that the unit's events count for, with the state of each member. If the unit has no events, units
    that differ from it in one field are listed, because the unit may be mistyped."""
    unit = UnitKey(name, version, release, platform, package)
    with open_client(hub) as client:
        gates, reported = _query_gates(client, unit, group, group_type, group_version)
        similar = [] if reported else similar_units(client, unit)
    if as_json:
        near = [other.as_json() for other in similar]
        print_json({"unit": unit.as_input(), "reported": reported, "gates": gates, "near": near})
        return
    for gate in gates:
        print_gate(gate)
    if not reported:
        _print_similar_units(unit, similar)
    elif not gates:
        print_line(f"Events were reported on {unit}, but their receivers belong to no group.")


def _query_gates(
    client: HubClient, unit: UnitKey, group: str | None, type: str | None, version: str | None
) -> tuple[list[JsonObject], bool]:
    """Returns the gates, and whether the unit has events."""
    if group is None:
        data = client.execute(_UNIT_GATES, unit=unit.as_input())
        gates = data["unit"]["gates"]
    else:
        data = client.execute(_GROUP_GATE, unit=unit.as_input(), group=resolve_id(client, GROUP, group, type, version))
        gates = [data["gate"]]
    return gates, bool(data["unit"]["events"]["nodes"])


def print_gate(gate: JsonObject) -> None:
    """Prints a gate and its members."""
    group = gate["eventReceiverGroup"]
    title = f"{printable(group['name'])} ({printable(group['type'])} {printable(group['version'])})"
    suffix = "" if group["enabled"] else ", disabled"
    if gate["complete"]:
        print_line(f"{title}: complete since {gate['since']}{suffix}", "bold green")
    else:
        print_line(f"{title}: incomplete{suffix}", "bold yellow")
    columns = ("member", "receiver", "event", "reported", "description")
    print_table(columns, [_row(member) for member in gate["members"]])


def _row(member: JsonObject) -> Sequence[object]:
    receiver: JsonObject = member["eventReceiver"]
    event: JsonObject = member["event"] or {}
    label = f"{receiver['name']} ({receiver['type']} {receiver['version']})"
    return (member["state"], label, event.get("id"), event.get("recordedAt"), event.get("description"))


def _print_similar_units(unit: UnitKey, similar: list[SimilarUnit]) -> None:
    print_line(f"Nothing was reported on {unit}.")
    if similar:
        print_line("Units that differ from it in one field:")
        rows = [(str(other.unit), f"{other.field} {printable(other.value)}") for other in similar]
        print_table(("unit", "differs in"), rows)


@app.command(cls=_WaitCommand)
def wait(
    group: Annotated[str, typer.Argument(metavar="GROUP", help="The group's id or name.")],
    name: NameArgument,
    version: VersionArgument,
    release: ReleaseArgument,
    platform: PlatformArgument,
    package: PackageArgument,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="DURATION", help="Time to wait, as in 90s, 5m or 2h; 0 checks once.", parser=parse_duration
        ),
    ],
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="End as soon as a member fails.")] = False,
    group_type: GroupTypeOption = None,
    group_version: GroupVersionOption = None,
    hub: HubUrl = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Wait until a gate is complete for a unit. Exit codes: 0 if it is complete. At the time-out, 1 if a member failed;
    2 if none failed but one has no event. 3 if the state is unknown. With --fail-fast, 1 as soon as a member fails."""
    unit = UnitKey(name, version, release, platform, package)
    deadline = time.monotonic() + timeout
    try:
        with open_client(hub) as client:
            group_id = retry_while_away(lambda: resolve_id(client, GROUP, group, group_type, group_version), deadline)
            result = GateWait(client, group_id, unit, deadline, fail_fast=fail_fast).run()
    except CannotStart as error:
        typer.echo(f"xzepr: {error}", err=True)
        raise typer.Exit(WaitExitCode.UNKNOWN) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if as_json:
        print_json({"outcome": result.name, "gate": result.gate})
    else:
        print_gate(result.gate)
    raise typer.Exit(WaitExitCode[result.name])
