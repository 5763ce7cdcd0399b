"""The leading relay is killed with SIGKILL or paused while events are recorded; another process soon takes over."""

import asyncio
import itertools
import json
import math
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

import httpx2
import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.support.clients import Client
from tests.support.hub import until
from tests.support.requests import new_event
from tests.support.server import ADMIN_PASSWORD, serving
from tests.support.workers import WorkProcess

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

CREATE = "mutation ($input: CreateEventInput!) { createEvent(input: $input) { cursor event { id } } }"
KILLS = 5
MAX_PAUSE_SECONDS = 5.0
TIMEOUT_SECONDS = 60
# The database ends the leadership of a silent leader after ten seconds, and standbys try to lead every second.
MAX_FROZEN_SECONDS = 20.0


def kafka_variables(bootstrap: str) -> dict[str, str]:
    name = uuid.uuid4().hex[:10]
    return {
        "XZEPR__KAFKA__BROKERS": bootstrap,
        "XZEPR__KAFKA__TOPIC": f"events-{name}",
        "XZEPR__KAFKA__STATE_TOPIC": f"relay-{name}",
    }


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message that a consumer received, with its time of arrival."""

    partition: int
    position: int
    at: float


class CommittedReader:
    """A consumer of committed messages."""

    def __init__(self, environ: dict[str, str]) -> None:
        self._topic = environ["XZEPR__KAFKA__TOPIC"]
        self._bootstrap = environ["XZEPR__KAFKA__BROKERS"]
        self._stop = Event()
        self._thread = Thread(target=self._run, daemon=True)
        self.arrived: list[Arrival] = []

    def _run(self) -> None:
        settings = {"group.id": uuid.uuid4().hex, "isolation.level": "read_committed", "auto.offset.reset": "earliest"}
        consumer = Consumer({"bootstrap.servers": self._bootstrap, "enable.auto.commit": False, **settings})
        partitions: Any = ()
        while not partitions and not self._stop.is_set():
            topics = consumer.list_topics(timeout=10).topics
            partitions = topics[self._topic].partitions if self._topic in topics else ()
        consumer.assign([TopicPartition(self._topic, partition, 0) for partition in partitions])
        while not self._stop.is_set():
            message = consumer.poll(0.05)
            if message is not None and not message.error():
                headers = dict(message.headers() or [])
                position = int(headers["position"] or 0)
                self.arrived.append(Arrival(message.partition() or 0, position, time.monotonic()))
        consumer.close()

    @contextmanager
    def consuming(self) -> Generator[None]:
        """Reads during the block."""
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join(TIMEOUT_SECONDS)


@asynccontextmanager
async def recording(client: Client, receiver: str) -> AsyncGenerator[list[int]]:
    """Records some tens of events a second during the block; yields the positions of those acknowledged."""
    positions: list[int] = []

    async def record() -> None:
        async with httpx2.AsyncClient(base_url=client.url, headers=client.headers, trust_env=False) as http:
            while True:
                await asyncio.sleep(0.05)
                body = {"query": CREATE, "variables": {"input": new_event(receiver)}}
                with suppress(httpx2.TransportError):  # the request reached the killed process
                    response = (await http.post("/graphql", json=body)).json()
                    if "errors" not in response:
                        positions.append(int(response["data"]["createEvent"]["cursor"].partition("-")[0]))

    tasks = [asyncio.create_task(record()) for _ in range(4)]
    try:
        yield positions
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Relays:
    """The process that relays, by its id, and the number of standbys."""

    leader: int | None
    standby_count: int


async def kill_leaders(
    relays: Callable[[], Relays], reader: CommittedReader, killed: Callable[[], None]
) -> list[float]:
    """Kills the leader repeatedly, each time once all relays run; returns the times of the kills.

    `killed` is called after each kill."""
    times: list[float] = []
    for _ in range(KILLS):
        await until(
            lambda: relays().leader is not None and relays().standby_count == 2 and _is_receiving(reader),
            TIMEOUT_SECONDS,
        )
        pid = relays().leader
        assert pid is not None
        times.append(time.monotonic())
        os.kill(pid, signal.SIGKILL)
        killed()
        await until(lambda pid=pid: relays().leader not in (None, pid) and _is_receiving(reader), TIMEOUT_SECONDS)
        await asyncio.sleep(1)
    return times


def _is_receiving(reader: CommittedReader) -> bool:
    return bool(reader.arrived) and reader.arrived[-1].at > time.monotonic() - 1


def check_delivery(reader: CommittedReader, positions: Sequence[int], kills: Sequence[float]) -> None:
    """Asserts that each acknowledged event arrived once and in order, without too long a pause."""
    received = [arrival.position for arrival in reader.arrived]
    assert len(positions) > 100, "events were recorded"
    assert set(positions) <= set(received), "every acknowledged event arrived"
    assert len(received) == len(set(received)), "no message is duplicated"
    for partition in {arrival.partition for arrival in reader.arrived}:
        in_partition = [arrival.position for arrival in reader.arrived if arrival.partition == partition]
        assert in_partition == sorted(in_partition)
    pauses: list[float] = []
    for killed, next_killed in itertools.pairwise([*kills, math.inf]):
        times = [arrival.at for arrival in reader.arrived if killed - 1 < arrival.at < next_killed]
        pauses.append(max(later - earlier for earlier, later in itertools.pairwise(times) if later > killed))
    sys.stderr.write(f"longest pauses of a consumer of committed messages: {[round(pause, 2) for pause in pauses]} s\n")
    assert max(pauses) < MAX_PAUSE_SECONDS


async def record_during_kills(
    client: Client, reader: CommittedReader, kill: Callable[[], Awaitable[list[float]]]
) -> None:
    """Records events while `kill` runs, waits until all of them have arrived, and checks them."""
    receiver = await client.receiver("taken over")
    with reader.consuming():
        async with recording(client, receiver) as positions:
            kills = await kill()
        await until(lambda: set(positions) <= {arrival.position for arrival in reader.arrived}, TIMEOUT_SECONDS)
    check_delivery(reader, positions, kills)


async def test_another_worker_of_the_server_takes_over(kafka: str) -> None:
    environ = kafka_variables(kafka)
    with serving("--workers", "3", environ=environ) as hub:

        def relays() -> Relays:
            entries = [json.loads(line) for line in hub.lines if '"relay.state"' in line or '"worker.' in line]
            states = {entry["worker"]: entry.get("state") for entry in entries if entry["event"] != "worker.answers"}
            pids = {entry["worker"]: entry["pid"] for entry in entries if entry["event"] == "worker.answers"}
            leader = next((pids[worker] for worker, state in states.items() if state == "following"), None)
            return Relays(leader, list(states.values()).count("standby"))

        client, reader = await Client(hub.url).logged_in("admin", ADMIN_PASSWORD), CommittedReader(environ)
        await record_during_kills(client, reader, lambda: kill_leaders(relays, reader, lambda: None))


async def test_another_process_takes_over(kafka: str) -> None:
    environ = kafka_variables(kafka)
    with serving("--no-relay", environ=environ) as hub:
        workers = [WorkProcess(hub.data_dir, environ=environ) for _ in range(3)]

        def relays() -> Relays:
            alive = [worker for worker in workers if worker.process.poll() is None]
            last_states = {
                worker.process.pid: [line for line in worker.lines if '"relay.state"' in line][-1:] for worker in alive
            }
            leader = next((pid for pid, lines in last_states.items() if '"following"' in "".join(lines)), None)
            return Relays(leader, sum('"another process relays"' in "".join(lines) for lines in last_states.values()))

        try:
            client, reader = await Client(hub.url).logged_in("admin", ADMIN_PASSWORD), CommittedReader(environ)
            await record_during_kills(
                client,
                reader,
                lambda: kill_leaders(
                    relays, reader, lambda: workers.append(WorkProcess(hub.data_dir, environ=environ))
                ),
            )
        finally:
            for worker in workers:
                worker.process.kill()
                worker.process.wait()


async def test_frozen_leader_is_replaced_then_stands_by(kafka: str) -> None:
    environ = kafka_variables(kafka)
    with serving("--no-relay", environ=environ) as hub:
        first, second = (WorkProcess(hub.data_dir, environ=environ) for _ in range(2))
        try:
            client, reader = await Client(hub.url).logged_in("admin", ADMIN_PASSWORD), CommittedReader(environ)
            receiver = await client.receiver("taken over")
            with reader.consuming():
                async with recording(client, receiver) as positions:
                    await until(
                        lambda: _is_receiving(reader) and _is_leading(first) != _is_leading(second), TIMEOUT_SECONDS
                    )
                    frozen, other = (first, second) if _is_leading(first) else (second, first)
                    os.kill(frozen.process.pid, signal.SIGSTOP)
                    began = time.monotonic()
                    await until(lambda: _is_leading(other) and _is_receiving(reader), TIMEOUT_SECONDS)
                    seconds = time.monotonic() - began
                    os.kill(frozen.process.pid, signal.SIGCONT)
                    await until(lambda: not _is_leading(frozen), TIMEOUT_SECONDS)
                    await asyncio.sleep(2)
                    assert _is_leading(other)
                await until(lambda: set(positions) <= {arrival.position for arrival in reader.arrived}, TIMEOUT_SECONDS)
        finally:
            for worker in (first, second):
                worker.process.kill()
                worker.process.wait()
    sys.stderr.write(f"no process relayed for {seconds:.1f} s\n")
    assert seconds < MAX_FROZEN_SECONDS
    received = [arrival.position for arrival in reader.arrived]
    assert set(positions) <= set(received)
    assert len(received) == len(set(received)), "no message is duplicated"


def _is_leading(worker: WorkProcess) -> bool:
    """Returns whether the worker's last logged state is that of a leader."""
    return '"following"' in "".join([line for line in worker.lines if '"relay.state"' in line][-1:])
