"""Clients that record events at a steady rate. Each event has an idempotency key and is retried until acknowledged."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

from tests.faults.runner.ledger import Entry, Json, Ledger, Repeat, position_of
from tests.faults.runner.plain_http import BrokenConnectionError, Connection, Response, graphql

CLIENTS = 32
RATE = 240.0  # events per second of all clients together
RETRYABLE = frozenset({"OVERLOADED", "UNAVAILABLE", "TIMEOUT"})  # codes after which a client retries with the same key
ATTEMPT_SECONDS = 10.0  # timeout of one attempt
_TICK_SECONDS = 0.025
_MAX_UNSETTLED = 6000  # events without a final response, so that a slow machine is not flooded
_NO_PROGRESS_SECONDS = 60.0
_MAX_PAUSE_SECONDS = 1.0
_EVENTS_PER_UNIT = 60
_UNITS_IN_PROGRESS = 12
_RESENT_EVENTS = 200
CREATE = "mutation ($input: CreateEventInput!) { createEvent(input: $input) { repeated event { id } cursor } }"


@dataclass(frozen=True, slots=True)
class Workload:
    """The workload of the clients: servers, credentials, receivers and rate."""

    ports: Sequence[int]
    secret: str
    receivers: Sequence[str]
    seed: int
    rate: float = RATE
    clients: int = CLIENTS
    retryable: frozenset[str] = RETRYABLE

    def is_retryable(self, codes: Iterable[str]) -> bool:
        """Returns whether a client retries after these error codes."""
        return all(code in self.retryable or code in ("HTTP 502", "HTTP 503", "HTTP 504") for code in codes)


def event_input(workload: Workload, random: Random, number: int) -> Json:
    """Returns the input of an event with this number: of one of the units in progress, 65 % of them a success."""
    unit = number // _EVENTS_PER_UNIT + random.randrange(_UNITS_IN_PROGRESS)
    key = f"{workload.seed}-{number}"
    return {
        "name": f"app-{unit}",
        "version": f"1.4.{unit}",
        "release": f"2026.{unit % 12 + 1}",
        "platformId": f"linux-{unit % 3}",
        "package": f"oci-{unit % 5}",
        "description": f"recorded under faults as number {number}",
        "payload": {"key": key, "steps": [number, None, {"seconds": number / 8, "text": "größer < \u2028"}]},
        "success": random.random() < 0.65,
        "eventReceiverId": random.choice(workload.receivers),
        "idempotencyKey": key,
    }


class Writers:
    """The clients of one run. Events wait in a queue, so that clients catch up after an outage."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.ledger = Ledger()
        self._random = Random(workload.seed)
        self._queue: asyncio.Queue[Entry] = asyncio.Queue()
        self._settled = 0

    @property
    def unsettled_count(self) -> int:
        """The number of queued events that are neither acknowledged nor failed."""
        return len(self.ledger.entries) - self._settled

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Records events while the block runs, then waits for the last responses."""
        pacer = asyncio.create_task(self._pace())
        clients = [asyncio.create_task(self._client(number)) for number in range(self.workload.clients)]
        try:
            yield
            pacer.cancel()
            await self._settle(clients)
        finally:
            for task in (pacer, *clients):
                task.cancel()
            await asyncio.gather(pacer, *clients, return_exceptions=True)

    async def _settle(self, clients: "list[asyncio.Task[None]]") -> None:
        """Waits until every event is acknowledged or failed, or until none was for a minute."""
        last, moved_at = -1, time.monotonic()
        while self.unsettled_count and time.monotonic() - moved_at < _NO_PROGRESS_SECONDS:
            for client in clients:
                if client.done():
                    client.result()
            if self._settled != last:
                last, moved_at = self._settled, time.monotonic()
            await asyncio.sleep(0.05)

    async def resend(self, port: int) -> list[Repeat]:
        """Sends up to 200 acknowledged events again, those with the most attempts first."""
        entries = sorted(self.ledger.acknowledged, key=lambda entry: (-entry.attempts, self._random.random()))
        repeats: list[Repeat] = []
        for entry in entries[:_RESENT_EVENTS]:
            created = (await graphql(port, CREATE, {"input": entry.input}, self.workload.secret))["createEvent"]
            repeats.append(Repeat(entry.key, created["event"]["id"], created["repeated"]))
        return repeats

    async def _pace(self) -> None:
        due, last = 0.0, time.monotonic()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now = time.monotonic()
            due, last = due + (now - last) * self.workload.rate, now
            while due >= 1 and self.unsettled_count < _MAX_UNSETTLED:
                self._enqueue()
                due -= 1
            due = min(due, self.workload.rate)

    def _enqueue(self) -> None:
        input = event_input(self.workload, self._random, len(self.ledger.entries))
        entry = Entry(input["idempotencyKey"], input)
        self.ledger.entries.append(entry)
        self._queue.put_nowait(entry)

    async def _client(self, number: int) -> None:
        connections = [Connection(port) for port in self.workload.ports]
        index = number % len(connections)
        try:
            while True:
                entry = await self._queue.get()
                index = await self._record(entry, connections, index)
                self._settled += 1
        finally:
            for connection in connections:
                connection.close()

    async def _record(self, entry: Entry, connections: Sequence[Connection], index: int) -> int:
        """Sends an event until a response is final, to the next server after each failure.

        Returns the index of the connection with the final response.
        """
        body = json.dumps({"query": CREATE, "variables": {"input": entry.input}}).encode()
        headers = f"Authorization: Bearer {self.workload.secret}\r\n"
        pause, entry.first_attempt_at = 0.05, time.monotonic()
        while True:
            entry.attempts += 1
            try:
                if self._is_final(entry, await connections[index].post(body, headers, ATTEMPT_SECONDS)):
                    return index
            except BrokenConnectionError as error:
                self.ledger.count_retry(str(error).partition(":")[0])
            index = (index + 1) % len(connections)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _MAX_PAUSE_SECONDS)

    def _is_final(self, entry: Entry, response: Response) -> bool:
        """Notes the response in the entry. Returns False if the client must retry."""
        codes = response.codes
        if not codes:
            created = response.json["data"]["createEvent"]
            entry.id, entry.position = created["event"]["id"], position_of(created["cursor"])
            entry.acknowledged_at = time.monotonic()
            return True
        for code in codes:
            self.ledger.count_retry(code)
        if self.workload.is_retryable(codes):
            return False
        entry.fatal_error = response.body.decode(errors="replace")[:500]
        return True
