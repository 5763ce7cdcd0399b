"""The processes of a hub that has several: who they are, how a client comes to a particular one, and `xzepr work`."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Thread

import psycopg

from tests.support.hub import until
from tests.support.server import ServedHub, clean_environment
from xzepr.features.stream import store
from xzepr.infra.embedded import running_url

SECONDS = 60


def workers_of(hub: ServedHub) -> list[int]:
    """The process ids of its workers, oldest first."""
    pid = hub.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if b"xzepr.cli.worker" in Path(f"/proc/{child}/cmdline").read_bytes()]


@asynccontextmanager
async def through(hub: ServedHub, worker: int) -> AsyncGenerator[None]:
    """Meanwhile whoever connects comes to this worker: the others are frozen, and not while it is theirs to write."""
    others = [pid for pid in workers_of(hub) if pid != worker]

    def tell(number: signal.Signals) -> None:
        for pid in others:
            os.kill(pid, number)

    async def frozen() -> bool:
        tell(signal.SIGSTOP)
        if await _one_may_write(hub):
            return True
        tell(signal.SIGCONT)
        return False

    try:
        await until(frozen, SECONDS)
        yield
    finally:
        tell(signal.SIGCONT)


async def _one_may_write(hub: ServedHub) -> bool:
    """Whether the writer's lock can be had within a second."""
    url = running_url(hub.data_dir)
    assert url is not None
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute("SET lock_timeout = '1s'")
        try:
            await store.lock(connection)
        except psycopg.errors.LockNotAvailable:
            return False
    return True


def runs(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Worker:
    """One `xzepr work`, and what it has said."""

    def __init__(self, data_dir: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "xzepr", "work", "--data-dir", str(data_dir), *arguments],
            cwd=data_dir.parent,
            env={**clean_environment(), **(environ or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    async def says(self, text: str, times: int = 1) -> None:
        """Returns when it has said that so often."""
        await until(lambda: "".join(self.lines).count(text) >= times, SECONDS)

    @property
    def health(self) -> str:
        """The address of its health, once it has said it."""
        found = re.search(r"http://\S+/health", "".join(self.lines))
        assert found
        return found[0]
