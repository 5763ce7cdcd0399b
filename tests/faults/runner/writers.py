"""Clients that record events at a steady pace, each with an idempotency key and again until it is acknowledged."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

from tests.faults.runner.ledger import Entry, Json, Ledger, Repeat, position_of
from tests.faults.runner.plain_http import Answer, BrokenOffError, Connection, ask

CLIENTS = 32
RATE = 240.0
"""Events a second, all clients together."""
TRY_AGAIN = frozenset({"OVERLOADED", "UNAVAILABLE", "TIMEOUT"})
"""The codes that tell a client to come back with the same key."""
TRY_SECONDS = 10.0
_TICK_SECONDS = 0.025
_MOST_UNSETTLED = 6000
"""So many events wait for their answers at most: no more are offered than a machine can do."""
_SETTLE_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 1.0
_EVENTS_PER_UNIT = 60
_UNITS_AT_A_TIME = 12
_SENT_AGAIN = 200
CREATE = "mutation ($input: CreateEventInput!) { createEvent(input: $input) { repeated event { id } cursor } }"


@dataclass(frozen=True, slots=True)
class Load:
    """To whom clients speak, as whom, and about which receivers."""

    ports: Sequence[int]
    secret: str
    receivers: Sequence[str]
    seed: int
    rate: float = RATE
    clients: int = CLIENTS
    try_again: frozenset[str] = TRY_AGAIN

    def comes_back(self, codes: Iterable[str]) -> bool:
        """Whether a client that is answered these codes tries again."""
        return all(code in self.try_again or code in ("HTTP 502", "HTTP 503", "HTTP 504") for code in codes)


def event_input(load: Load, random: Random, number: int) -> Json:
    """The event with that number: of a unit that is under way now, two times of three a success."""
    unit = number // _EVENTS_PER_UNIT + random.randrange(_UNITS_AT_A_TIME)
    key = f"{load.seed}-{number}"
    return {
        "name": f"app-{unit}",
        "version": f"1.4.{unit}",
        "release": f"2026.{unit % 12 + 1}",
        "platformId": f"linux-{unit % 3}",
        "package": f"oci-{unit % 5}",
        "description": f"recorded under faults as number {number}",
        "payload": {"key": key, "steps": [number, None, {"took": number / 8, "said": "größer < \u2028"}]},
        "success": random.random() < 0.65,
        "eventReceiverId": random.choice(load.receivers),
        "idempotencyKey": key,
    }


class Writers:
    """The clients of one run. What is offered waits in a queue, so that an outage is caught up with afterwards."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.ledger = Ledger()
        self._random = Random(load.seed)
        self._queue: asyncio.Queue[Entry] = asyncio.Queue()
        self._settled = 0

    @property
    def unsettled(self) -> int:
        """Events that are offered and neither acknowledged nor refused."""
        return len(self.ledger.entries) - self._settled

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[None]:
        """Offers events meanwhile. Afterwards `settle` waits for the last answers."""
        pacer = asyncio.create_task(self._pace())
        clients = [asyncio.create_task(self._client(number)) for number in range(self.load.clients)]
        try:
            yield
            pacer.cancel()
            await self._settle(clients)
        finally:
            for task in (pacer, *clients):
                task.cancel()
            await asyncio.gather(pacer, *clients, return_exceptions=True)

    async def _settle(self, clients: "list[asyncio.Task[None]]") -> None:
        """Returns when every offered event is acknowledged or refused, or when for a minute none was."""
        last, moved_at = -1, time.monotonic()
        while self.unsettled and time.monotonic() - moved_at < _SETTLE_SECONDS:
            for client in clients:
                if client.done():
                    client.result()
            if self._settled != last:
                last, moved_at = self._settled, time.monotonic()
            await asyncio.sleep(0.05)

    async def send_again(self, port: int) -> list[Repeat]:
        """Sends acknowledged events once more: those that took several tries first, then any, some hundreds."""
        entries = sorted(self.ledger.acknowledged, key=lambda entry: (-entry.tries, self._random.random()))
        found: list[Repeat] = []
        for entry in entries[:_SENT_AGAIN]:
            created = (await ask(port, CREATE, {"input": entry.input}, self.load.secret))["createEvent"]
            found.append(Repeat(entry.key, created["event"]["id"], created["repeated"]))
        return found

    async def _pace(self) -> None:
        due, last = 0.0, time.monotonic()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now = time.monotonic()
            due, last = due + (now - last) * self.load.rate, now
            while due >= 1 and self.unsettled < _MOST_UNSETTLED:
                self._offer()
                due -= 1
            due = min(due, self.load.rate)

    def _offer(self) -> None:
        input = event_input(self.load, self._random, len(self.ledger.entries))
        entry = Entry(input["idempotencyKey"], input)
        self.ledger.entries.append(entry)
        self._queue.put_nowait(entry)

    async def _client(self, number: int) -> None:
        connections = [Connection(port) for port in self.load.ports]
        at = number % len(connections)
        try:
            while True:
                entry = await self._queue.get()
                at = await self._record(entry, connections, at)
                self._settled += 1
        finally:
            for connection in connections:
                connection.close()

    async def _record(self, entry: Entry, connections: Sequence[Connection], at: int) -> int:
        """Tries until there is an answer that counts, at another server after each failure; says at which it came."""
        body = json.dumps({"query": CREATE, "variables": {"input": entry.input}}).encode()
        headers = f"Authorization: Bearer {self.load.secret}\r\n"
        pause, entry.first_try = 0.05, time.monotonic()
        while True:
            entry.tries += 1
            try:
                if self._counts(entry, await connections[at].ask(body, headers, TRY_SECONDS)):
                    return at
            except BrokenOffError as error:
                self.ledger.trouble(str(error).partition(":")[0])
            at = (at + 1) % len(connections)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _counts(self, entry: Entry, answer: Answer) -> bool:
        codes = answer.codes
        if not codes:
            created = answer.json["data"]["createEvent"]
            entry.id, entry.position = created["event"]["id"], position_of(created["cursor"])
            entry.acknowledged_at = time.monotonic()
            return True
        for code in codes:
            self.ledger.trouble(code)
        if self.load.comes_back(codes):
            return False
        entry.refusal = answer.body.decode(errors="replace")[:500]
        return True
