"""`xzepr stream`: how far the stream and its relay into Kafka are, how a stopped route goes on, and dead letters."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from xzepr.cli.client.http import DEFAULT_HUB, Client, HubUrl, connected
from xzepr.cli.output import AsJson, print_json, print_table
from xzepr.cli.stream_status import status
from xzepr.core.errors import CannotStart

app = typer.Typer(no_args_is_help=True)

_ROUTES = "{ streamStatus { routes { route state } } }"
_RESUME = """
mutation ($input: ResumeRelayInput!) { resumeRelay(input: $input) { route after } }
"""
_DEAD = """
query ($route: String!, $dropped: Boolean!, $after: String) {
  deadLetters(route: $route, dropped: $dropped, first: 100, after: $after) {
    nodes { route position messageId reason attempts refusedAt state by }
    pageInfo { hasNextPage endCursor }
  }
}
"""
_RETRY = "mutation ($input: RetryDeadLettersInput!) { retryDeadLetters(input: $input) { count } }"
_DROP = "mutation ($input: DropDeadLettersInput!) { dropDeadLetters(input: $input) { count } }"

Route = Annotated[str | None, typer.Option(metavar="TOPIC", help="Which route; not needed where there is only one.")]
Positions = Annotated[
    list[int] | None, typer.Argument(metavar="[POSITION]...", help="Positions that `xzepr stream dead` shows.")
]
All = Annotated[bool, typer.Option("--all", help="All that wait for a decision.")]


@app.callback()
def _stream() -> None:  # pyright: ignore[reportUnusedFunction] - typer calls it, for the help
    """Look after the stream and its relay. Needs stream:admin."""


app.command()(status)


@app.command()
def resume(
    at: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Go on after N: it and all before it count as published.")
    ] = None,
    republish_from: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Publish again from N on; consumers may see messages twice.")
    ] = None,
    route: Annotated[
        str | None, typer.Option(metavar="TOPIC", help="Which route; not needed where only one is stopped.")
    ] = None,
    hub: HubUrl = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Tell a stopped route how to go on. `xzepr stream status` says why it stopped and what to choose."""
    if (at is None) == (republish_from is None):
        raise CannotStart("give either --at N or --republish-from N: `xzepr stream status` says which to choose")
    with connected(hub) as client:
        asked = {"route": route or _stopped(client), "at": at, "republishFrom": republish_from}
        done = client.ask(_RESUME, input=asked)["resumeRelay"]
    if as_json:
        print_json(done)
    else:
        typer.echo(f"Route {done['route']} goes on after position {done['after']} within a second or two.")


@app.command()
def dead(
    route: Route = None,
    dropped: Annotated[bool, typer.Option("--dropped", help="Show those that were dropped.")] = False,
    hub: HubUrl = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Show the messages that Kafka refused and the relay left out, newest first, and why."""
    with connected(hub) as client:
        found = list(_dead_letters(client, route or _only_route(client), dropped))
    if as_json:
        print_json(found)
        return
    rows = [
        (one["position"], str(one["state"]).lower(), one["attempts"], one["refusedAt"], one["reason"]) for one in found
    ]
    print_table(("position", "state", "attempts", "refused", "reason"), rows)


@app.command()
def retry(
    positions: Positions = None,
    all: All = False,
    route: Route = None,
    hub: HubUrl = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Have the relay send dead letters again, dropped ones too: each once, behind what was sent meanwhile."""
    count = _decide("retryDeadLetters", _RETRY, positions, all, route, hub, as_json)
    if not as_json:
        typer.echo(
            f"{count} will be sent again within a second or two: `xzepr stream dead` shows what is refused again."
        )


@app.command()
def drop(
    positions: Positions = None,
    all: All = False,
    route: Route = None,
    hub: HubUrl = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Give dead letters up. The stream keeps them, and `xzepr stream retry` can still send them."""
    count = _decide("dropDeadLetters", _DROP, positions, all, route, hub, as_json)
    if not as_json:
        typer.echo(f"{count} dropped.")


def _decide(
    field: str, document: str, positions: list[int] | None, all: bool, route: str | None, hub: str, as_json: bool
) -> int:
    if bool(positions) == all:
        raise CannotStart("give either positions or --all: `xzepr stream dead` shows what there is")
    with connected(hub) as client:
        asked = {"route": route or _only_route(client), "positions": positions or None, "all": all}
        done = client.ask(document, input=asked)[field]
    if as_json:
        print_json(done)
    return int(done["count"])


def _dead_letters(client: Client, route: str, dropped: bool) -> Iterator[dict[str, Any]]:
    after: str | None = None
    while True:
        page = client.ask(_DEAD, route=route, dropped=dropped, after=after)["deadLetters"]
        yield from page["nodes"]
        if not page["pageInfo"]["hasNextPage"]:
            return
        after = page["pageInfo"]["endCursor"]


def _only_route(client: Client) -> str:
    found = client.ask(_ROUTES)["streamStatus"]["routes"]
    routes = [str(one["route"]) for one in found if one["state"] != "STANDBY"]  # which none has led yet
    if len(routes) == 1:
        return routes[0]
    if routes:
        raise CannotStart(f"there are several routes: choose one with --route ({', '.join(routes)})")
    raise CannotStart("no relay has led a route yet, and so nothing was refused")


def _stopped(client: Client) -> str:
    routes = client.ask(_ROUTES)["streamStatus"]["routes"]
    stopped = [str(one["route"]) for one in routes if one["state"] == "STOPPED"]
    if len(stopped) == 1:
        return stopped[0]
    if stopped:
        raise CannotStart(f"several routes are stopped: choose one with --route ({', '.join(stopped)})")
    raise CannotStart("no route is stopped: each goes on by itself")
