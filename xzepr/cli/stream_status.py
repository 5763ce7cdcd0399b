"""The command `xzepr stream status`: shows the stream, its routes into Kafka and the hub's processes, once or live."""

import sys
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

import typer

from xzepr.cli.client.http import (
    DEFAULT_HUB,
    HubClient,
    HubUnreachable,
    HubUrl,
    JsonObject,
    RequestRejected,
    open_client,
)
from xzepr.cli.output import AsJson, print_json, print_json_line, print_notice, print_table, rich_table

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
_REFRESH_SECONDS = 1.0
_RESPONSE_TIMEOUT_SECONDS = 5.0
_NO_ROUTE = (
    "no relay has led a route yet, and no running process has kafka.brokers: "
    "once it is set, a relay publishes the whole history"
)

# The headings and the rows of a table.
TableData = tuple[tuple[str, ...], list[tuple[object, ...]]]


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh every second until Ctrl-C.")] = False,
    hub: HubUrl = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Show the stream's head and oldest cursor, the progress of its relay, and the hub's processes. For each process,
    show the progress of its feed and slowest subscriber, and its clients. `--watch --json` prints one line a second."""
    with open_client(hub) as client:
        snapshot = client.execute(STATUS)["streamStatus"]
        if watch:
            _watch(client, snapshot, as_json=as_json)
    if as_json:
        print_json(snapshot)
        return
    for columns, rows in status_tables(snapshot):
        print_table(columns, rows)
    if not snapshot["routes"]:
        print_notice(_NO_ROUTE)


def _watch(client: HubClient, snapshot: JsonObject, *, as_json: bool) -> None:
    """Shows the status and refreshes it until Ctrl-C. While the hub is unreachable, retries."""
    view = _LineView(as_json=as_json) if as_json or not sys.stdout.isatty() else _TerminalView()
    try:
        view.show(snapshot)
        while True:
            time.sleep(_REFRESH_SECONDS)
            try:
                snapshot = client.execute_within(_RESPONSE_TIMEOUT_SECONDS, STATUS, {})["streamStatus"]
            except (HubUnreachable, RequestRejected) as error:
                if isinstance(error, RequestRejected) and not error.temporary:
                    raise
                view.show_error(f"{error}; trying again")
            else:
                view.show(snapshot)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    finally:
        view.close()


class _LineView:
    """Prints every refresh as lines, for programs. Consecutive errors are printed once."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._showed_error = False

    def show(self, snapshot: JsonObject) -> None:
        self._showed_error = False
        if self._as_json:
            print_json_line(snapshot)
            return
        for columns, rows in status_tables(snapshot):
            print_table(columns, rows)

    def show_error(self, text: str) -> None:
        if not self._showed_error:
            print_notice(text)
        self._showed_error = True

    def close(self) -> None:
        sys.stdout.flush()


class _TerminalView:
    """Redraws the tables in place on a terminal. The last ones stay visible at the end."""

    def __init__(self) -> None:
        self._snapshot: JsonObject = {}
        self._updated_at = ""
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(), auto_refresh=False)
        self._live.start()

    def show(self, snapshot: JsonObject) -> None:
        self._snapshot = snapshot
        self._updated_at = time.strftime("%H:%M:%S")
        self._draw(f"as of {self._updated_at}", "dim")

    def show_error(self, text: str) -> None:
        self._draw(f"as of {self._updated_at}: {text}", "yellow")

    def _draw(self, heading: str, style: str) -> None:
        from rich.console import Group
        from rich.text import Text

        tables = [rich_table(columns, rows) for columns, rows in status_tables(self._snapshot) if rows]
        parts = [part for table in tables for part in (table, Text())]
        self._live.update(Group(Text(heading, style=style), Text(), *parts), refresh=True)

    def close(self) -> None:
        self._live.stop()


def status_tables(snapshot: JsonObject) -> Iterator[TableData]:
    """Yields the tables of a status, designed for 80 columns: the stream, its routes, the processes."""
    oldest = snapshot["oldestCursor"]
    yield (
        ("stream", "position", "cursor", "time"),
        [
            ("head", snapshot["position"], snapshot["cursor"], _truncate_to_second(snapshot["time"])),
            ("oldest", oldest.partition("-")[0], oldest, None),
        ],
    )
    routes, processes = snapshot["routes"], snapshot["processes"]
    leaders = {route["leader"] for route in routes}
    names = {process["id"]: _name(process) for process in processes}
    yield (
        ("route", "state", "published", "lag", "behind", "dead", "leader"),
        [_route_row(route, names) for route in routes],
    )
    details: list[tuple[object, ...]] = [
        (route["route"], _truncate_to_second(route["since"]), route["detail"]) for route in routes
    ]
    yield ("route", "since", "detail"), details
    yield (
        ("process", "role", "up", "seen", "queue", "relay"),
        [_process_row(process, leaders) for process in processes],
    )
    yield (
        ("process", "feed", "lag", "behind", "ws", "sse", "subs", "slowest", "behind"),
        [_subscribers_row(process) for process in processes],
    )


def _route_row(route: JsonObject, names: dict[str, str]) -> tuple[object, ...]:
    leader = names.get(route["leader"], "silent") if route["led"] else "none"
    return (
        route["route"],
        _state_text(route["state"]),
        route["published"],
        route["lag"],
        duration(route["lagSeconds"]),
        route["deadLetters"],
        leader,
    )


def _process_row(process: JsonObject, leaders: set[str | None]) -> tuple[object, ...]:
    relay, silent_seconds = process["relay"], process["silentSeconds"]
    up_when_seen = datetime.fromisoformat(process["seenAt"]) - datetime.fromisoformat(process["startedAt"])
    relay_state = relay and not relay["leads"] and _state_text(relay["state"])
    return (
        _name(process),
        process["role"],
        duration(up_when_seen.total_seconds() + silent_seconds),
        f"{duration(silent_seconds)} ago",
        process["recorderQueue"],
        "leads" if process["id"] in leaders else relay_state or None,
    )


def _subscribers_row(process: JsonObject) -> tuple[object, ...]:
    feed, slowest, clients = process["feed"], process["slowestSubscriber"], process["clients"]
    return (
        _name(process),
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


def _state_text(state: str) -> str:
    """Returns `waiting for brokers` for `WAITING_FOR_BROKERS`."""
    return state.lower().replace("_", " ")


def _truncate_to_second(time: str | None) -> str | None:
    """Returns `2026-03-01T12:00:00Z` for a time with microseconds."""
    return None if time is None else f"{time[:19]}Z"


def duration(seconds: float) -> str:
    """Returns a duration in a readable unit: `0.4 s`, `45 s`, `12 min`, `5 h`, `3 d`."""
    for unit, size, limit in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
        if seconds < limit * size:
            number = seconds / size
            return f"{number:.1f} {unit}" if 0.05 <= number < 10 and unit == "s" else f"{number:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
