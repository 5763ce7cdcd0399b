"""The worker processes of a hub: finding them, reaching a particular one, and running `xzepr work`."""

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
    """Returns the process ids of a hub's workers, oldest first."""
    pid = hub.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if b"xzepr.server.worker" in Path(f"/proc/{child}/cmdline").read_bytes()]


@asynccontextmanager
async def only_worker(hub: ServedHub, worker: int) -> AsyncGenerator[None]:
    """Pauses all other workers, so that new connections reach this one. None is paused with the writer lock."""
    others = [pid for pid in workers_of(hub) if pid != worker]

    def send(number: signal.Signals) -> None:
        for pid in others:
            os.kill(pid, number)

    async def paused() -> bool:
        send(signal.SIGSTOP)
        if await _writer_lock_is_free(hub):
            return True
        send(signal.SIGCONT)
        return False

    try:
        await until(paused, SECONDS)
        yield
    finally:
        send(signal.SIGCONT)


async def _writer_lock_is_free(hub: ServedHub) -> bool:
    """Returns whether the writer lock can be taken within a second."""
    url = running_url(hub.data_dir)
    assert url is not None
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute("SET lock_timeout = '1s'")
        try:
            await store.lock(connection)
        except psycopg.errors.LockNotAvailable:
            return False
    return True


def is_running(pid: int) -> bool:
    """Returns whether a process exists and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class WorkProcess:
    """An `xzepr work` process and its output."""

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

    async def wait_for_output(self, text: str, times: int = 1) -> None:
        """Waits until the output contains the text `times` times."""
        await until(lambda: "".join(self.lines).count(text) >= times, SECONDS)

    @property
    def health(self) -> str:
        """The address of its health, which must be in the output."""
        address = re.search(r"http://\S+/health", "".join(self.lines))
        assert address
        return address[0]
