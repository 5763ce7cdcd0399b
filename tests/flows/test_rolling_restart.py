"""Two servers behind a balancer are restarted in turn under load: nobody who resumes misses a message, and nothing that
was acknowledged is lost."""

import asyncio
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields, replace
from random import Random

import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from tests.faults.runner.evidence import Evidence
from tests.faults.runner.ledger import Entry, Json, position_of
from tests.faults.runner.plain_http import event_stream
from tests.faults.runner.run import FaultRun
from tests.faults.runner.stage import ServingHub, Stage, stage
from tests.faults.runner.subscribers import FOLLOW, Subscriber
from tests.faults.runner.writers import CREATE, TRY_AGAIN, Load, event_input
from tests.support.load_balancer import balancer

RESTARTS = 6
"""Three of each server."""
SOCKETS = 4
"""Writers over WebSocket, each with 5 events a second."""
RETRY = TRY_AGAIN | {"DRAINING"}

pytestmark = pytest.mark.slow


class Timed(Subscriber):
    """One that notes the longest time between two frames, and comes back when it is told to."""

    longest = 0.0
    _last = 0.0

    def _note(self, payload: Json) -> None:
        now = time.monotonic()
        if self._last:
            self.longest = max(self.longest, now - self._last)
        self._last = now
        super()._note(payload)

    async def _sse(self, port: int) -> AsyncGenerator[Json]:
        """As an EventSource: the end of a stream is no reason to stop, and `retry` says how long to wait."""
        body = json.dumps({"query": FOLLOW, "variables": {}}).encode()
        headers = f"Authorization: Bearer {self._secret}\r\nLast-Event-ID: {self.cursor}\r\n"
        pause = 0.0
        async with event_stream(port, body, headers) as events:
            self.attendance.attached += 1
            async for event in events:
                assert event.get("event") != "complete", "there is always more"
                pause = int(event.get("retry", "0")) / 1000
                if event.get("event") == "next":
                    yield orjson.loads(event["data"])
        await asyncio.sleep(pause)


class SocketWriter:
    """Records events over WebSocket, one after the other, each again until it is acknowledged."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._random = Random(load.seed)
        self.entries: list[Entry] = []
        self.troubles = Counter[str]()
        self._ended = False

    async def run(self) -> None:
        """Until `end`, and then until the last one is acknowledged."""
        while not self._ended:
            try:
                await self._connected()
            except (OSError, EOFError, WebSocketException) as error:
                self.troubles[str(error)[:60]] += 1
                await asyncio.sleep(0.05)

    def end(self) -> None:
        """The present event is the last."""
        self._ended = True

    async def _connected(self) -> None:
        protocols = [Subprotocol("graphql-transport-ws")]
        url = f"ws://127.0.0.1:{self._load.ports[0]}/graphql"
        async with connect(url, subprotocols=protocols, proxy=None, compression=None, close_timeout=1) as socket:
            await socket.send(json.dumps({"type": "connection_init", "payload": {"token": self._load.secret}}))
            while not self._ended:
                if not self.entries or self.entries[-1].acknowledged_at:
                    input = event_input(self._load, self._random, len(self.entries))
                    self.entries.append(Entry(input["idempotencyKey"], input, first_try=time.monotonic()))
                await self._record(socket, self.entries[-1])
                await asyncio.sleep(0.2)

    async def _record(self, socket: ClientConnection, entry: Entry) -> None:
        entry.tries += 1
        payload = {"query": CREATE, "variables": {"input": entry.input}}
        message = {"type": "subscribe", "id": f"{entry.key}-{entry.tries}", "payload": payload}
        await socket.send(json.dumps(message))
        while (said := orjson.loads(await socket.recv())).get("id") != message["id"]:
            if said["type"] == "ping":
                await socket.send('{"type": "pong"}')
        errors = said["payload"] if said["type"] == "error" else said["payload"].get("errors", [])
        if errors:
            self.troubles[errors[0]["extensions"]["code"]] += 1
            if errors[0]["extensions"]["code"] not in RETRY:
                entry.refusal = json.dumps(errors)
        else:
            created = said["payload"]["data"]["createEvent"]
            entry.id, entry.position = created["event"]["id"], position_of(created["cursor"])
            entry.acknowledged_at = time.monotonic()


@dataclass(slots=True)
class Behind(Stage):
    """A stage whose hubs stand behind a balancer: clients know only its port."""

    balancer_port: int = field(default=0, kw_only=True)

    @property
    def ports(self) -> list[int]:
        """The balancer's."""
        return [self.balancer_port]


