"""`xzepr stream status`: the stream's ends, its routes into Kafka and the hub's processes; once, or live."""

import sys
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from xzepr.cli.client.http import DEFAULT_HUB, Client, HubUrl, JsonObject, Refused, Unreachable, connected
from xzepr.cli.output import AsJson, print_json, print_json_line, print_table, say, table_of

STATUS = """
fragment Progress on StreamProgress { position lag lagSeconds }
{
  streamStatus {
    position cursor oldestCursor time deadLetters
    routes { route state detail since published lag lagSeconds led leader updatedAt deadLetters }
    processes {
      id host pid role version startedAt seenAt silentSeconds recorderQueue
      feed { ...Progress } slowestSubscriber { ...Progress }
      clients { websockets eventStreams subscriptions }
      relay { route state leads }
    }
  }
}
"""
_ROUND_SECONDS = 1.0
_ANSWER_SECONDS = 5.0
_NO_ROUTE = "no relay has led a route yet, and no process that is heard of has kafka.brokers: history waits for them"

Sheet = tuple[tuple[str, ...], list[tuple[object, ...]]]
"""The headings and the rows of a table."""


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it anew every second, until Ctrl-C.")] = False,
    hub: HubUrl = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Show the ends of the stream, how far its relay has carried it, and the hub's processes: how far the feed and the
    slowest subscriber of each are, and who is connected. `--watch --json` prints one line a second."""
    with connected(hub) as client:
        found = client.ask(STATUS)["streamStatus"]
        if watch:
            _watch(client, found, as_json=as_json)
    if as_json:
        print_json(found)
        return
    for columns, rows in sheets(found):
        print_table(columns, rows)
    if not found["routes"]:
        say(_NO_ROUTE)


def _watch(client: Client, found: JsonObject, *, as_json: bool) -> None:
    """Shows what was found, and asks again, until interrupted. A hub that is away is waited for."""
    view = _Lines(as_json=as_json) if as_json or not sys.stdout.isatty() else _Screen()
    try:
        view.show(found)
        while True:
            time.sleep(_ROUND_SECONDS)
            try:
                found = client.ask_within(_ANSWER_SECONDS, STATUS, {})["streamStatus"]
            except (Unreachable, Refused) as error:
                if isinstance(error, Refused) and not error.passing:
                    raise
                view.complain(f"{error}; trying again")
            else:
                view.show(found)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    finally:
        view.close()


class _Lines:
    """Every round as lines, for programs."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._complained = False

    def show(self, found: JsonObject) -> None:
        self._complained = False
        if self._as_json:
            print_json_line(found)
            return
        for columns, rows in sheets(found):
            print_table(columns, rows)

    def complain(self, text: str) -> None:
        if not self._complained:
            say(text)
        self._complained = True

    def close(self) -> None:
        sys.stdout.flush()


class _Screen:
    """One picture on a terminal, drawn anew in its place; what was seen last stays there."""

    def __init__(self) -> None:
        self._found: JsonObject = {}
        self._shown_at = ""
        self._live = Live(console=Console(), auto_refresh=False)
        self._live.start()

    def show(self, found: JsonObject) -> None:
        self._found = found
        self._shown_at = time.strftime("%H:%M:%S")
        self._draw(Text(f"as of {self._shown_at}", style="dim"))

    def complain(self, text: str) -> None:
        self._draw(Text(f"as of {self._shown_at}: {text}", style="yellow"))

    def _draw(self, heading: Text) -> None:
        tables = [table_of(columns, rows) for columns, rows in sheets(self._found) if rows]
        parts = [part for table in tables for part in (table, Text())]
        self._live.update(Group(heading, Text(), *parts), refresh=True)

    def close(self) -> None:
        self._live.stop()


def sheets(found: JsonObject) -> Iterator[Sheet]:
    """The status as tables that fit a terminal of 80 columns: the stream, its routes, the processes."""
    oldest = found["oldestCursor"]
    yield (
        ("stream", "position", "cursor", "time"),
        [
            ("head", found["position"], found["cursor"], _second(found["time"])),
            ("oldest", oldest.partition("-")[0], oldest, None),
        ],
    )
    leaders = {one["leader"] for one in found["routes"]}
    names = {one["id"]: _name(one) for one in found["processes"]}
    routes, running = found["routes"], found["processes"]
    yield (
        ("route", "state", "published", "lag", "behind", "dead", "leader"),
        [_route(one, names) for one in routes],
    )
    yield ("route", "since", "detail"), [(one["route"], _second(one["since"]), one["detail"]) for one in routes]
    yield ("process", "role", "up", "seen", "queue", "relay"), [_process(one, leaders) for one in running]
    yield (
        ("process", "feed", "lag", "behind", "ws", "sse", "subs", "slowest", "behind"),
        [_followers(one) for one in running],
    )


def _route(one: JsonObject, names: dict[str, str]) -> tuple[object, ...]:
    leader = names.get(one["leader"], "silent") if one["led"] else "nobody"
    behind = duration(one["lagSeconds"])
    return one["route"], _words(one["state"]), one["published"], one["lag"], behind, one["deadLetters"], leader


def _process(one: JsonObject, leaders: set[str | None]) -> tuple[object, ...]:
    up, relay = datetime.fromisoformat(one["seenAt"]) - datetime.fromisoformat(one["startedAt"]), one["relay"]
    return (
        _name(one),
        one["role"],
        duration(up.total_seconds() + one["silentSeconds"]),
        f"{duration(one['silentSeconds'])} ago",
        one["recorderQueue"],
        "leads" if one["id"] in leaders else (relay and not relay["leads"] and _words(relay["state"])) or None,
    )


def _followers(one: JsonObject) -> tuple[object, ...]:
    feed, slowest, clients = one["feed"], one["slowestSubscriber"], one["clients"]
    return (
        _name(one),
        feed and feed["position"],
        feed and feed["lag"],
        feed and duration(feed["lagSeconds"]),
        clients["websockets"],
        clients["eventStreams"],
        clients["subscriptions"],
        slowest and slowest["lag"],
        slowest and duration(slowest["lagSeconds"]),
    )


def _name(process: JsonObject) -> str:
    return f"{process['host']}:{process['pid']}"


def _words(state: str) -> str:
    """`waiting for brokers` of `WAITING_FOR_BROKERS`."""
    return state.lower().replace("_", " ")


def _second(time: str | None) -> str | None:
    """`2026-03-01T12:00:00Z` of a time with microseconds."""
    return None if time is None else f"{time[:19]}Z"


def duration(seconds: float) -> str:
    """In the unit that a person would choose: `0.4 s`, `45 s`, `12 min`, `5 h`, `3 d`."""
    for unit, size, most in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
        if seconds < most * size:
            number = seconds / size
            return f"{number:.1f} {unit}" if 0.05 <= number < 10 and unit == "s" else f"{number:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
