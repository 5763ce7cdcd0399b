"""The cases in which servers get single requests on 64 connections, or on one."""

from dataclasses import dataclass

from tests.bench.contest import CONNECTIONS, contest
from tests.bench.session import Session
from tests.bench.stage import Stage


@dataclass(frozen=True, slots=True)
class Load:
    """A case, and the servers that are loaded in turn."""

    case: str
    servers: tuple[str, ...]
    others: tuple[str, ...] = ()
    """Servers that no goal names. A quick run leaves them out."""
    connections: int = CONNECTIONS
    name: str = ""


# Creates come last: before, the newest events belong to all receivers in turn.
SECTIONS = {
    "typename": (Load("typename", ("hub", "hand")),),
    "event": (Load("event", ("hub", "hand"), ("hand_group",)),),
    "list": (
        Load("list", ("hub", "hub_2"), ("hand", "hand_group")),
        Load("list_receiver", ("hub",), ("hand", "hand_group")),
    ),
    "create": (
        Load("create", ("hub", "hub_2", "hand_group"), ("hand",)),
        Load("create", ("hub", "hand"), connections=1, name="create_1"),
    ),
}


def measure(session: Session, running: Stage, section: str) -> None:
    """Measures the cases of a section."""
    for load in SECTIONS[section]:
        servers = load.servers if session.options.quick else load.servers + load.others
        contestants = [running.contestant(server, load.case) for server in servers]
        contest(session, load.case, contestants, load.connections, load.name)
