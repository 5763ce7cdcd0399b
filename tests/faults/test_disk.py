"""The disk of the embedded PostgreSQL is full under load. Writes fail with a code and resume once there is space."""

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.faults.runner.database import DatabaseServer
from tests.faults.runner.deployment import FREQUENT_CHECKPOINTS, Deployment, HubProcess, create_fixtures
from tests.faults.runner.fault_run import FaultRun, injection_count
from tests.faults.runner.writers import RETRYABLE
from tests.support.postgres import temporary_folder

pytestmark = pytest.mark.faults

DISK_MIB = 400
FULL_DISK_SECONDS = 6.0


class EmbeddedServer(DatabaseServer):
    """Access to the embedded PostgreSQL in a hub's data folder."""

    def __init__(self, data_dir: Path) -> None:
        self._run = data_dir / "run"

    def url_of(self, user: str, database: str) -> str:
        """Returns the URL of a database for a role."""
        return f"postgresql://{user}@/{database}?host={quote(str(self._run), safe='')}&port=5432"


@contextmanager
def small_disk(folder: Path) -> Generator[Path]:
    """Mounts a small disk. Skips the test if the user is not allowed to mount one."""
    folder.mkdir()
    options = f"size={DISK_MIB}m,mode=755"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here (it needs root): {done.stderr.strip()}")
    try:
        yield folder
    finally:
        _unmount(folder)


def _unmount(folder: Path) -> None:
    for _ in range(50):  # PostgreSQL takes a moment to end after its hub was killed
        if subprocess.run(["umount", str(folder)], capture_output=True).returncode == 0:
            return
        time.sleep(0.2)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@asynccontextmanager
async def one_hub(folder: Path, data_dir: Path) -> AsyncGenerator[Deployment]:
    """Runs one hub with receivers and groups whose embedded PostgreSQL is on the small disk."""
    hub = HubProcess("hub", data_dir, dict(FREQUENT_CHECKPOINTS))
    system = Deployment(folder, EmbeddedServer(data_dir), [hub], None, "no: this fault does not involve it", "none")
    try:
        await hub.start()
        await create_fixtures(system)
        yield system
    finally:
        hub.end()


async def test_disk_of_the_embedded_database_is_full(request: pytest.FixtureRequest) -> None:
    with temporary_folder(on_disk=True) as folder, small_disk(folder / "disk") as disk:
        async with one_hub(folder, disk / "data") as system:
            run = FaultRun("disk of the embedded database full", system, retryable=RETRYABLE | {"STORAGE_FULL"})
            times = injection_count(3)
            async with asyncio.timeout(60 + times * 60 + 240), run.under_load():
                began = time.monotonic()
                await asyncio.sleep(3)
                for _ in range(times):
                    await _fill(run, disk / "ballast")
                    run.injections += 1
                    await asyncio.sleep(3)
                await asyncio.sleep(max(3.0, 32 - (time.monotonic() - began)))
            assert system.hubs[0].processes[0].process.poll() is None, "the hub must survive a full disk"
            await run.check(request.node)


async def _fill(run: FaultRun, ballast: Path) -> None:
    """Keeps the disk full until the hub has reported it, then frees the space and waits for the next event."""
    retry_reasons = run.writers.ledger.retry_reasons
    before = retry_reasons.get("STORAGE_FULL", 0)
    end, reported = time.monotonic() + FULL_DISK_SECONDS, False
    try:
        async with asyncio.timeout(60):
            while time.monotonic() < end or not reported:
                await asyncio.to_thread(_grow, ballast)
                reported = retry_reasons.get("STORAGE_FULL", 0) > before
                await asyncio.sleep(0.05)
    finally:
        os.truncate(ballast, 0)
    acknowledged = len(run.writers.ledger.acknowledged)
    async with asyncio.timeout(60):
        while len(run.writers.ledger.acknowledged) == acknowledged:
            await asyncio.sleep(0.1)


def _grow(ballast: Path) -> None:
    with suppress(OSError), ballast.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