class RollingRestart(FaultRun):
    """Load over both transports, and what subscribers saw of it."""

    def __init__(self, on: Stage) -> None:
        super().__init__("rolling restart", on, try_again=RETRY)
        loads = (replace(self.load, seed=self.load.seed + number) for number in range(1, SOCKETS + 1))
        self.sockets = [SocketWriter(load) for load in loads]
        self.timed: list[Timed] = []
        self._writing: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def more(self) -> AsyncGenerator[None]:
        """Meanwhile events come over WebSocket, too, until `sockets_end`, and two more subscribers follow, whose pauses
        are noted."""
        port, secret, cursor = self.stage.ports, self.stage.secret, await self.stage.cursor()
        self.timed = [Timed(f"timed {one}", one, port, secret, cursor, restless=False) for one in ("websocket", "sse")]
        following = [asyncio.create_task(one.run()) for one in self.timed]
        self._writing = [asyncio.create_task(one.run()) for one in self.sockets]
        try:
            yield
            async with asyncio.timeout(30):
                while min(one.reached for one in self.timed) < await self.stage.head():
                    await asyncio.sleep(0.1)
        finally:
            for task in (*following, *self._writing):
                task.cancel()
            await asyncio.gather(*following, *self._writing, return_exceptions=True)

    async def sockets_end(self) -> None:
        """Returns when the last event over WebSocket is acknowledged."""
        for one in self.sockets:
            one.end()
        async with asyncio.timeout(30):
            await asyncio.gather(*self._writing)

    async def evidence(self) -> Evidence:
        found = await super().evidence()
        return replace(
            found,
            entries=[*found.entries, *self.over_websocket],
            attendances=[*found.attendances, *(one.attendance for one in self.timed)],
        )

    @property
    def over_websocket(self) -> list[Entry]:
        """What was recorded over WebSocket."""
        return [entry for one in self.sockets for entry in one.entries]

    def told(self) -> str:
        """What clients met, in words."""
        ledger = self.writers.ledger
        troubles = sum((one.troubles for one in self.sockets), Counter[str]())
        lines = [
            f"HTTP: {len(ledger.acknowledged)} acknowledged, longest wait {ledger.longest_outage:.2f} s, "
            f"tried again after: {ledger.troubles}",
            f"WebSocket: {len(self.over_websocket)} acknowledged, longest wait "
            f"{max(entry.waited for entry in self.over_websocket):.2f} s, tried again after: {dict(troubles)}",
            *(
                f"{one.attendance.name}: {one.attendance.attached} connections, longest pause {one.longest:.2f} s, "
                f"came back after: {one.attendance.troubles}"
                for one in self.timed
            ),
        ]
        return "\n".join(lines)


async def restart(hub: ServingHub) -> float:
    """SIGTERM, a clean end, and a new start; gives the seconds that it took to stop."""
    process = hub.lives[-1].process
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert await asyncio.to_thread(process.wait, 30) == 0, hub.lines[-20:]
    stopped = time.monotonic() - began
    await hub.start()
    return stopped


async def test_rolling_restart_loses_no_event(request: pytest.FixtureRequest) -> None:
    async with stage(kafka=False) as on, balancer(on.ports) as before:
        parts = {one.name: getattr(on, one.name) for one in fields(Stage)}
        run = RollingRestart(Behind(**parts, balancer_port=before.port))
        stops: list[float] = []
        async with run.more(), run.loaded():
            began = time.monotonic()
            await asyncio.sleep(3)
            for number in range(RESTARTS):
                stops.append(await restart(on.hubs[number % 2]))
                run.injections += 1
                await asyncio.sleep(2)
            await asyncio.sleep(max(0.0, 31 - (time.monotonic() - began)))
            await run.sockets_end()
        stopped = ", ".join(f"{one:.2f}" for one in stops)
        sys.stdout.write(f"{run.told()}\nstopped in {stopped} s; connections that nobody took: {before.refused}\n")
        await run.judge(request.node)
    assert max(stops) < 10
    assert before.refused == 0
    assert max(one.longest for one in run.timed) < 15
    told = Counter[str]() + sum((one.troubles for one in run.sockets), Counter[str]())
    assert {"received 1012" if "1012" in why else why for why in told} <= {"received 1012", "DRAINING"}, told
