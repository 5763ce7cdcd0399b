"""A database that goes back to a backup under load, and a judge that knows what was lost with it."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.faults.database import DatabaseServer
from tests.support.faults.evidence import Evidence, Published
from tests.support.faults.ledger import Entry
from tests.support.faults.run import FaultRun
from tests.support.faults.stage import Stage
from tests.support.faults.subscribers import Subscriber, audience


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy of the cluster, and where the stream ended when it was made."""

    folder: Path
    position: int
    cursor: str


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore took: everything after the position that clients were told of before the moment."""

    position: int
    at: float
    relayed_again_after: int
    """From here up to the position, messages may be in Kafka twice."""


async def back_up(on: Stage) -> Backup:
    """Stops PostgreSQL, copies its folder and starts it again. The hubs are held still meanwhile, so that where the
    stream ends is known."""
    folder = on.folder / f"backup-{time.monotonic_ns()}"
    async with _still(on):
        rows = await on.postgres.execute("SELECT position, id FROM messages ORDER BY position DESC LIMIT 1")
        await on.postgres.stop()
        await asyncio.to_thread(_copy, on.postgres.cluster, folder)
        await on.postgres.start()
    [(position, id)] = rows
    return Backup(folder, int(str(position)), f"{position}-{str(id)[-8:]}")


async def put_back(postgres: DatabaseServer, backup: Backup) -> float:
    """Replaces the cluster by the copy; says when nobody could be told anything of what was lost any more."""
    await postgres.stop()
    await asyncio.sleep(0.5)
    at = time.monotonic()
    await asyncio.to_thread(subprocess.run, ["rm", "-rf", str(postgres.cluster)], check=True)
    await asyncio.to_thread(_copy, backup.folder, postgres.cluster)
    await postgres.start()
    return at


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
        return replace(found, published=None if found.published is None else self._published(found))

    def _published(self, found: Evidence) -> list[Published]:
        """What Kafka has of the present history. What the database had not noted as published may be there twice."""
        truth = {(message.position, message.id) for message in found.messages}
        seen: set[int] = set()
        kept: list[Published] = []
        for one in found.published or ():
            again = any(lost.relayed_again_after < one.position <= lost.position for lost in self.restores)
            if (one.position, one.id) in truth and not (again and one.position in seen):
                kept.append(one)
                seen.add(one.position)
        return kept
