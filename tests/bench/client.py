"""A minimal GraphQL client that prepares a measurement."""

from collections.abc import Iterator, Sequence
from typing import Any

import httpx2
import orjson

from tests.bench.environment import PASSWORD
from tests.bench.load import COUNTER, Target

# COUNTER as the version makes each event its own unit.
EVENT: dict[str, object] = {
    "name": "checkout",
    "version": COUNTER.decode(),
    "release": "2026.11",
    "platformId": "linux-amd64",
    "package": "oci",
    "description": "unit tests of the checkout service",
    "payload": {"suite": "unit", "passed": 1482, "failed": 0, "coverage": 0.87, "labels": ["ci", "main"]},
    "success": True,
}
SCHEMA = {
    "type": "object",
    "properties": {
        "suite": {"type": "string"},
        "passed": {"type": "integer", "minimum": 0},
        "failed": {"type": "integer", "minimum": 0},
        "coverage": {"type": "number", "maximum": 1},
        "labels": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["suite", "passed"],
}

CREATE = "mutation($input:CreateEventInput!){createEvent(input:$input){event{id} cursor repeated gates{complete}}}"
_CREATE_MANY = (
    "mutation($input:CreateEventsInput!){createEvents(input:$input){results{recorded{event{id}} problems{message}}}}"
)


class Client:
    """The administrator of the hub on a local port."""

    def __init__(self, port: int) -> None:
        self._http = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        login = "mutation($input:LoginInput!){login(input:$input){token}}"
        self.token: str = self.ask(login, input={"username": "admin", "password": PASSWORD})["login"]["token"]
        self._http.headers["authorization"] = f"Bearer {self.token}"

    def ask(self, query: str, **variables: object) -> dict[str, Any]:
        """Executes a document and returns its data. Fails on errors."""
        body = orjson.dumps({"query": query, "variables": variables})
        response = self._http.post("/graphql", content=body, headers={"content-type": "application/json"}).json()
        assert "errors" not in response, response["errors"]
        return response["data"]

    def gates(self, count: int = 1) -> list[str]:
        """Creates enabled groups of two receivers each and returns the receivers' ids."""
        return [id for number in range(count) for id in self._gate(number)]

    def _gate(self, number: int) -> list[str]:
        create = "mutation($input:CreateEventReceiverInput!){createEventReceiver(input:$input){eventReceiver{id}}}"
        ids: list[str] = []
        for name in ("build", "test"):
            input = {
                "name": f"{name}-{number}",
                "type": f"ci.{name}",
                "version": "1",
                "description": "bench",
                "schema": SCHEMA,
            }
            ids.append(self.ask(create, input=input)["createEventReceiver"]["eventReceiver"]["id"])
        group = {"name": f"release-{number}", "type": "gate", "version": "1", "description": "bench"}
        self.ask(
            "mutation($input:CreateEventReceiverGroupInput!)"
            "{createEventReceiverGroup(input:$input){eventReceiverGroup{id}}}",
            input=group | {"eventReceiverIds": ids},
        )
        return ids

    def api_key(self) -> str:
        """Creates an API key with all permissions and returns its secret."""
        create = "mutation($input:CreateApiKeyInput!){createApiKey(input:$input){secret}}"
        return self.ask(create, input={"name": "bench"})["createApiKey"]["secret"]

    def record(self, receivers: Sequence[str], count: int, first: int = 0, *, batch: int = 500) -> Iterator[str]:
        """Records events of different units, `batch` in a call, for the receivers in turn. Yields their ids."""
        for start in range(first, first + count, batch):
            numbers = range(start, min(start + batch, first + count))
            events = [
                EVENT | {"version": f"{number:010d}", "eventReceiverId": receivers[number % len(receivers)]}
                for number in numbers
            ]
            results = self.ask(_CREATE_MANY, input={"events": events})["createEvents"]["results"]
            assert len(results) == len(numbers)
            yield from (result["recorded"]["event"]["id"] for result in results)


def create_target(port: int, key: str, receiver: str) -> Target:
    """Returns the request that creates one event of a new unit."""
    body = orjson.dumps({"query": CREATE, "variables": {"input": EVENT | {"eventReceiverId": receiver}}})
    return Target(port, "/graphql", body, {"Content-Type": "application/json", "Authorization": f"Bearer {key}"})
