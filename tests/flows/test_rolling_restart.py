"""Two servers behind a balancer restart in turn under load: subscribers miss no message, and no acknowledged event is
lost."""

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

from tests.faults.runner.deployment import Deployment, HubProcess, deployment
from tests.faults.runner.evidence import Evidence
from tests.faults.runner.fault_run import FaultRun
from tests.faults.runner.ledger import Entry, Json, position_of
from tests.faults.runner.plain_http import event_stream
from tests.faults.runner.subscribers import FOLLOW, Subscriber
from tests.faults.runner.writers import CREATE, RETRYABLE, Workload, event_input
from tests.support.load_balancer import load_balancer

RESTARTS = 6  # three of each server
SOCKETS = 4  # writers over WebSocket, each with 5 events a second
RETRYABLE_CODES = RETRYABLE | {"DRAINING"}

pytestmark = pytest.mark.slow


class TimedSubscriber(Subscriber):
    """A subscriber that measures the longest time between two frames and reconnects as the hub requests."""

    longest_pause = 0.0
    _last_frame_at = 0.0

    def _store(self, payload: Json) -> None:
        now = time.monotonic()
        if self._last_frame_at:
            self.longest_pause = max(self.longest_pause, now - self._last_frame_at)
        self._last_frame_at = now
        super()._store(payload)

    async def _sse(self, port: int) -> AsyncGenerator[Json]:
        """Subscribes like an EventSource: reconnects when the stream ends, after the pause that `retry` names."""
        body = json.dumps({"query": FOLLOW, "variables": {}}).encode()
        headers = f"Authorization: Bearer {self._secret}\r\nLast-Event-ID: {self.cursor}\r\n"
        pause = 0.0
        async with event_stream(port, body, headers) as events:
            self.record.connections += 1
            async for event in events:
                assert event.get("event") != "complete", "the subscription never completes"
                pause = int(event.get("retry", "0")) / 1000
                if event.get("event") == "next":
                    yield orjson.loads(event["data"])
        await asyncio.sleep(pause)


