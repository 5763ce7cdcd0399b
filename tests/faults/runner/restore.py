"""Restores a database from a backup under load, and checks a run whose events were partly discarded by it."""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.faults.runner import evidence
from tests.faults.runner.database import DatabaseServer
from tests.faults.runner.deployment import Deployment
from tests.faults.runner.evidence import Evidence
from tests.faults.runner.fault_run import FaultRun
from tests.faults.runner.ledger import Entry
from tests.faults.runner.rewritten_history import History, Restore, expected_records
from tests.faults.runner.subscribers import Subscriber, create_subscribers


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy of the cluster, and the head of its stream."""

    folder: Path
    position: int
    cursor: str
    published_position: int
    """The position up to which the backup knows the stream as published."""


class DiscardedServer(DatabaseServer):
    """A PostgreSQL on a cluster that a restore replaced. No hub connects to it."""

    def __init__(self, folder: Path, cluster: Path) -> None:
        super().__init__(folder)
        shutil.rmtree(self.cluster)
        cluster.rename(self.cluster)


async def create_backup(system: Deployment) -> Backup:
    """Stops PostgreSQL, copies its folder and starts it again.

    The hubs are paused during the copy, so that the head of the stream is known.
    """
    folder = system.folder / f"backup-{time.monotonic_ns()}"
    async with _hubs_paused(system):
        rows = await system.postgres.execute("SELECT position, id FROM messages ORDER BY position DESC LIMIT 1")
        published = await published_position(system)
        await system.postgres.stop()
        await asyncio.to_thread(_copy, system.postgres.cluster, folder)
        await system.postgres.start()
    [(position, id)] = rows
    return Backup(folder, int(str(position)), f"{position}-{str(id)[-8:]}", published)


async def published_position(system: Deployment) -> int:
    """Returns the position up to which the database knows the stream as published."""
    [(position,)] = await system.postgres.execute("SELECT coalesce(max(published_position), 0) FROM relay_routes")
    return int(str(position))


async def restore_backup(postgres: DatabaseServer, backup: Backup) -> tuple[float, Path]:
    """Replaces the cluster by the copy.

    Returns the time (monotonic seconds) after which no client received discarded events, and the old cluster.
    """
    await postgres.stop()
    await asyncio.sleep(0.5)
    at = time.monotonic()
    lost = postgres.cluster.rename(postgres.folder / f"lost-{time.monotonic_ns()}")
    await asyncio.to_thread(_copy, backup.folder, postgres.cluster)
    await postgres.start()
    return at, lost


async def read_history(folder: Path, cluster: Path) -> History:
    """Returns the messages and events of a stopped cluster, and deletes the cluster. Creates `folder`."""
    server = await asyncio.to_thread(DiscardedServer, folder, cluster)
    try:
        await server.start()
        url = server.admin_url
        messages = await asyncio.to_thread(evidence.stored_messages, url)
        return History(messages, await asyncio.to_thread(evidence.stored_events, url))
    finally:
        await server.crash()
        await asyncio.to_thread(shutil.rmtree, server.cluster)


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


@asynccontextmanager
async def _hubs_paused(system: Deployment) -> AsyncGenerator[None]:
    """Pauses all hubs while the block runs. Before that, PostgreSQL finishes the statements that they had sent."""
    for hub in system.hubs:
        os.kill(hub.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(0.5)
        yield
    finally:
        for hub in system.hubs:
            os.kill(hub.pid, signal.SIGCONT)


class RestoreRun(FaultRun):
    """A run whose checks ignore the events that restores discarded. It counts them."""

    def __init__(self, fault: str, system: Deployment) -> None:
        super().__init__(fault, system)
        self.restores: list[Restore] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def replace_subscribers(self, cursor: str) -> list[Subscriber]:
        """Starts subscribers after the cursor instead of the current ones. Returns the previous subscribers."""
        previous, system = self.subscribers, self.system
        self.subscribers = create_subscribers(system.ports, system.secret, cursor, self.seed + len(self.restores))
        self._tasks += [asyncio.create_task(subscriber.run()) for subscriber in self.subscribers]
        return previous

    async def end(self) -> None:
        """Ends the subscribers of `replace_subscribers`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def was_lost(self, entry: Entry) -> bool:
        """Returns whether a restore discarded an acknowledged event."""
        return any(
            0 < entry.acknowledged_at < restore.at and entry.position > restore.position for restore in self.restores
        )

    async def evidence(self) -> Evidence:
        """Collects the evidence without the events that restores discarded."""
        ledger = self.writers.ledger
        kept = [entry for entry in ledger.entries if not self.was_lost(entry)]
        ledger.retry_reasons["acknowledged, then discarded by a restore"] = len(ledger.entries) - len(kept)
        ledger.entries[:] = kept
        collected = await super().evidence()
        records = collected.kafka_records
        if records is None:
            return collected
        return replace(collected, kafka_records=expected_records(records, collected.messages, self.restores))
