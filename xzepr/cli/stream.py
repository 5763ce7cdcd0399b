"""`xzepr stream`: how far the stream and its relay into Kafka are, and telling a stopped route how to go on."""

from typing import Annotated

import typer

from xzepr.cli.client import DEFAULT_HUB, Client, HubUrl, connected
from xzepr.cli.output import AsJson, print_json, print_table, say
from xzepr.core.errors import CannotStart

app = typer.Typer(no_args_is_help=True)

_STATUS = """
{ streamStatus { position cursor routes { route state detail since published lag updatedAt } } }
"""
_RESUME = """
mutation ($input: ResumeRelayInput!) { resumeRelay(input: $input) { route after } }
"""


@app.callback()
def _stream() -> None:  # pyright: ignore[reportUnusedFunction] - typer calls it, for the help
    """Look after the stream and its relay. Needs stream:admin."""


@app.command()
def status(hub: HubUrl = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """Show the head of the stream, and how far each route of the relay has carried it."""
    with connected(hub) as client:
        found = client.ask(_STATUS)["streamStatus"]
    if as_json:
        print_json(found)
        return
    print_table(("stream", "position", "cursor"), [("head", found["position"], found["cursor"])])
    rows = [
        (one["route"], str(one["state"]).lower(), one["published"], one["lag"], one["since"], one["detail"])
        for one in found["routes"]
    ]
    if rows:
        print_table(("route", "state", "published", "lag", "since", "detail"), rows)
    else:
        say("no relay has led a route yet: the hub was started without kafka.brokers, and history waits for them")


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


def _stopped(client: Client) -> str:
    routes = client.ask(_STATUS)["streamStatus"]["routes"]
    stopped = [str(one["route"]) for one in routes if one["state"] == "STOPPED"]
    if len(stopped) == 1:
        return stopped[0]
    if stopped:
        raise CannotStart(f"several routes are stopped: choose one with --route ({', '.join(stopped)})")
    raise CannotStart("no route is stopped: each goes on by itself")
