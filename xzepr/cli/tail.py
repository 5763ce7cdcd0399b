"""The command `xzepr events tail`: prints the stream live, and resumes after a lost connection."""

from datetime import datetime
from typing import Annotated, Any

import typer

from xzepr.cli.client.http import DEFAULT_HUB, HubClient, HubUrl, JsonObject, RequestRejected, open_client
from xzepr.cli.client.lookup import RECEIVER, resolve_id
from xzepr.cli.client.units import UNIT_FIELDS, UnitKey
from xzepr.cli.output import print_json_line, print_line, print_notice, printable, unknown_key_message
from xzepr.core.errors import CannotStart
from xzepr.features.stream.kinds import Kind

FRAME = """
  __typename cursor time
  ... on StreamMessage { id kind actor { kind userId name } }
  ... on EventRecorded { event { ...EventFields } }
  ... on ReceiverMessage { eventReceiver { eventReceiverId name type version revision enabled resourceVersion } }
  ... on GroupMessage { eventReceiverGroup { ...GroupFields } }
  ... on GateMessage {
    transition since event { ...EventFields }
    eventReceiverGroupId eventReceiverGroup @include(if: $groups) { ...GroupFields }
  }
"""
FRAGMENTS = f"""
fragment EventFields on Event {{
  id {UNIT_FIELDS} description success payload occurredAt recordedAt eventReceiverId
  eventReceiver @include(if: $receivers) {{ name type version }}
}}
fragment GroupFields on EventReceiverGroupSnapshot {{
  eventReceiverGroupId name type version enabled resourceVersion eventReceiverIds
}}
"""
_VARIABLES = (
    "$after: String, $kinds: [StreamKind!], $filter: StreamFilterInput, $receivers: Boolean!, $groups: Boolean!"
)
SUBSCRIBE = (
    f"subscription ({_VARIABLES}) {{ stream(after: $after, kinds: $kinds, filter: $filter) {{ {FRAME} }} }} {FRAGMENTS}"
)
_READ_PAGE = (
    f"query ({_VARIABLES}) {{ stream(after: $after, kinds: $kinds, filter: $filter, first: 100) "
    f"{{ messages {{ {FRAME} }} cursor hasNext }} }} {FRAGMENTS}"
)


