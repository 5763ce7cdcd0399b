"""The processes of a hub that serves with several: who they are, and how a client comes to a particular one."""

import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.support.server import ServedHub


def workers_of(hub: ServedHub) -> list[int]:
    """The process ids of its workers, oldest first."""
    pid = hub.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if b"xzepr.cli.worker" in Path(f"/proc/{child}/cmdline").read_bytes()]


@contextmanager
def through(hub: ServedHub, worker: int) -> Generator[None]:
    """Meanwhile whoever connects comes to this worker: the others are frozen."""
    others = [pid for pid in workers_of(hub) if pid != worker]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


def runs(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
