"""The commands `xzepr stream`: show the status, resume a stopped route, and manage dead letters."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from xzepr.cli.client.http import DEFAULT_HUB, HubClient, HubUrl, open_client
from xzepr.cli.output import AsJson, print_json, print_table
from xzepr.cli.stream_status import status
from xzepr.core.errors import CannotStart

app = typer.Typer(no_args_is_help=True)

_ROUTES = "{ streamStatus { routes { route state } } }"
_RESUME = """
mutation ($input: ResumeRelayInput!) { resumeRelay(input: $input) { route after } }
"""
_DEAD_LETTERS = """
query ($route: String!, $dropped: Boolean!, $after: String) {
  deadLetters(route: $route, dropped: $dropped, first: 100, after: $after) {
    nodes { route position messageId reason attempts refusedAt state by }
    pageInfo { hasNextPage endCursor }
  }
}
"""
_RETRY = "mutation ($input: RetryDeadLettersInput!) { retryDeadLetters(input: $input) { count } }"
_DROP = "mutation ($input: DropDeadLettersInput!) { dropDeadLetters(input: $input) { count } }"

RouteOption = Annotated[str | None, typer.Option(metavar="TOPIC", help="The route. Not needed if there is only one.")]
PositionArguments = Annotated[
    list[int] | None, typer.Argument(metavar="[POSITION]...", help="Positions shown by `xzepr stream dead`.")
]
AllOption = Annotated[bool, typer.Option("--all", help="All dead letters that are waiting for a decision.")]


@app.callback()
def _stream() -> None:  # pyright: ignore[reportUnusedFunction] - typer calls it, for the help
    """Show the status of the stream, and manage its relay into Kafka. Needs stream:admin."""


app.command()(status)


@app.command()
def resume(
    at: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Resume after N: messages up to N count as published.")
    ] = None,
    republish_from: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Publish again from N on. Consumers may see duplicates.")
    ] = None,
    route: Annotated[
        str | None, typer.Option(metavar="TOPIC", help="The route. Not needed if only one is stopped.")
    ] = None,
    hub: HubUrl = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Resume a stopped route. `xzepr stream status` shows why it stopped and which option to choose."""
    if (at is None) == (republish_from is None):
        raise CannotStart("give either --at N or --republish-from N: `xzepr stream status` shows which to choose")
    with open_client(hub) as client:
        input = {"route": route or _stopped_route(client), "at": at, "republishFrom": republish_from}
        resumed = client.execute(_RESUME, input=input)["resumeRelay"]
    if as_json:
        print_json(resumed)
    else:
        typer.echo(f"Route {resumed['route']} resumes after position {resumed['after']} within a second or two.")


@app.command()
def dead(
    route: RouteOption = None,
    dropped: Annotated[bool, typer.Option("--dropped", help="Show the dropped ones instead.")] = False,
    hub: HubUrl = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Show the messages that Kafka rejected and the relay skipped, newest first, with the reasons."""
    with open_client(hub) as client:
        dead_letters = list(_dead_letters(client, route or _only_route(client), dropped))
    if as_json:
        print_json(dead_letters)
        return
    rows = [
        (letter["position"], str(letter["state"]).lower(), letter["attempts"], letter["refusedAt"], letter["reason"])
        for letter in dead_letters
    ]
    print_table(("position", "state", "attempts", "rejected", "reason"), rows)


@app.command()
def retry(
    positions: PositionArguments = None,
    all: AllOption = False,
    route: RouteOption = None,
    hub: HubUrl = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Have the relay publish dead letters again, once each and after the messages already published. Dropped ones can
    be retried too."""
    count = _change_dead_letters(
        "retryDeadLetters", _RETRY, positions=positions, all=all, route=route, hub=hub, as_json=as_json
    )
    if not as_json:
        typer.echo(
            f"{count} will be published again within a second or two. `xzepr stream dead` lists those rejected again."
        )


@app.command()
def drop(
    positions: PositionArguments = None,
    all: AllOption = False,
    route: RouteOption = None,
    hub: HubUrl = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Drop dead letters. They stay in the stream, and `xzepr stream retry` can still publish them."""
    count = _change_dead_letters(
        "dropDeadLetters", _DROP, positions=positions, all=all, route=route, hub=hub, as_json=as_json
    )
    if not as_json:
        typer.echo(f"{count} dropped.")


def _change_dead_letters(
    field: str, document: str, *, positions: list[int] | None, all: bool, route: str | None, hub: str, as_json: bool
) -> int:
    if bool(positions) == all:
        raise CannotStart("give either positions or --all: `xzepr stream dead` lists them")
    with open_client(hub) as client:
        input = {"route": route or _only_route(client), "positions": positions or None, "all": all}
        result = client.execute(document, input=input)[field]
    if as_json:
        print_json(result)
    return int(result["count"])


def _dead_letters(client: HubClient, route: str, dropped: bool) -> Iterator[dict[str, Any]]:
    after: str | None = None
    while True:
        page = client.execute(_DEAD_LETTERS, route=route, dropped=dropped, after=after)["deadLetters"]
        yield from page["nodes"]
        if not page["pageInfo"]["hasNextPage"]:
            return
        after = page["pageInfo"]["endCursor"]


def _only_route(client: HubClient) -> str:
    """Returns the name of the only route that a relay has led. Raises CannotStart if there is none or more than one."""
    routes = client.execute(_ROUTES)["streamStatus"]["routes"]
    names = [str(route["route"]) for route in routes if route["state"] != "STANDBY"]  # STANDBY: never led
    if len(names) == 1:
        return names[0]
    if names:
        raise CannotStart(f"there are several routes: choose one with --route ({', '.join(names)})")
    raise CannotStart("no relay has led a route yet, so there are no dead letters")


def _stopped_route(client: HubClient) -> str:
    """Returns the name of the only stopped route. Raises CannotStart if there is none or more than one."""
    routes = client.execute(_ROUTES)["streamStatus"]["routes"]
    stopped = [str(route["route"]) for route in routes if route["state"] == "STOPPED"]
    if len(stopped) == 1:
        return stopped[0]
    if stopped:
        raise CannotStart(f"several routes are stopped: choose one with --route ({', '.join(stopped)})")
    raise CannotStart("no route is stopped, so there is nothing to resume")
