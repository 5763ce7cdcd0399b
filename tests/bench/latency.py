"""The latency from COMMIT to a subscriber and to a `read_committed` consumer, at 200 events per second.

The time starts at `recordedAt`, which the database sets under the lock just before COMMIT, on this machine's clock.
"""

import asyncio
import threading
import time
from contextlib import ExitStack
from datetime import datetime
from typing import Any

import orjson
from confluent_kafka import Consumer
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.bench.client import CREATE, EVENT, Client
from tests.bench.load import percentile
from tests.bench.session import PREPARED, Session
from tests.support.kafka import Broker, NoBrokerError, running

RATE = 200
SECONDS = 10.0


CONSUMERS = {"subscriber": "WebSocket subscriber", "kafka": "read_committed consumer"}


def measure(session: Session) -> None:
    """Measures the latency of each consumer in each round; without Kafka's if no broker can be run."""
    with ExitStack() as stack:
        broker = None
        try:
            broker = stack.enter_context(running())
        except NoBrokerError as reason:
            session.notes["latency"] = f"without Kafka: {reason}"
        _measure(session, broker)


def _measure(session: Session, broker: Broker | None) -> None:
    url = session.environment.database("latency", PREPARED)
    brokers = {} if broker is None else {"XZEPR__KAFKA__BROKERS": broker.bootstrap}
    with session.environment.hub(url, **brokers) as hub:
        client, receiver = Client(hub.port), session.holdings.receivers[0]
        for round in session.rounds:
            results = asyncio.run(_round(hub.port, client, receiver, round, broker))
            for name, times in zip(CONSUMERS, results, strict=True):
                if times:
                    session.record("latency", name, round, {"p50": percentile(times, 50), "p99": percentile(times, 99)})
    session.environment.drop("latency")


async def _round(
    port: int, client: Client, receiver: str, number: int, broker: Broker | None
) -> tuple[list[float], list[float]]:
    count = int(RATE * SECONDS)
    consumer = None if broker is None else _TopicReader(broker.bootstrap, count)
    subscribed = asyncio.Event()
    subscriber = asyncio.create_task(_subscribe(port, client.token, count, subscribed))
    await subscribed.wait()
    if consumer is not None:
        await asyncio.to_thread(consumer.ready.wait)
    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for index in range(count):
            await asyncio.sleep(max(0.0, began + index / RATE - time.perf_counter()))
            event = EVENT | {"version": f"{number}.{index}", "eventReceiverId": receiver}
            tasks.create_task(asyncio.to_thread(client.ask, CREATE, input=event))
    frames = await subscriber
    if consumer is None:
        return frames, []
    return frames, await asyncio.to_thread(consumer.latencies)


async def _subscribe(port: int, token: str, count: int, subscribed: asyncio.Event) -> list[float]:
    query = "subscription{stream(kinds:[EVENT_RECORDED]){__typename ... on EventRecorded{event{recordedAt}}}}"
    latencies: list[float] = []
    protocols = [Subprotocol("graphql-transport-ws")]
    async with connect(f"ws://127.0.0.1:{port}/graphql", subprotocols=protocols, compression=None) as socket:
        await socket.send(orjson.dumps({"type": "connection_init", "payload": {"token": token}}).decode())
        await socket.recv()
        subscribe = {"id": "1", "type": "subscribe", "payload": {"query": query}}
        await socket.send(orjson.dumps(subscribe).decode())
        while len(latencies) < count:
            message: dict[str, Any] = orjson.loads(await socket.recv())
            arrived = time.time()
            if message["type"] == "ping":
                await socket.send('{"type":"pong"}')
                continue
            frame = message["payload"]["data"]["stream"]
            if frame["__typename"] == "Checkpoint":
                subscribed.set()
            else:
                latencies.append(arrived - datetime.fromisoformat(frame["event"]["recordedAt"]).timestamp())
    return sorted(latencies)


class _TopicReader:
    """A consumer in a thread that starts at the end of the topic."""

    def __init__(self, bootstrap: str, count: int) -> None:
        self.ready = threading.Event()
        self._count = count
        self._latencies: list[float] = []
        self._bootstrap = bootstrap
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def latencies(self) -> list[float]:
        """Waits for all messages and returns their latencies in seconds, sorted."""
        self._thread.join(60)
        return sorted(self._latencies)

    def _read(self) -> None:
        settings = {
            "bootstrap.servers": self._bootstrap,
            "group.id": f"bench-{time.time()}",
            "isolation.level": "read_committed",
            "auto.offset.reset": "latest",
            "fetch.wait.max.ms": 5,
        }
        consumer = Consumer(settings)
        consumer.subscribe(["xzepr.events"], on_assign=lambda _consumer, _partitions: self.ready.set())
        deadline = time.monotonic() + 60
        while len(self._latencies) < self._count and time.monotonic() < deadline:
            message = consumer.poll(0.5)
            if message is None or message.error():
                continue
            arrived, cloudevent = time.time(), orjson.loads(message.value() or b"{}")
            if cloudevent["type"] == "io.xzepr.event.recorded":
                self._latencies.append(arrived - datetime.fromisoformat(cloudevent["time"]).timestamp())
        consumer.close()
