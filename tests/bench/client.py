"""A minimal GraphQL client that prepares a measurement."""

from typing import Any

import httpx2
import orjson

from tests.bench.environment import PASSWORD

# `load.COUNTER` as the version makes each event its own unit.
EVENT: dict[str, object] = {
    "name": "checkout",
    "version": "0000000000",
    "release": "2026.11",
    "platformId": "linux-amd64",
    "package": "oci",
    "description": "unit tests of the checkout service",
    "payload": {"suite": "unit", "passed": 1482, "failed": 0, "coverage": 0.87, "labels": ["ci", "main"]},
    "success": True,
}

CREATE = "mutation($input:CreateEventInput!){createEvent(input:$input){event{id} cursor repeated gates{complete}}}"


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

    def gate(self) -> list[str]:
        """Creates two receivers in one enabled group and returns the receivers' ids."""
        create = "mutation($input:CreateEventReceiverInput!){createEventReceiver(input:$input){eventReceiver{id}}}"
        schema = {"type": "object", "properties": {"passed": {"type": "integer"}}, "required": ["suite"]}
        ids: list[str] = []
        for name in ("build", "test"):
            input = {"name": name, "type": f"ci.{name}", "version": "1", "description": "bench", "schema": schema}
            ids.append(self.ask(create, input=input)["createEventReceiver"]["eventReceiver"]["id"])
        group = {"name": "release", "type": "gate", "version": "1", "description": "bench", "eventReceiverIds": ids}
        self.ask(
            "mutation($input:CreateEventReceiverGroupInput!)"
            "{createEventReceiverGroup(input:$input){eventReceiverGroup{id}}}",
            input=group,
        )
        return ids
