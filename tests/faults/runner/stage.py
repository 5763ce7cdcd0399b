"""The stage of a fault: two hubs on one PostgreSQL and a broker, each of which a test may end and start again."""

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
from tests.faults.runner.plain_http import ask
from tests.support.accounts import key_pair
from tests.support.kafka import Broker, NoBrokerError, free_port
from tests.support.postgres import temporary_folder
from tests.support.server import ADMIN_PASSWORD, ServedHub

RECEIVERS = 4
GROUPS = {"build and test": (0, 1), "all but the first": (1, 2, 3), "everything": (0, 1, 2, 3)}
"""Which receivers are members of each group."""
OFTEN = {"XZEPR__STREAM__CHECKPOINT_SECONDS": "0.25"}
"""Subscribers with a filter get checkpoints between the messages that they wish for."""


@dataclass(slots=True)
class ServingHub:
    """One `xzepr serve` (or `work`) with a port of its own that it keeps over its lives."""

    name: str
    data_dir: Path
    environ: dict[str, str]
    command: str = "serve"
    port: int = field(default_factory=free_port)
    lives: list[ServedHub] = field(default_factory=list[ServedHub])

    async def start(self) -> None:
        """Starts it, and returns when it answers."""
        life = await asyncio.to_thread(
            ServedHub.start, self.data_dir, port=self.port, environ=self.environ, tied=True, command=self.command
        )
        self.lives.append(life)

    @property
    def pid(self) -> int:
        """Of the present life, or the last."""
        return self.lives[-1].process.pid

    @property
    def runs(self) -> bool:
        """Whether it lives."""
        return bool(self.lives) and self.lives[-1].process.poll() is None

    @property
    def lines(self) -> list[str]:
        """What it said in all its lives."""
        return [line for life in self.lives for line in life.lines]

    async def kill(self) -> None:
        """kill -9."""
        await asyncio.to_thread(self.lives[-1].kill)

    async def stop(self) -> None:
        """Ends it as an operator does; harmless when it has ended."""
        await asyncio.to_thread(self.lives[-1].stop)

    def end(self) -> None:
        """Whatever became of it, it lives no longer; also when it is frozen."""
        for life in self.lives:
            with suppress(ProcessLookupError):
                life.kill()


