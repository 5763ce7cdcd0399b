"""Somebody who changes groups while clients record; no code of the hub's."""

import asyncio
import json
from collections.abc import Sequence
from random import Random

from tests.faults.runner.ledger import Json
from tests.faults.runner.plain_http import BrokenOffError, Connection
from tests.faults.runner.writers import Load

PAUSE_SECONDS = 0.5
_SECONDS = 5.0
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


class Gardener:
    """Twice a second the last group is switched, or the first gets other members; whether that arrived, the stream
    tells."""

    def __init__(self, load: Load, groups: Sequence[str]) -> None:
        self._load = load
        self._groups = groups
        self._random = Random(load.seed)

    async def run(self) -> None:
        """Until cancelled. Fails on an answer after which a client would not come back."""
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            await self._change(*self._next())

    def _next(self) -> tuple[str, Json]:
        random = self._random
        if random.random() < 0.5:
            members = random.sample(self._load.receivers, random.randint(1, 3))
            return MEMBERS, {"id": self._groups[0], "eventReceiverIds": members}
        return ENABLED, {"id": self._groups[-1], "enabled": random.random() < 0.7}

    async def _change(self, query: str, input: Json) -> None:
        body = json.dumps({"query": query, "variables": {"input": input}}).encode()
        connection = Connection(self._random.choice(self._load.ports))
        try:
            answer = await connection.ask(body, f"Authorization: Bearer {self._load.secret}\r\n", _SECONDS)
        except BrokenOffError:
            return
        finally:
            connection.close()
        assert self._load.comes_back(answer.codes), answer.body.decode()
