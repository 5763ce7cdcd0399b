"""The commands `xzepr events`: record, list and follow events."""

from pathlib import Path
from typing import Annotated, Any

import typer

from xzepr.cli.client.http import DEFAULT_HUB, HubClient, HubUrl, open_client
from xzepr.cli.client.lookup import RECEIVER, resolve_id
from xzepr.cli.client.units import UNIT_FIELDS, UnitKey
from xzepr.cli.event_input import EventOptions, event_input
from xzepr.cli.output import AsJson, print_json, print_line, print_table, printable
from xzepr.cli.tail import tail
from xzepr.cli.times import parse_past
from xzepr.core.errors import CannotStart

app = typer.Typer(no_args_is_help=True)
app.command()(tail)

_PAGE_SIZE = 100
_CREATE = f"""
mutation ($input: CreateEventInput!, $events: Boolean!, $gates: Boolean!) {{
  createEvent(input: $input) {{
    id cursor repeated
    event @include(if: $events) {{ id {UNIT_FIELDS} success occurredAt recordedAt }}
    gates @include(if: $gates) {{
      eventReceiverGroup {{ id name type version }} complete since members {{ state }}
    }}
  }}
}}
"""
_LIST = f"""
query ($filter: EventFilterInput, $first: Int!, $after: String, $receivers: Boolean!) {{
  events(filter: $filter, first: $first, after: $after) {{
    nodes {{
      id cursor {UNIT_FIELDS} description success payload occurredAt recordedAt eventReceiverId
      eventReceiver @include(if: $receivers) {{ name type version }}
    }}
    pageInfo {{ hasNextPage endCursor }}
  }}
}}
"""

ReceiverOption = Annotated[
    str | None, typer.Option("--receiver", metavar="RECEIVER", help="The receiver, by id or name.")
]
ReceiverTypeOption = Annotated[str | None, typer.Option(help="The receiver's type, if the name is not unique.")]
ReceiverVersionOption = Annotated[str | None, typer.Option(help="The receiver's version, if the name is not unique.")]
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
            "--file", "-f", metavar="FILE", help="The event as JSON, `-` for standard input. Options override it."
        ),
    ] = None,
    receiver: ReceiverOption = None,
    receiver_type: ReceiverTypeOption = None,
    receiver_version: ReceiverVersionOption = None,
    name: NameOption = None,
    version: VersionOption = None,
    release: ReleaseOption = None,
    platform_id: PlatformOption = None,
    package: PackageOption = None,
    description: Annotated[str | None, typer.Option(help="What happened, as text for people.")] = None,
    success: Annotated[bool | None, typer.Option("--success/--failure", help="The outcome of the event.")] = None,
    payload: Annotated[
        str | None,
        typer.Option(
            metavar="JSON", help="The payload: JSON such as '{\"failed\": 0}', a file, or `-` for standard input."
        ),
    ] = None,
    occurred_at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="When it happened: a time, a date or 5m for 5 minutes ago.", parser=parse_past
        ),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(help="A repeat with this key and the same content is ignored for at least 24 hours."),
    ] = None,
    hub: HubUrl = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Record an event. When the command ends, the event is committed. The gates that it affects are printed."""
    options = EventOptions(
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
        occurredAt=occurred_at,
        idempotencyKey=idempotency_key,
    )
    content, reference = event_input(options, file, payload)
    with open_client(hub) as client:
        content["eventReceiverId"] = resolve_id(client, RECEIVER, *reference)
        permissions = client.permissions()
        events, gates = "EVENT_READ" in permissions, "GROUP_READ" in permissions
        result = client.execute(_CREATE, input=content, events=events, gates=gates)["createEvent"]
    if as_json:
        print_json(result)
    else:
        _print_created(content, result)


def _print_created(event: dict[str, Any], result: dict[str, Any]) -> None:
    verb = "Was already recorded" if result["repeated"] else "Recorded"
    print_line(
        f"{verb}: event {result['id']} at {result['cursor']}, {_outcome(event)}, for {UnitKey.from_json(event)}."
    )
    for gate in result.get("gates", []):
        group = printable(gate["eventReceiverGroup"]["name"])
        passed = sum(member["state"] == "PASSED" for member in gate["members"])
        state = "complete" if gate["complete"] else f"{passed} of {len(gate['members'])} passed"
        print_line(f"  gate {group}: {state}", "green" if gate["complete"] else "")


@app.command("list")
def list_events(
    receiver: ReceiverOption = None,
    receiver_type: ReceiverTypeOption = None,
    receiver_version: ReceiverVersionOption = None,
    name: NameOption = None,
    version: VersionOption = None,
    release: ReleaseOption = None,
    platform_id: PlatformOption = None,
    package: PackageOption = None,
    success: Annotated[bool | None, typer.Option("--success/--failure", help="Only events with this outcome.")] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Only events recorded at or after this time: 5m (ago), yesterday, a date or a time.",
            parser=parse_past,
        ),
    ] = None,
    before: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only events recorded before this time.", parser=parse_past)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="The maximum number of events.")] = 50,
    hub: HubUrl = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """List the events that match all options, newest first."""
    with open_client(hub) as client:
        filter = {
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
        events = _query_events(client, filter, limit)
    if as_json:
        print_json(events)
        return
    columns = ("recorded", "outcome", "receiver", "name", "version", "release", "platform", "package", "description")
    print_table(columns, [_row(event) for event in events])


def _receiver_id(client: HubClient, receiver: str | None, type: str | None, version: str | None) -> str | None:
    if receiver is not None:
        return resolve_id(client, RECEIVER, receiver, type, version)
    if type is not None or version is not None:
        raise CannotStart("--receiver-type and --receiver-version need --receiver NAME")
    return None


def _query_events(client: HubClient, filter: dict[str, Any], limit: int) -> list[Any]:
    receivers = "RECEIVER_READ" in client.permissions()
    events: list[Any] = []
    after: str | None = None
    while len(events) < limit:
        first = min(_PAGE_SIZE, limit - len(events))
        page = client.execute(_LIST, filter=filter, first=first, after=after, receivers=receivers)["events"]
        events += page["nodes"]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    return events


def _row(event: dict[str, Any]) -> tuple[object, ...]:
    receiver = event.get("eventReceiver")
    receiver_name = receiver["name"] if receiver else event["eventReceiverId"]
    unit = (event["name"], event["version"], event["release"], event["platformId"], event["package"])
    return (event["recordedAt"], _outcome(event).upper(), receiver_name, *unit, event["description"])


def _outcome(event: dict[str, Any]) -> str:
    return "passed" if event["success"] else "failed"
