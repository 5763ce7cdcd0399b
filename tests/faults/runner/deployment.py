"""The deployment under test: two hubs on one PostgreSQL and a broker. A test can end and restart each process."""

import asyncio
import os
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.faults.runner import evidence
from tests.faults.runner.database import DatabaseServer, database_server
from tests.faults.runner.ledger import Json
from tests.faults.runner.plain_http import graphql
from tests.support.accounts import key_pair
from tests.support.kafka import Broker, NoBrokerError, free_port
from tests.support.postgres import temporary_folder
from tests.support.server import ADMIN_PASSWORD, ServedHub

RECEIVERS = 4
# The member receivers of each group, by number.
GROUPS = {"build and test": (0, 1), "all but the first": (1, 2, 3), "everything": (0, 1, 2, 3)}
# Often enough that filtered subscribers get checkpoints between their messages.
FREQUENT_CHECKPOINTS = {"XZEPR__STREAM__CHECKPOINT_SECONDS": "0.25"}


@dataclass(slots=True)
class HubProcess:
    """An `xzepr serve` (or `work`) that can be restarted and keeps its port."""

    name: str
    data_dir: Path
    environ: dict[str, str]
    command: str = "serve"
    port: int = field(default_factory=free_port)
    processes: list[ServedHub] = field(default_factory=list[ServedHub])
    """One for each start, the current one last."""

    async def start(self) -> None:
        """Starts a process and waits until it answers."""
        process = await asyncio.to_thread(
            ServedHub.start,
            self.data_dir,
            port=self.port,
            environ=self.environ,
            end_with_thread=True,
            command=self.command,
        )
        self.processes.append(process)

    @property
    def pid(self) -> int:
        """The id of the current or last process."""
        return self.processes[-1].process.pid

    @property
    def is_running(self) -> bool:
        """Whether the current process is running."""
        return bool(self.processes) and self.processes[-1].process.poll() is None

    @property
    def lines(self) -> list[str]:
        """The output of all its processes."""
        return [line for process in self.processes for line in process.lines]

    async def kill(self) -> None:
        """Kills the process with SIGKILL."""
        await asyncio.to_thread(self.processes[-1].kill)

    async def stop(self) -> None:
        """Stops the process as an operator does. Does nothing if it has ended."""
        await asyncio.to_thread(self.processes[-1].stop)

    def end(self) -> None:
        """Kills all its processes, paused ones too."""
        for process in self.processes:
            with suppress(ProcessLookupError):
                process.kill()