@dataclass(slots=True)
class Stage:
    """What a fault may do things to."""

    folder: Path
    postgres: DatabaseServer
    hubs: list[ServingHub]
    broker: Broker | None
    kafka: str
    """Bootstrap address of the broker, or why there is none, after `no: `."""
    topic: str
    secret: str = ""
    """An API key of the admin's."""
    relays: list[ServingHub] = field(default_factory=list[ServingHub])
    """Processes of `xzepr work`, if it was asked for; else the hubs relay themselves."""
    receivers: list[str] = field(default_factory=list[str])
    groups: list[str] = field(default_factory=list[str])

    @property
    def ports(self) -> list[int]:
        """Where the hubs listen, also while they are down."""
        return [hub.port for hub in self.hubs]

    @property
    def has_kafka(self) -> bool:
        """Whether there is a broker to relay to."""
        return not self.kafka.startswith("no: ")

    async def ask(self, query: str, **variables: object) -> Json:
        """The `data` of an answer from any hub that runs; fails on errors."""
        port = next(hub.port for hub in self.hubs if hub.runs)
        return await ask(port, query, dict(variables), self.secret)

    async def cursor(self) -> str:
        """The cursor of the present head."""
        return (await self.ask("{ streamStatus { cursor } }"))["streamStatus"]["cursor"]

    async def leader(self, seconds: float = 30) -> ServingHub:
        """The process whose relay follows the stream; waits until there is one."""
        async with asyncio.timeout(seconds):
            while True:
                for hub in self.relays or self.hubs:
                    told = [line for line in hub.lives[-1].lines if "relay.state" in line] if hub.runs else []
                    if told and "following" in told[-1]:
                        return hub
                await asyncio.sleep(0.02)

    async def start_broker(self) -> None:
        """Starts the broker again with what it had, and returns when it serves."""
        assert self.broker is not None, "need_broker comes first"
        self.broker.launch()  # in this thread: the broker ends with the one that launched it
        await asyncio.to_thread(self.broker.await_start)

    async def relayed(self, seconds: float = 120) -> bool:
        """Whether the whole stream came to be in Kafka within so many seconds."""
        return await self._until(
            """
            SELECT coalesce(max(published_position), 0) >= (SELECT coalesce(max(position), 0) FROM messages)
            FROM relay_routes WHERE route = %s
            """,
            seconds,
        )

    async def _until(self, question: str, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (await self.postgres.execute(question, (self.topic,)))[0][0] is not True:
                    await asyncio.sleep(0.2)
                return True
        return False

    async def head(self) -> int:
        """The newest position in PostgreSQL."""
        return await asyncio.to_thread(evidence.head_of, self.postgres.admin_url)


@asynccontextmanager
async def stage(
    *,
    postgres: DatabaseServer | None = None,
    database_url: str | None = None,
    hubs: int = 2,
    relays: int = 0,
    environ: Mapping[str, str] | None = None,
    kafka: bool = True,
) -> AsyncGenerator[Stage]:
    """A stage with receivers and groups on it; everything on it has ended when the block ends. `relays`: so many
    processes of `xzepr work`, and hubs that do not relay.

    `postgres`: one of your own (else a durable one is made); `database_url`: another way to it, for the hubs alone;
    `environ`: more settings of the hubs; `kafka`: whether a broker is wanted.
    """
    async with AsyncExitStack() as held:
        folder = held.enter_context(temporary_folder(on_disk=True))
        if postgres is None:
            postgres = await held.enter_async_context(database_server(folder / "database"))
        topic = f"faults-{uuid.uuid4().hex[:8]}"
        broker, address = await _broker(folder, held) if kafka else (None, "no: this fault is not about it")
        settings = _environment(
            folder, database_url or postgres.url, "" if address.startswith("no: ") else address, topic
        )
        names = [f"hub-{number}" for number in range(1, hubs + 1)]
        found = Stage(
            folder,
            postgres,
            [ServingHub(name, folder / name, {**settings, **(environ or {})}) for name in names],
            broker,
            address,
            topic,
        )
        if relays:
            names = [f"relay-{number}" for number in range(1, relays + 1)]
            found.relays = [ServingHub(name, folder / name, found.hubs[0].environ.copy(), "work") for name in names]
            for hub in found.hubs:
                hub.environ["XZEPR__KAFKA__ENABLED"] = "false"
        for hub in (*found.hubs, *found.relays):
            held.callback(hub.end)
            await hub.start()
        await furnish(found)
        yield found


async def _broker(folder: Path, held: AsyncExitStack) -> tuple[Broker | None, str]:
    """A broker of one's own; else the one that is named, which cannot be stopped; else the reason why there is none."""
    if named := os.environ.get("XZEPR_TEST_KAFKA"):
        return None, named
    broker = Broker(folder / "kafka")
    held.callback(broker.kill)
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
        **OFTEN,
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


async def furnish(found: Stage) -> None:
    """A key, receivers, and groups of them."""
    login = await found.ask(LOGIN, input={"username": "admin", "password": ADMIN_PASSWORD})
    found.secret = login["login"]["token"]
    found.secret = (await found.ask(KEY, input={"name": "faults"}))["createApiKey"]["secret"]
    shared = {"type": "test", "version": "1", "description": "under faults"}
    for number in range(RECEIVERS):
        schema = {"type": "object", "required": ["key"]}
        made = await found.ask(RECEIVER, input={**shared, "name": f"receiver-{number}", "schema": schema})
        found.receivers.append(made["createEventReceiver"]["eventReceiver"]["id"])
    for name, members in GROUPS.items():
        ids = [found.receivers[member] for member in members]
        made = await found.ask(GROUP, input={**shared, "name": name, "eventReceiverIds": ids})
        found.groups.append(made["createEventReceiverGroup"]["eventReceiverGroup"]["id"])


def need_broker(on: Stage) -> Broker:
    """The broker, to be stopped and started; skips the test where there is none, or only one that is not ours."""
    if on.broker is None:
        pytest.skip(
            on.kafka.removeprefix("no: ") if not on.has_kafka else "the broker that is named is not ours to stop"
        )
    return on.broker
