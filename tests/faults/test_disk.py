"""The disk under the embedded PostgreSQL is full, under load: writes are refused with a code, and go on with room."""

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
from tests.faults.runner.run import FaultRun, times_of
from tests.faults.runner.stage import OFTEN, ServingHub, Stage, furnish
from tests.faults.runner.writers import TRY_AGAIN
from tests.support.postgres import temporary_folder

pytestmark = pytest.mark.faults

MEBIBYTES = 400
FULL_SECONDS = 6.0


class EmbeddedServer(DatabaseServer):
    """The PostgreSQL that a hub keeps in its data folder, for those who look into it from outside."""

    def __init__(self, data_dir: Path) -> None:
        self._run = data_dir / "run"

    def url_of(self, user: str, database: str) -> str:
        """The URL of one of the databases, as one of the roles."""
        return f"postgresql://{user}@/{database}?host={quote(str(self._run), safe='')}&port=5432"


@contextmanager
def small_disk(folder: Path) -> Generator[Path]:
    """A disk of its own with little room. Skips for who may not mount one."""
    folder.mkdir()
    options = f"size={MEBIBYTES}m,mode=755"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here (it needs root): {done.stderr.strip()}")
    try:
        yield folder
    finally:
        _unmount(folder)


def _unmount(folder: Path) -> None:
    for _ in range(50):  # a PostgreSQL whose hub was killed takes a moment to leave
        if subprocess.run(["umount", str(folder)], capture_output=True).returncode == 0:
            return
        time.sleep(0.2)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@asynccontextmanager
async def one_hub(folder: Path, data_dir: Path) -> AsyncGenerator[Stage]:
    """One hub that keeps its own PostgreSQL on the small disk, with receivers and groups."""
    hub = ServingHub("hub", data_dir, dict(OFTEN))
    on = Stage(folder, EmbeddedServer(data_dir), [hub], None, "no: this fault is not about it", "none")
    try:
        await hub.start()
        await furnish(on)
        yield on
    finally:
        hub.end()


async def test_disk_of_the_embedded_database_is_full(request: pytest.FixtureRequest) -> None:
    with temporary_folder(on_disk=True) as folder, small_disk(folder / "disk") as disk:
        async with one_hub(folder, disk / "data") as on:
            run = FaultRun("disk of the embedded database full", on, try_again=TRY_AGAIN | {"STORAGE_FULL"})
            times = times_of(3)
            async with asyncio.timeout(60 + times * 60 + 240), run.loaded():
                began = time.monotonic()
                await asyncio.sleep(3)
                for _ in range(times):
                    await _fill(run, disk / "ballast")
                    run.injections += 1
                    await asyncio.sleep(3)
                await asyncio.sleep(max(3.0, 32 - (time.monotonic() - began)))
            assert on.hubs[0].lives[0].process.poll() is None, "the hub was not restarted"
            await run.judge(request.node)


async def _fill(run: FaultRun, ballast: Path) -> None:
    """Takes all the room, again and again what becomes free, until the hub has said so; then gives it back."""
    troubles = run.writers.ledger.troubles
    before = troubles.get("STORAGE_FULL", 0)
    end, refused = time.monotonic() + FULL_SECONDS, False
    try:
        async with asyncio.timeout(60):
            while time.monotonic() < end or not refused:
                await asyncio.to_thread(_grow, ballast)
                refused = troubles.get("STORAGE_FULL", 0) > before
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
