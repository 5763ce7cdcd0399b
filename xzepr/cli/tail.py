"""`xzepr events tail`: the stream as it happens, resumed after every lost connection."""

from datetime import datetime
from typing import Annotated, Any

import typer

from xzepr.cli.client.http import DEFAULT_HUB, Client, HubUrl, Refused, connected
from xzepr.cli.client.lookup import RECEIVER, id_of
from xzepr.cli.client.subscription import Follower, Frame
from xzepr.cli.client.units import UNIT_FIELDS, Unit
from xzepr.cli.output import print_json_line, print_line, say, visible
from xzepr.cli.yaml_reader import unknown_key
from xzepr.core.errors import CannotStart
from xzepr.features.stream.kinds import Kind

FRAME = """
  __typename cursor time
  ... on StreamMessage { id kind actor { kind id name } }
  ... on EventRecorded { event { ...Told } }
  ... on ReceiverMessage { eventReceiver { id name type version revision enabled resourceVersion } }
  ... on GroupMessage { eventReceiverGroup { ...Group } }
  ... on GateMessage { transition since event { ...Told } eventReceiverGroup { ...Group } }
"""
FRAGMENTS = f"""
fragment Told on Event {{
  id {UNIT_FIELDS} description success payload createdAt recordedAt eventReceiverId
  eventReceiver @include(if: $receivers) {{ name type version }}
}}
fragment Group on EventReceiverGroup {{ id name type version enabled resourceVersion eventReceiverIds }}
"""
_DECLARED = "$after: String, $kinds: [StreamKind!], $filter: StreamFilterInput, $receivers: Boolean!"
SUBSCRIBE = (
    f"subscription ({_DECLARED}) {{ stream(after: $after, kinds: $kinds, filter: $filter) {{ {FRAME} }} }} {FRAGMENTS}"
)
_READ = (
    f"query ({_DECLARED}) {{ stream(after: $after, kinds: $kinds, filter: $filter, first: 100) "
    f"{{ messages {{ {FRAME} }} cursor hasNext }} }} {FRAGMENTS}"
)


def tail(
    after: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="Begin after it; from now on if not given.")
    ] = None,
    from_start: Annotated[bool, typer.Option("--from-start", help="Begin with the first message there is.")] = False,
    kind: Annotated[
        list[str] | None, typer.Option(metavar="KIND", help="Only this kind (event.recorded); several are possible.")
    ] = None,
    receiver: Annotated[
        str | None, typer.Option(metavar="RECEIVER", help="Only of this receiver, by id or name.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Only of units with this name.")] = None,
    version: Annotated[str | None, typer.Option("--version", help="Only of units with this version.")] = None,
    release: Annotated[str | None, typer.Option(help="Only of units with this release.")] = None,
    platform_id: Annotated[str | None, typer.Option(help="Only of units with this platform id.")] = None,
    package: Annotated[str | None, typer.Option(help="Only of units with this package.")] = None,
    success: Annotated[bool | None, typer.Option("--success/--failure", help="Only of events that ended so.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="End after so many messages.")] = None,
    hub: HubUrl = DEFAULT_HUB,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Follow the stream until Ctrl-C: messages of every kind that you may read. A lost connection is made again, and
    goes on after the last message without a gap or a repeat; a hub that has no room is waited for. It ends with its
    credential: a login lasts some minutes, so to follow for longer, put an API key into XZEPR_API_KEY."""
    if after is not None and from_start:
        raise CannotStart("--after and --from-start are two answers to one question: choose one")
    kinds = [_kind(one) for one in kind] if kind else None
    with connected(hub) as client:
        wanted = {
            "eventReceiverIds": None if receiver is None else [id_of(client, RECEIVER, receiver)],
            "name": name,
            "version": version,
            "release": release,
            "platformId": platform_id,
            "package": package,
            "success": success,
        }
        receivers = "RECEIVER_READ" in client.permissions()
        variables = {"kinds": kinds, "filter": wanted, "receivers": receivers}
        _Tail(client, variables, after, as_json=as_json, limit=limit).run(from_start=from_start)


def _kind(text: str) -> str:
    known = {kind.value: kind.name for kind in Kind}
    found = known.get(text.strip().lower().replace("_", "."))
    if found is None:
        raise CannotStart(f"--kind: {unknown_key(text, list(known))}")
    return found


class _Tail:
    """Prints messages until it has printed enough or is interrupted."""

    def __init__(
        self, client: Client, variables: dict[str, Any], after: str | None, *, as_json: bool, limit: int | None
    ) -> None:
        self._client = client
        self._variables = variables
        self._as_json = as_json
        self._left = limit
        self._follower = Follower(client, SUBSCRIBE, variables, after=after, notice=say)

    def run(self, *, from_start: bool) -> None:
        try:
            if not (from_start and self._history()):
                self._follow()
        except KeyboardInterrupt:
            self._tell_where()
            raise typer.Exit(130) from None
        except Refused as refusal:
            where = self._follower.cursor
            expired = any(one.code == "CURSOR_EXPIRED" for one in refusal.complaints)
            ways = ". `--after` takes that cursor, and `--from-start` shows all that is left" if expired else ""
            raise CannotStart(f"{refusal}{ways}{f' (seen up to {where})' if where else ''}") from refusal
        finally:
            self._follower.close()

    def _history(self) -> bool:
        """Prints what there is, a page at a time; whether that was enough."""
        more = True
        while more:
            page = self._client.ask(_READ, after=self._follower.cursor, **self._variables)["stream"]
            for message in page["messages"]:
                if self._print(message):
                    return True
            self._follower.cursor = page["cursor"]
            more = page["hasNext"]
        return False

    def _follow(self) -> None:
        for frame in self._follower.frames():
            if frame is not None and frame["__typename"] != "Checkpoint" and self._print(frame):
                return

    def _print(self, frame: Frame) -> bool:
        if self._as_json:
            print_json_line(frame)
        else:
            text, style = told(frame)
            print_line(text, style)
        if self._left is not None:
            self._left -= 1
        return self._left == 0

    def _tell_where(self) -> None:
        if self._follower.cursor is not None:
            say(f"go on from here with --after {self._follower.cursor}")


def told(frame: Frame) -> tuple[str, str]:
    """A message in one line, and its colour."""
    kind = str(frame["kind"]).lower().replace("_", ".", 1)
    time = datetime.fromisoformat(frame["time"]).astimezone()
    style = {"gate.completed": "bold green", "gate.regressed": "bold red"}.get(kind, "")
    return f"{time:%H:%M:%S}  {frame['cursor']:<16} {kind:<17} {_content(frame)}", style


def _content(frame: Frame) -> str:
    event = frame.get("event")
    unit = "" if event is None else str(Unit.of(event))
    if (group := frame.get("eventReceiverGroup")) is not None:
        return f"{visible(group['name'])}  {unit}".rstrip()
    if (receiver := frame.get("eventReceiver")) is not None:
        return visible(receiver["name"])
    if event is None:
        return ""
    receiver = event.get("eventReceiver")
    called = visible(receiver["name"] if receiver else event["eventReceiverId"])
    return f"{called} {'passed' if event['success'] else 'FAILED'}  {unit}"