@dataclass(slots=True)
class Deployment:
    """The processes that a fault can affect."""

    folder: Path
    postgres: DatabaseServer
    hubs: list[HubProcess]
    broker: Broker | None
    kafka: str
    """The bootstrap address of the broker, or `no: ` and the reason why there is none."""
    topic: str
    secret: str = ""
    """An API key of the administrator."""
    relays: list[HubProcess] = field(default_factory=list[HubProcess])
    """Processes of `xzepr work`. If there are none, the hubs relay."""
    receivers: list[str] = field(default_factory=list[str])
    groups: list[str] = field(default_factory=list[str])

    @property
    def ports(self) -> list[int]:
        """The ports of the hubs, also while they are down."""
        return [hub.port for hub in self.hubs]

    @property
    def has_kafka(self) -> bool:
        """Whether there is a broker."""
        return not self.kafka.startswith("no: ")

    async def graphql(self, query: str, **variables: object) -> Json:
        """Executes a document at a running hub and returns its `data`. Fails on errors."""
        port = next(hub.port for hub in self.hubs if hub.is_running)
        return await graphql(port, query, dict(variables), self.secret)

    async def cursor(self) -> str:
        """Returns the cursor of the current head."""
        return (await self.graphql("{ streamStatus { cursor } }"))["streamStatus"]["cursor"]

    async def leader(self, seconds: float = 30) -> HubProcess:
        """Waits for a process whose relay follows the stream, and returns it."""
        async with asyncio.timeout(seconds):
            while True:
                for process in self.relays or self.hubs:
                    lines = process.processes[-1].lines if process.is_running else []
                    states = [line for line in lines if "relay.state" in line]
                    if states and "following" in states[-1]:
                        return process
                await asyncio.sleep(0.02)

    async def start_broker(self) -> None:
        """Starts the broker again with its data and waits until it serves."""
        assert self.broker is not None, "call need_broker first"
        self.broker.launch()  # in this thread: the broker ends with the one that launched it
        await asyncio.to_thread(self.broker.await_start)

    async def wait_until_relayed(self, seconds: float = 120) -> bool:
        """Waits until the whole stream is in Kafka. Returns False if that takes longer than `seconds`."""
        return await self._wait_for_row(
            """
            SELECT coalesce(max(published_position), 0) >= (SELECT coalesce(max(position), 0) FROM messages)
            FROM relay_routes WHERE route = %s
            """,
            seconds,
        )

    async def _wait_for_row(self, query: str, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (await self.postgres.execute(query, (self.topic,)))[0][0] is not True:
                    await asyncio.sleep(0.2)
                return True
        return False

    async def head(self) -> int:
        """Returns the newest position in PostgreSQL."""
        return await asyncio.to_thread(evidence.head_of, self.postgres.admin_url)


@asynccontextmanager
async def deployment(
    *,
    postgres: DatabaseServer | None = None,
    database_url: str | None = None,
    hubs: int = 2,
    relays: int = 0,
    environ: Mapping[str, str] | None = None,
    kafka: bool = True,
) -> AsyncGenerator[Deployment]:
    """A running deployment with receivers and groups. All its processes end with the block.

    `postgres`: a server to use instead of a new durable one.
    `database_url`: the URL by which the hubs reach it, for example through a proxy.
    `relays`: the number of `xzepr work` processes; the hubs then do not relay.
    `environ`: more settings of the hubs.
    `kafka`: whether to start a broker.
    """
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(temporary_folder(on_disk=True))
        if postgres is None:
            postgres = await stack.enter_async_context(database_server(folder / "database"))
        topic = f"faults-{uuid.uuid4().hex[:8]}"
        broker, address = await _broker(folder, stack) if kafka else (None, "no: this fault does not involve it")
        settings = _environment(
            folder, database_url or postgres.url, "" if address.startswith("no: ") else address, topic
        )
        names = [f"hub-{number}" for number in range(1, hubs + 1)]
        system = Deployment(
            folder,
            postgres,
            [HubProcess(name, folder / name, {**settings, **(environ or {})}) for name in names],
            broker,
            address,
            topic,
        )
        if relays:
            names = [f"relay-{number}" for number in range(1, relays + 1)]
            system.relays = [HubProcess(name, folder / name, system.hubs[0].environ.copy(), "work") for name in names]
            for hub in system.hubs:
                hub.environ["XZEPR__KAFKA__ENABLED"] = "false"
        for process in (*system.hubs, *system.relays):
            stack.callback(process.end)
            await process.start()
        await create_fixtures(system)
        yield system


async def _broker(folder: Path, stack: AsyncExitStack) -> tuple[Broker | None, str]:
    """Returns the broker and its address.

    The broker is None if XZEPR_TEST_KAFKA names a shared one or if none can run. The address then explains why.
    """
    if named := os.environ.get("XZEPR_TEST_KAFKA"):
        return None, named
    broker = Broker(folder / "kafka")
    stack.callback(broker.kill)
    try:
        await asyncio.to_thread(broker.prepare)
        broker.launch()  # in this thread: the broker ends with the one that launched it
        await asyncio.to_thread(broker.await_start)
    except NoBrokerError as missing:
        return None, f"no: {missing}"
    return broker, broker.bootstrap


def _environment(folder: Path, database_url: str, brokers: str, topic: str) -> dict[str, str]:
    private, public = folder / "private.pem", folder / "public.pem"
    private.write_text(key_pair().private_pem)
    public.write_text(key_pair().public_pem)
    return {
        "XZEPR__DATABASE__URL": database_url,
        "XZEPR__DATABASE__MAX_CONNECTIONS": "8",
        **FREQUENT_CHECKPOINTS,
        "XZEPR__JWT__PRIVATE_KEY_PATH": str(private),
        "XZEPR__JWT__PUBLIC_KEY_PATH": str(public),
        "XZEPR__KAFKA__BROKERS": brokers,
        "XZEPR__KAFKA__TOPIC": topic,
        "XZEPR__KAFKA__STATE_TOPIC": f"{topic}-state",
        "XZEPR__KAFKA__PARTITIONS": "3",
    }


LOGIN = "mutation ($input: LoginInput!) { login(input: $input) { token } }"
KEY = "mutation ($input: CreateApiKeyInput!) { createApiKey(input: $input) { secret } }"
RECEIVER = """
mutation ($input: CreateEventReceiverInput!) { createEventReceiver(input: $input) { eventReceiver { id } } }
"""
GROUP = """
mutation ($input: CreateEventReceiverGroupInput!) {
  createEventReceiverGroup(input: $input) { eventReceiverGroup { id } }
}
"""


async def create_fixtures(system: Deployment) -> None:
    """Creates an API key, receivers and groups."""
    login = await system.graphql(LOGIN, input={"username": "admin", "password": ADMIN_PASSWORD})
    system.secret = login["login"]["token"]
    system.secret = (await system.graphql(KEY, input={"name": "faults"}))["createApiKey"]["secret"]
    shared = {"type": "test", "version": "1", "description": "under faults"}
    for number in range(RECEIVERS):
        schema = {"type": "object", "required": ["key"]}
        created = await system.graphql(RECEIVER, input={**shared, "name": f"receiver-{number}", "schema": schema})
        system.receivers.append(created["createEventReceiver"]["eventReceiver"]["id"])
    for name, members in GROUPS.items():
        ids = [system.receivers[member] for member in members]
        created = await system.graphql(GROUP, input={**shared, "name": name, "eventReceiverIds": ids})
        system.groups.append(created["createEventReceiverGroup"]["eventReceiverGroup"]["id"])


def need_broker(system: Deployment) -> Broker:
    """Returns the broker. Skips the test if there is none, or only a shared one that a test must not stop."""
    if system.broker is None:
        reason = "a test must not stop the shared broker of XZEPR_TEST_KAFKA"
        pytest.skip(reason if system.has_kafka else system.kafka.removeprefix("no: "))
    return system.broker
