"""`xzepr events`: record one, list them, follow them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from xzepr.cli.client.http import DEFAULT_HUB, Client, HubUrl, connected
from xzepr.cli.client.lookup import RECEIVER, id_of
from xzepr.cli.client.units import UNIT_FIELDS, Unit
from xzepr.cli.event_input import Report, event_input
from xzepr.cli.output import AsJson, print_json, print_line, print_table, visible
from xzepr.cli.tail import tail
from xzepr.core.errors import CannotStart

app = typer.Typer(no_args_is_help=True)
app.command()(tail)

_PAGE = 100
_CREATE = f"""
mutation ($input: CreateEventInput!, $gates: Boolean!) {{
  createEvent(input: $input) {{
    event {{ id {UNIT_FIELDS} success createdAt recordedAt }} cursor repeated
    gates @include(if: $gates) {{ group {{ id name type version }} complete since members {{ state }} }}
  }}
}}
"""
_LIST = f"""
query ($filter: EventFilterInput, $first: Int!, $after: String, $receivers: Boolean!) {{
  events(filter: $filter, first: $first, after: $after) {{
    nodes {{
      id cursor {UNIT_FIELDS} description success payload createdAt recordedAt eventReceiverId
      eventReceiver @include(if: $receivers) {{ name type version }}
    }}
    pageInfo {{ hasNextPage endCursor }}
  }}
}}
"""

ReceiverOption = Annotated[
    str | None, typer.Option("--receiver", metavar="RECEIVER", help="The receiver, by id or name.")
]
ReceiverType = Annotated[str | None, typer.Option(help="Its type, where the name does not tell it.")]
ReceiverVersion = Annotated[str | None, typer.Option(help="Its version, where the name does not tell it.")]
NameOption = Annotated[str | None, typer.Option("--name", help="The unit's name.")]
VersionOption = Annotated[str | None, typer.Option("--version", help="The unit's version.")]
ReleaseOption = Annotated[str | None, typer.Option("--release", help="The unit's release.")]
PlatformOption = Annotated[str | None, typer.Option("--platform-id", help="The unit's platform id.")]
PackageOption = Annotated[str | None, typer.Option("--package", help="The unit's package.")]


@app.callback()
def _events() -> None:  # pyright: ignore[reportUnusedFunction] - typer calls it, for the help
    """Record, list and follow events."""


@app.command()
def create(
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", metavar="FILE", help="The event in JSON, `-` for standard input; options go before it."
        ),
    ] = None,
    receiver: ReceiverOption = None,
    receiver_type: ReceiverType = None,
    receiver_version: ReceiverVersion = None,
    name: NameOption = None,
    version: VersionOption = None,
    release: ReleaseOption = None,
    platform_id: PlatformOption = None,
    package: PackageOption = None,
    description: Annotated[str | None, typer.Option(help="What happened, for people.")] = None,
    success: Annotated[bool | None, typer.Option("--success/--failure", help="How it ended.")] = None,
    payload: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The payload in JSON, `-` for standard input.")
    ] = None,
    created_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="When it happened, as 2026-11-20T21:15:27Z; now if not given.")
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key with the same content is the same event, for at least 24 hours.")
    ] = None,
    hub: HubUrl = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Record an event. When the command ends, it is committed and every gate it touches is known."""
    given = Report(
        receiver=receiver,
        receiver_type=receiver_type,
        receiver_version=receiver_version,
        name=name,
        version=version,
        release=release,
        platformId=platform_id,
        package=package,
        description=description,
        success=success,
        createdAt=created_at,
        idempotencyKey=idempotency_key,
    )
    content, named_receiver = event_input(given, file, payload)
    with connected(hub) as client:
        content["eventReceiverId"] = id_of(client, RECEIVER, *named_receiver)
        gates = "GROUP_READ" in client.permissions()
        done = client.ask(_CREATE, input=content, gates=gates)["createEvent"]
    if as_json:
        print_json(done)
    else:
        _print_created(done)


def _print_created(done: dict[str, Any]) -> None:
    event = done["event"]
    verb = "Was already recorded" if done["repeated"] else "Recorded"
    print_line(f"{verb}: event {event['id']} at {done['cursor']}, {_outcome(event)}, for {Unit.of(event)}.")
    for gate in done.get("gates", []):
        group = visible(gate["group"]["name"])
        passed = sum(member["state"] == "PASSED" for member in gate["members"])
        state = "complete" if gate["complete"] else f"{passed} of {len(gate['members'])} passed"
        print_line(f"  gate {group}: {state}", "green" if gate["complete"] else "")


@app.command("list")
def list_events(
    receiver: ReceiverOption = None,
    receiver_type: ReceiverType = None,
    receiver_version: ReceiverVersion = None,
    name: NameOption = None,
    version: VersionOption = None,
    release: ReleaseOption = None,
    platform_id: PlatformOption = None,
    package: PackageOption = None,
    success: Annotated[bool | None, typer.Option("--success/--failure", help="Only those that ended so.")] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Recorded then or later.")] = None,
    before: Annotated[str | None, typer.Option(metavar="TIME", help="Recorded before then.")] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 50,
    hub: HubUrl = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """List events, newest first. Every given option must match."""
    with connected(hub) as client:
        wanted = {
            "eventReceiverId": _receiver_id(client, receiver, receiver_type, receiver_version),
            "name": name,
            "version": version,
            "release": release,
            "platformId": platform_id,
            "package": package,
            "success": success,
            "recordedFrom": since,
            "recordedBefore": before,
        }
        found = _pages(client, wanted, limit)
    if as_json:
        print_json(found)
        return
    columns = ("recorded", "outcome", "receiver", "name", "version", "release", "platform", "package", "description")
    print_table(columns, [_row(event) for event in found])


def _receiver_id(client: Client, receiver: str | None, type: str | None, version: str | None) -> str | None:
    if receiver is not None:
        return id_of(client, RECEIVER, receiver, type, version)
    if type is not None or version is not None:
        raise CannotStart("--receiver-type and --receiver-version need --receiver NAME")
    return None


def _pages(client: Client, wanted: dict[str, Any], limit: int) -> list[Any]:
    receivers = "RECEIVER_READ" in client.permissions()
    found: list[Any] = []
    after: str | None = None
    while len(found) < limit:
        first = min(_PAGE, limit - len(found))
        page = client.ask(_LIST, filter=wanted, first=first, after=after, receivers=receivers)["events"]
        found += page["nodes"]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    return found


def _row(event: dict[str, Any]) -> tuple[object, ...]:
    receiver = event.get("eventReceiver")
    called = receiver["name"] if receiver else event["eventReceiverId"]
    unit = (event["name"], event["version"], event["release"], event["platformId"], event["package"])
    return (event["recordedAt"], _outcome(event).upper(), called, *unit, event["description"])


def _outcome(event: dict[str, Any]) -> str:
    return "passed" if event["success"] else "failed"
