"""A GraphQL client as small as it gets, for setting things up."""

from typing import Any

import httpx2
import orjson

from tests.bench.stage import PASSWORD

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
"""An event; `load.COUNTER` in its version makes each a unit of its own."""

CREATE = "mutation($input:CreateEventInput!){createEvent(input:$input){event{id} cursor repeated gates{complete}}}"


class Client:
    """An admin of the hub on a port."""

    def __init__(self, port: int) -> None:
        self._http = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        login = "mutation($input:LoginInput!){login(input:$input){token}}"
        self.token: str = self.ask(login, input={"username": "admin", "password": PASSWORD})["login"]["token"]
        self._http.headers["authorization"] = f"Bearer {self.token}"

    def ask(self, query: str, **variables: object) -> dict[str, Any]:
        """`data`; fails on errors."""
        body = orjson.dumps({"query": query, "variables": variables})
        answer = self._http.post("/graphql", content=body, headers={"content-type": "application/json"}).json()
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def gate(self) -> list[str]:
        """Two receivers in one enabled group; the receivers' ids."""
        create = "mutation($input:CreateEventReceiverInput!){createEventReceiver(input:$input){eventReceiver{id}}}"
        schema = {"type": "object", "properties": {"passed": {"type": "integer"}}, "required": ["suite"]}
        ids: list[str] = []
        for name in ("build", "test"):
            given = {"name": name, "type": f"ci.{name}", "version": "1", "description": "bench", "schema": schema}
            ids.append(self.ask(create, input=given)["createEventReceiver"]["eventReceiver"]["id"])
        group = {"name": "release", "type": "gate", "version": "1", "description": "bench", "eventReceiverIds": ids}
        self.ask(
            "mutation($input:CreateEventReceiverGroupInput!)"
            "{createEventReceiverGroup(input:$input){eventReceiverGroup{id}}}",
            input=group,
        )
        return ids
