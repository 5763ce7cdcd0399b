"""An administrator that changes groups while clients record events. Shares no code with the hub."""

import asyncio
import json
from collections.abc import Sequence
from random import Random

from tests.faults.runner.ledger import Json
from tests.faults.runner.plain_http import BrokenConnectionError, Connection
from tests.faults.runner.writers import Workload

PAUSE_SECONDS = 0.5
_REQUEST_SECONDS = 5.0
MEMBERS = """
mutation ($input: UpdateEventReceiverGroupInput!) {
  updateEventReceiverGroup(input: $input) { eventReceiverGroup { id } }
}
"""
ENABLED = """
mutation ($input: SetEventReceiverGroupEnabledInput!) {
  setEventReceiverGroupEnabled(input: $input) { eventReceiverGroup { id } }
}
"""


class GroupAdministrator:
    """Twice a second, switches the last group on or off or gives the first other members.

    The stream shows whether a change arrived.
    """

    def __init__(self, workload: Workload, groups: Sequence[str]) -> None:
        self._workload = workload
        self._groups = groups
        self._random = Random(workload.seed)

    async def run(self) -> None:
        """Changes groups until cancelled. Fails on an error after which a client would not retry."""
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            await self._change(*self._next())

    def _next(self) -> tuple[str, Json]:
        random = self._random
        if random.random() < 0.5:
            members = random.sample(self._workload.receivers, random.randint(1, 3))
            return MEMBERS, {"id": self._groups[0], "eventReceiverIds": members}
        return ENABLED, {"id": self._groups[-1], "enabled": random.random() < 0.7}

    async def _change(self, query: str, input: Json) -> None:
        body = json.dumps({"query": query, "variables": {"input": input}}).encode()
        connection = Connection(self._random.choice(self._workload.ports))
        try:
            response = await connection.post(
                body, f"Authorization: Bearer {self._workload.secret}\r\n", _REQUEST_SECONDS
            )
        except BrokenConnectionError:
            return
        finally:
            connection.close()
        assert self._workload.is_retryable(response.codes), response.body.decode()
