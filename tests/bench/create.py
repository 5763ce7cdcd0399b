"""`createEvent`, one event a request, 64 connections: the hub against endpoints that do less."""

import tempfile
from pathlib import Path
from statistics import median

import orjson

from tests.bench import stage
from tests.bench.client import CREATE, EVENT, Client
from tests.bench.load import Measured, Target, press
from tests.support.kafka import free_ports
from xzepr.infra.embedded import EmbeddedPostgres

CONNECTIONS = 64
SECONDS = 4.0


def measure(server: EmbeddedPostgres) -> list[list[str]]:
    """Rows of name, requests/s, p50, p99, and the ratio of requests/s to the hub's."""
    url, plain = stage.new_database(server, "create"), stage.new_database(server, "create_plain")
    bare = stage.new_database(server, "create_bare")
    folder = Path(tempfile.mkdtemp(prefix="xzepr-bench-hub-"))
    with stage.hub(bare, folder) as port:
        receiver = Client(port).gate()[0]
    ports = free_ports(2)
    with (
        stage.hub(url, folder) as hub_port,
        stage.child(["tests.bench.rivals", "insert", str(ports[0]), plain, "r"], ports[0], "/", {}),
        stage.child(["tests.bench.rivals", "recorder", str(ports[1]), bare, receiver], ports[1], "/", {}),
    ):
        client = Client(hub_port)
        event = EVENT | {"eventReceiverId": client.gate()[0]}
        headers = {"Content-Type": "application/json"}
        graphql = orjson.dumps({"query": CREATE, "variables": {"input": event}})
        targets = {
            "createEvent through /graphql": Target(
                hub_port, "/graphql", graphql, headers | {"Authorization": f"Bearer {client.token}"}
            ),
            "hand-written, one INSERT a request": Target(ports[0], "/events", orjson.dumps(EVENT), headers),
            "hand-written, the same recorder": Target(ports[1], "/events", orjson.dumps(EVENT), headers),
        }
        rounds: dict[str, list[Measured]] = {name: [] for name in targets}
        for _ in range(stage.ROUNDS):
            for name, target in targets.items():
                rounds[name].append(press(target, CONNECTIONS, SECONDS))
    return _rows(rounds)


def _rows(rounds: dict[str, list[Measured]]) -> list[list[str]]:
    rates = {name: median(one.rate for one in many) for name, many in rounds.items()}
    first = next(iter(rates.values()))
    rows: list[list[str]] = []
    for name, many in rounds.items():
        failures = sum(one.failures for one in many)
        rows.append(
            [
                name,
                f"{rates[name]:,.0f}",
                f"{median(one.percentile(50) for one in many):.1f}",
                f"{median(one.percentile(99) for one in many):.1f}",
                f"{first / rates[name]:.2f}",
                str(failures),
            ]
        )
    return rows
