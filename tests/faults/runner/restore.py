"""A database that goes back to a backup under load, and a judge that knows what was lost with it."""

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
from tests.faults.runner.evidence import Evidence
from tests.faults.runner.ledger import Entry
from tests.faults.runner.rewritten_history import History, Restored, of_the_present
from tests.faults.runner.run import FaultRun
from tests.faults.runner.stage import Stage
from tests.faults.runner.subscribers import Subscriber, audience


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy of the cluster, and where the stream ended when it was made."""

    folder: Path
    position: int
    cursor: str
    noted: int
    """Up to where it knows of having published."""


class LostServer(DatabaseServer):
    """A PostgreSQL on what a restore took away, where no hub finds it."""

    def __init__(self, folder: Path, cluster: Path) -> None:
        super().__init__(folder)
        shutil.rmtree(self.cluster)
        cluster.rename(self.cluster)


async def back_up(on: Stage) -> Backup:
    """Stops PostgreSQL, copies its folder and starts it again. The hubs are held still meanwhile, so that where the
    stream ends is known."""
    folder = on.folder / f"backup-{time.monotonic_ns()}"
    async with _still(on):
        rows = await on.postgres.execute("SELECT position, id FROM messages ORDER BY position DESC LIMIT 1")
        noted = await published_position(on)
        await on.postgres.stop()
        await asyncio.to_thread(_copy, on.postgres.cluster, folder)
        await on.postgres.start()
    [(position, id)] = rows
    return Backup(folder, int(str(position)), f"{position}-{str(id)[-8:]}", noted)


async def published_position(on: Stage) -> int:
    """Up to where the database knows of having published."""
    [(noted,)] = await on.postgres.execute("SELECT coalesce(max(published_position), 0) FROM relay_routes")
    return int(str(noted))


async def put_back(postgres: DatabaseServer, backup: Backup) -> tuple[float, Path]:
    """Replaces the cluster by the copy; says when nobody could be told anything of what was lost any more, and where
    that is."""
    await postgres.stop()
    await asyncio.sleep(0.5)
    at = time.monotonic()
    lost = postgres.cluster.rename(postgres.folder / f"lost-{time.monotonic_ns()}")
    await asyncio.to_thread(_copy, backup.folder, postgres.cluster)
    await postgres.start()
    return at, lost


async def history_of(folder: Path, cluster: Path) -> History:
    """All that a stopped cluster holds, which is gone afterwards. `folder` is to be made."""
    server = await asyncio.to_thread(LostServer, folder, cluster)
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
async def _still(on: Stage) -> AsyncGenerator[None]:
    """Meanwhile no hub does anything, and what they had sent to PostgreSQL is done."""
    for hub in on.hubs:
        os.kill(hub.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(0.5)
        yield
    finally:
        for hub in on.hubs:
            os.kill(hub.pid, signal.SIGCONT)


class RestoredRun(FaultRun):
    """A run whose judge leaves out what was lost with the restores, and counts it."""

    def __init__(self, fault: str, stage: Stage) -> None:
        super().__init__(fault, stage)
        self.restores: list[Restored] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def new_audience(self, cursor: str) -> list[Subscriber]:
        """Subscribers who begin at the cursor, in the place of those there were; says who these were."""
        were = self.subscribers
        self.subscribers = audience(self.stage.ports, self.stage.secret, cursor, self.seed + len(self.restores))
        self._tasks += [asyncio.create_task(one.run()) for one in self.subscribers]
        return were

    async def end(self) -> None:
        """Ends those subscribers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def was_lost(self, entry: Entry) -> bool:
        """Whether a restore took it after its client had been told of it."""
        return any(0 < entry.acknowledged_at < one.at and entry.position > one.position for one in self.restores)

    async def evidence(self) -> Evidence:
        """Without what was lost with the restores."""
        ledger = self.writers.ledger
        kept = [entry for entry in ledger.entries if not self.was_lost(entry)]
        ledger.troubles["acknowledged and lost with a restore"] = len(ledger.entries) - len(kept)
        ledger.entries[:] = kept
        found = await super().evidence()
        if found.published is None:
            return found
        return replace(found, published=of_the_present(found.published, found.messages, self.restores))
