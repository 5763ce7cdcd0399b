"""The process that leads the relay is killed (kill -9) while events are recorded: another takes over within seconds."""

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
from tests.support.workers import Worker

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

CREATE = "mutation ($input: CreateEventInput!) { createEvent(input: $input) { cursor event { id } } }"
KILLS = 5
MOST_SECONDS = 5.0
SECONDS = 60
FROZEN_SECONDS = 20.0
"""The database takes the seat from a silent leader after ten, and whoever stands by asks every second."""


def kafka_variables(bootstrap: str) -> dict[str, str]:
    name = uuid.uuid4().hex[:10]
    return {
        "XZEPR__KAFKA__BROKERS": bootstrap,
        "XZEPR__KAFKA__TOPIC": f"events-{name}",
        "XZEPR__KAFKA__STATE_TOPIC": f"relay-{name}",
    }


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message that a consumer got, and when."""

    partition: int
    position: int
    at: float


class Committed:
    """A consumer that reads what is committed."""

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
        """It reads meanwhile."""
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join(SECONDS)


@asynccontextmanager
async def recording(client: Client, receiver: str) -> AsyncGenerator[list[int]]:
    """Meanwhile some tens of events a second are recorded; what is acknowledged is in the list, by its position."""
    positions: list[int] = []

    async def record() -> None:
        async with httpx2.AsyncClient(base_url=client.url, headers=client.headers, trust_env=False) as http:
            while True:
                await asyncio.sleep(0.05)
                body = {"query": CREATE, "variables": {"input": new_event(receiver)}}
                with suppress(httpx2.TransportError):  # it came to the process that was killed
                    answer = (await http.post("/graphql", json=body)).json()
                    if "errors" not in answer:
                        positions.append(int(answer["data"]["createEvent"]["cursor"].partition("-")[0]))

    tasks = [asyncio.create_task(record()) for _ in range(4)]
    try:
        yield positions
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Relays:
    """The processes that relay or stand by, by their ids."""

    leader: int | None
    standing_by: int
    """How many would take over."""


async def kill_leaders(relays: Callable[[], Relays], seen: Committed, killed: Callable[[], None]) -> list[float]:
    """Kills who leads, again and again, when all that there should be are there; gives when. `killed` is called after
    each."""
    times: list[float] = []
    for _ in range(KILLS):
        await until(lambda: relays().leader is not None and relays().standing_by == 2 and _flows(seen), SECONDS)
        pid = relays().leader
        assert pid is not None
        times.append(time.monotonic())
        os.kill(pid, signal.SIGKILL)
        killed()
        await until(lambda pid=pid: relays().leader not in (None, pid) and _flows(seen), SECONDS)
        await asyncio.sleep(1)
    return times


def _flows(seen: Committed) -> bool:
    return bool(seen.arrived) and seen.arrived[-1].at > time.monotonic() - 1


def check(seen: Committed, positions: Sequence[int], kills: Sequence[float]) -> None:
    """All that was acknowledged came once and in order, and no pause was too long."""
    got = [one.position for one in seen.arrived]
    assert len(positions) > 100, "something was recorded"
    assert set(positions) <= set(got), "all that was acknowledged is there"
    assert len(got) == len(set(got)), "nothing came twice"
    for partition in {one.partition for one in seen.arrived}:
        own = [one.position for one in seen.arrived if one.partition == partition]
        assert own == sorted(own)
    pauses: list[float] = []
    for killed, next_killed in itertools.pairwise([*kills, math.inf]):
        times = [one.at for one in seen.arrived if killed - 1 < one.at < next_killed]
        pauses.append(max(later - earlier for earlier, later in itertools.pairwise(times) if later > killed))
    sys.stderr.write(f"longest pauses of a reader of what is committed: {[round(pause, 2) for pause in pauses]} s\n")
    assert max(pauses) < MOST_SECONDS


async def followed(client: Client, seen: Committed, kill: Callable[[], Awaitable[list[float]]]) -> None:
    """Records while `kill` kills, waits until all has come, and checks it."""
    receiver = await client.receiver("taken over")
    with seen.consuming():
        async with recording(client, receiver) as positions:
            kills = await kill()
        await until(lambda: set(positions) <= {one.position for one in seen.arrived}, SECONDS)
    check(seen, positions, kills)


async def test_another_worker_of_the_server_takes_over(kafka: str) -> None:
    environ = kafka_variables(kafka)
    with serving("--workers", "3", environ=environ) as hub:

        def relays() -> Relays:
            told = [json.loads(line) for line in hub.lines if '"relay.state"' in line or '"worker.' in line]
            states = {one["worker"]: one.get("state") for one in told if one["event"] != "worker.answers"}
            pids = {one["worker"]: one["pid"] for one in told if one["event"] == "worker.answers"}
            leader = next((pids[worker] for worker, state in states.items() if state == "following"), None)
            return Relays(leader, list(states.values()).count("standby"))

        client, seen = await Client(hub.url).logged_in("admin", ADMIN_PASSWORD), Committed(environ)
        await followed(client, seen, lambda: kill_leaders(relays, seen, lambda: None))


async def test_another_process_takes_over(kafka: str) -> None:
    environ = kafka_variables(kafka)
    with serving("--no-relay", environ=environ) as hub:
        workers = [Worker(hub.data_dir, environ=environ) for _ in range(3)]

        def relays() -> Relays:
            alive = [worker for worker in workers if worker.process.poll() is None]
            told = {one.process.pid: [line for line in one.lines if '"relay.state"' in line][-1:] for one in alive}
            leader = next((pid for pid, lines in told.items() if '"following"' in "".join(lines)), None)
            return Relays(leader, sum('"another process relays"' in "".join(lines) for lines in told.values()))

        try:
            client, seen = await Client(hub.url).logged_in("admin", ADMIN_PASSWORD), Committed(environ)
            await followed(
                client,
                seen,
                lambda: kill_leaders(relays, seen, lambda: workers.append(Worker(hub.data_dir, environ=environ))),
            )
        finally:
            for worker in workers:
                worker.process.kill()
                worker.process.wait()


async def test_frozen_leader_is_replaced_then_stands_by(kafka: str) -> None:
    environ = kafka_variables(kafka)
    with serving("--no-relay", environ=environ) as hub:
        first, second = (Worker(hub.data_dir, environ=environ) for _ in range(2))
        try:
            client, seen = await Client(hub.url).logged_in("admin", ADMIN_PASSWORD), Committed(environ)
            receiver = await client.receiver("taken over")
            with seen.consuming():
                async with recording(client, receiver) as positions:
                    await until(lambda: _flows(seen) and _follows(first) != _follows(second), SECONDS)
                    frozen, other = (first, second) if _follows(first) else (second, first)
                    os.kill(frozen.process.pid, signal.SIGSTOP)
                    began = time.monotonic()
                    await until(lambda: _follows(other) and _flows(seen), SECONDS)
                    seconds = time.monotonic() - began
                    os.kill(frozen.process.pid, signal.SIGCONT)
                    await until(lambda: not _follows(frozen), SECONDS)
                    await asyncio.sleep(2)
                    assert _follows(other)
                await until(lambda: set(positions) <= {one.position for one in seen.arrived}, SECONDS)
        finally:
            for worker in (first, second):
                worker.process.kill()
                worker.process.wait()
    sys.stderr.write(f"nobody relayed for {seconds:.1f} s\n")
    assert seconds < FROZEN_SECONDS
    got = [one.position for one in seen.arrived]
    assert set(positions) <= set(got)
    assert len(got) == len(set(got)), "nothing came twice"


def _follows(worker: Worker) -> bool:
    """Whether it has last said that it follows."""
    return '"following"' in "".join([line for line in worker.lines if '"relay.state"' in line][-1:])
