"""`createEvent` with one event per request on 64 connections, compared with endpoints that do less."""

import tempfile
from pathlib import Path
from statistics import median

import orjson

from tests.bench import environment
from tests.bench.client import CREATE, EVENT, Client
from tests.bench.load import Measured, Target, press
from tests.support.kafka import free_ports
from xzepr.infra.embedded import EmbeddedPostgres

CONNECTIONS = 64
SECONDS = 4.0


def measure(server: EmbeddedPostgres) -> list[list[str]]:
    """Returns rows of name, requests/s, p50, p99, the ratio of the hub's requests/s to these, and failures."""
    url, plain = environment.new_database(server, "create"), environment.new_database(server, "create_plain")
    bare = environment.new_database(server, "create_bare")
    folder = Path(tempfile.mkdtemp(prefix="xzepr-bench-hub-"))
    with environment.hub(bare, folder) as port:
        receiver = Client(port).gate()[0]
    ports = free_ports(2)
    with (
        environment.hub(url, folder) as hub_port,
        environment.child(["tests.bench.baselines", "insert", str(ports[0]), plain, "r"], ports[0], "/", {}),
        environment.child(["tests.bench.baselines", "recorder", str(ports[1]), bare, receiver], ports[1], "/", {}),
    ):
        client = Client(hub_port)
        event = EVENT | {"eventReceiverId": client.gate()[0]}
        headers = {"Content-Type": "application/json"}
        graphql = orjson.dumps({"query": CREATE, "variables": {"input": event}})
        targets = {
            "createEvent through /graphql": Target(
                hub_port, "/graphql", graphql, headers | {"Authorization": f"Bearer {client.token}"}
            ),
            "hand-written, one INSERT per request": Target(ports[0], "/events", orjson.dumps(EVENT), headers),
            "hand-written, the same recorder": Target(ports[1], "/events", orjson.dumps(EVENT), headers),
        }
        rounds: dict[str, list[Measured]] = {name: [] for name in targets}
        for _ in range(environment.ROUNDS):
            for name, target in targets.items():
                rounds[name].append(press(target, CONNECTIONS, SECONDS))
    return _rows(rounds)


def _rows(rounds: dict[str, list[Measured]]) -> list[list[str]]:
    rates = {name: median(result.rate for result in results) for name, results in rounds.items()}
    hub = next(iter(rates.values()))
    rows: list[list[str]] = []
    for name, results in rounds.items():
        failures = sum(result.failures for result in results)
        rows.append(
            [
                name,
                f"{rates[name]:,.0f}",
                f"{median(result.percentile(50) for result in results):.1f}",
                f"{median(result.percentile(99) for result in results):.1f}",
                f"{hub / rates[name]:.2f}",
                str(failures),
            ]
        )
    return rows