class SocketWriter:
    """Records events over WebSocket, one after the other, and retries each until it is acknowledged."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._random = Random(workload.seed)
        self.entries: list[Entry] = []
        self.retry_reasons = Counter[str]()
        self._ended = False

    async def run(self) -> None:
        """Records events until `end` is called, and then until the last one is acknowledged."""
        while not self._ended:
            try:
                await self._record_over_connection()
            except (OSError, EOFError, WebSocketException) as error:
                self.retry_reasons[str(error)[:60]] += 1
                await asyncio.sleep(0.05)

    def end(self) -> None:
        """Makes the current event the last."""
        self._ended = True

    async def _record_over_connection(self) -> None:
        protocols = [Subprotocol("graphql-transport-ws")]
        url = f"ws://127.0.0.1:{self._workload.ports[0]}/graphql"
        async with connect(url, subprotocols=protocols, proxy=None, compression=None, close_timeout=1) as socket:
            await socket.send(json.dumps({"type": "connection_init", "payload": {"token": self._workload.secret}}))
            while not self._ended:
                if not self.entries or self.entries[-1].acknowledged_at:
                    input = event_input(self._workload, self._random, len(self.entries))
                    self.entries.append(Entry(input["idempotencyKey"], input, first_attempt_at=time.monotonic()))
                await self._record(socket, self.entries[-1])
                await asyncio.sleep(0.2)

    async def _record(self, socket: ClientConnection, entry: Entry) -> None:
        entry.attempts += 1
        payload = {"query": CREATE, "variables": {"input": entry.input}}
        message = {"type": "subscribe", "id": f"{entry.key}-{entry.attempts}", "payload": payload}
        await socket.send(json.dumps(message))
        while (response := orjson.loads(await socket.recv())).get("id") != message["id"]:
            if response["type"] == "ping":
                await socket.send('{"type": "pong"}')
        errors = response["payload"] if response["type"] == "error" else response["payload"].get("errors", [])
        if errors:
            self.retry_reasons[errors[0]["extensions"]["code"]] += 1
            if errors[0]["extensions"]["code"] not in RETRYABLE_CODES:
                entry.fatal_error = json.dumps(errors)
        else:
            created = response["payload"]["data"]["createEvent"]
            entry.id, entry.position = created["event"]["id"], position_of(created["cursor"])
            entry.acknowledged_at = time.monotonic()


@dataclass(slots=True)
class BalancedDeployment(Deployment):
    """A deployment whose clients reach the hubs only through a balancer."""

    balancer_port: int = field(default=0, kw_only=True)

    @property
    def ports(self) -> list[int]:
        """The port of the balancer."""
        return [self.balancer_port]


class RollingRestart(FaultRun):
    """A run with load over HTTP and WebSocket, and with subscribers whose pauses are measured."""

    def __init__(self, system: Deployment) -> None:
        super().__init__("rolling restart", system, retryable=RETRYABLE_CODES)
        workloads = (replace(self.workload, seed=self.workload.seed + number) for number in range(1, SOCKETS + 1))
        self.socket_writers = [SocketWriter(workload) for workload in workloads]
        self.timed_subscribers: list[TimedSubscriber] = []
        self._writing: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def socket_load(self) -> AsyncGenerator[None]:
        """Adds writers over WebSocket until `end_socket_writers`, and two subscribers whose pauses are measured."""
        port, secret, cursor = self.system.ports, self.system.secret, await self.system.cursor()
        self.timed_subscribers = [
            TimedSubscriber(f"timed {transport}", transport, port, secret, cursor, reconnecting=False)
            for transport in ("websocket", "sse")
        ]
        following = [asyncio.create_task(subscriber.run()) for subscriber in self.timed_subscribers]
        self._writing = [asyncio.create_task(writer.run()) for writer in self.socket_writers]
        try:
            yield
            async with asyncio.timeout(30):
                while min(subscriber.reached for subscriber in self.timed_subscribers) < await self.system.head():
                    await asyncio.sleep(0.1)
        finally:
            for task in (*following, *self._writing):
                task.cancel()
            await asyncio.gather(*following, *self._writing, return_exceptions=True)

    async def end_socket_writers(self) -> None:
        """Ends the writers over WebSocket and waits until their last events are acknowledged."""
        for writer in self.socket_writers:
            writer.end()
        async with asyncio.timeout(30):
            await asyncio.gather(*self._writing)

    async def evidence(self) -> Evidence:
        evidence = await super().evidence()
        return replace(
            evidence,
            entries=[*evidence.entries, *self.socket_entries],
            subscriber_records=[
                *evidence.subscriber_records,
                *(subscriber.record for subscriber in self.timed_subscribers),
            ],
        )

    @property
    def socket_entries(self) -> list[Entry]:
        """The events of the writers over WebSocket."""
        return [entry for writer in self.socket_writers for entry in writer.entries]

    def summary(self) -> str:
        """Returns the figures of the run as text."""
        ledger = self.writers.ledger
        retry_reasons = sum((writer.retry_reasons for writer in self.socket_writers), Counter[str]())
        lines = [
            f"HTTP: {len(ledger.acknowledged)} acknowledged, longest wait {ledger.longest_outage:.2f} s, "
            f"retried after: {ledger.retry_reasons}",
            f"WebSocket: {len(self.socket_entries)} acknowledged, longest wait "
            f"{max(entry.waited for entry in self.socket_entries):.2f} s, retried after: {dict(retry_reasons)}",
            *(
                f"{subscriber.record.name}: {subscriber.record.connections} connections, "
                f"longest pause {subscriber.longest_pause:.2f} s, reconnected after: {subscriber.record.retry_reasons}"
                for subscriber in self.timed_subscribers
            ),
        ]
        return "\n".join(lines)


async def restart(hub: HubProcess) -> float:
    """Stops the hub with SIGTERM, asserts a clean exit and starts it again; returns the seconds that the stop took."""
    process = hub.processes[-1].process
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert await asyncio.to_thread(process.wait, 30) == 0, hub.lines[-20:]
    stopped = time.monotonic() - began
    await hub.start()
    return stopped


async def test_rolling_restart_loses_no_event(request: pytest.FixtureRequest) -> None:
    async with deployment(kafka=False) as system, load_balancer(system.ports) as proxy:
        values = {attribute.name: getattr(system, attribute.name) for attribute in fields(Deployment)}
        run = RollingRestart(BalancedDeployment(**values, balancer_port=proxy.port))
        stop_times: list[float] = []
        async with run.socket_load(), run.under_load():
            began = time.monotonic()
            await asyncio.sleep(3)
            for number in range(RESTARTS):
                stop_times.append(await restart(system.hubs[number % 2]))
                run.injections += 1
                await asyncio.sleep(2)
            await asyncio.sleep(max(0.0, 31 - (time.monotonic() - began)))
            await run.end_socket_writers()
        stopped = ", ".join(f"{seconds:.2f}" for seconds in stop_times)
        sys.stdout.write(f"{run.summary()}\nstopped in {stopped} s; refused connections: {proxy.rejected}\n")
        await run.check(request.node)
    assert max(stop_times) < 10
    assert proxy.rejected == 0
    assert max(subscriber.longest_pause for subscriber in run.timed_subscribers) < 15
    retry_reasons = sum((writer.retry_reasons for writer in run.socket_writers), Counter[str]())
    assert {"received 1012" if "1012" in reason else reason for reason in retry_reasons} <= {
        "received 1012",
        "DRAINING",
    }, retry_reasons