def tail(
    after: Annotated[
        str | None,
        typer.Option(metavar="CURSOR", help="Start after this cursor. By default, only new messages are shown."),
    ] = None,
    from_start: Annotated[bool, typer.Option("--from-start", help="Start with the oldest message.")] = False,
    kind: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="Only this kind, such as event.recorded. May be given several times."),
    ] = None,
    receiver: Annotated[
        str | None, typer.Option(metavar="RECEIVER", help="Only of this receiver, by id or name.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Only of units with this name.")] = None,
    version: Annotated[str | None, typer.Option("--version", help="Only of units with this version.")] = None,
    release: Annotated[str | None, typer.Option(help="Only of units with this release.")] = None,
    platform_id: Annotated[str | None, typer.Option(help="Only of units with this platform id.")] = None,
    package: Annotated[str | None, typer.Option(help="Only of units with this package.")] = None,
    success: Annotated[
        bool | None, typer.Option("--success/--failure", help="Only of events with this outcome.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="End after N messages.")] = None,
    hub: HubUrl = DEFAULT_HUB,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """Follow the stream until Ctrl-C: messages of every kind that you may read. After a lost connection, the command
    reconnects and resumes without a gap or a repeat. If the hub has no free slot, it waits for one. The command ends
    when the credential expires. A login lasts some minutes; to follow for longer, put an API key into XZEPR_API_KEY."""
    if after is not None and from_start:
        raise CannotStart("--after and --from-start exclude each other: choose one")
    kinds = [_parse_kind(text) for text in kind] if kind else None
    with open_client(hub) as client:
        filter = {
            "eventReceiverIds": None if receiver is None else [resolve_id(client, RECEIVER, receiver)],
            "name": name,
            "version": version,
            "release": release,
            "platformId": platform_id,
            "package": package,
            "success": success,
        }
        permissions = client.permissions()
        receivers, groups = "RECEIVER_READ" in permissions, "GROUP_READ" in permissions
        variables = {"kinds": kinds, "filter": filter, "receivers": receivers, "groups": groups}
        _Tail(client, variables, after, as_json=as_json, limit=limit).run(from_start=from_start)


def _parse_kind(text: str) -> str:
    names = {kind.value: kind.name for kind in Kind}
    name = names.get(text.strip().lower().replace("_", "."))
    if name is None:
        raise CannotStart(f"--kind: {unknown_key_message(text, list(names))}")
    return name


class _Tail:
    """Prints messages until the limit is reached or the user interrupts."""

    def __init__(
        self, client: HubClient, variables: dict[str, Any], after: str | None, *, as_json: bool, limit: int | None
    ) -> None:
        self._client = client
        self._variables = variables
        self._as_json = as_json
        self._remaining = limit
        from xzepr.cli.client.subscription import ResumingSubscription

        self._subscription = ResumingSubscription(client, SUBSCRIBE, variables, after=after, notify=print_notice)

    def run(self, *, from_start: bool) -> None:
        try:
            if not (from_start and self._print_history()):
                self._follow()
        except KeyboardInterrupt:
            self._print_resume_hint()
            raise typer.Exit(130) from None
        except RequestRejected as error:
            cursor = self._subscription.cursor
            expired = any(item.code == "CURSOR_EXPIRED" for item in error.errors)
            hint = ". Pass that cursor to `--after`, or use `--from-start` to read all that is left" if expired else ""
            raise CannotStart(f"{error}{hint}{f' (read up to {cursor})' if cursor else ''}") from error
        finally:
            self._subscription.close()

    def _print_history(self) -> bool:
        """Prints the history page by page. Returns whether the limit was reached."""
        has_next = True
        while has_next:
            page = self._client.execute(_READ_PAGE, after=self._subscription.cursor, **self._variables)["stream"]
            for message in page["messages"]:
                if self._print(message):
                    return True
            self._subscription.cursor = page["cursor"]
            has_next = page["hasNext"]
        return False

    def _follow(self) -> None:
        for frame in self._subscription.frames():
            if frame is not None and frame["__typename"] != "Checkpoint" and self._print(frame):
                return

    def _print(self, frame: JsonObject) -> bool:
        """Prints a message. Returns whether the limit was reached."""
        if self._as_json:
            print_json_line(frame)
        else:
            text, style = format_frame(frame)
            print_line(text, style)
        if self._remaining is not None:
            self._remaining -= 1
        return self._remaining == 0

    def _print_resume_hint(self) -> None:
        if self._subscription.cursor is not None:
            print_notice(f"to resume from here, pass --after {self._subscription.cursor}")


def format_frame(frame: JsonObject) -> tuple[str, str]:
    """Returns a message as one line of text, and its style."""
    kind = str(frame["kind"]).lower().replace("_", ".", 1)
    time = datetime.fromisoformat(frame["time"]).astimezone()
    style = {"gate.completed": "bold green", "gate.regressed": "bold red"}.get(kind, "")
    return f"{time:%H:%M:%S}  {frame['cursor']:<16} {kind:<17} {_content(frame)}", style


def _content(frame: JsonObject) -> str:
    event = frame.get("event")
    unit = "" if event is None else str(UnitKey.from_json(event))
    if (group := frame.get("eventReceiverGroup")) is not None:
        return f"{printable(group['name'])}  {unit}".rstrip()
    if (group_id := frame.get("eventReceiverGroupId")) is not None:
        return f"{group_id}  {unit}"
    if (receiver := frame.get("eventReceiver")) is not None:
        return printable(receiver["name"])
    if event is None:
        return ""
    receiver = event.get("eventReceiver")
    receiver_name = printable(receiver["name"] if receiver else event["eventReceiverId"])
    return f"{receiver_name} {'passed' if event['success'] else 'FAILED'}  {unit}"
