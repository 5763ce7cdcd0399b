"""Stops a PostgreSQL that a killed hub left running in the data folder."""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from xzepr.core.errors import CannotStart

_STOP_TIMEOUT_SECONDS = 20.0  # for each signal


async def stop_leftover(cluster: Path, report: Callable[[str], None]) -> None:
    """Stops a PostgreSQL that still runs on this cluster; never signals any other process.

    The caller must have locked the data folder, so that no running hub uses it. Raises CannotStart if the process does
    not end.
    """
    pid = _recorded_pid(cluster)
    if pid is None or pid == os.getpid():
        return
    if not _serves(pid, cluster):
        if _is_running(pid):
            _replace_recorded_pid(cluster)
        return
    report(f"stopping the database that an earlier server left running (pid {pid})")
    for sign in (signal.SIGINT, signal.SIGQUIT):
        if await _stop(pid, cluster, sign):
            return
    raise CannotStart(f"the database process {pid} of {cluster} does not stop: stop it, then start xzepr again")


def _recorded_pid(cluster: Path) -> int | None:
    try:
        pid = int((cluster / "postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError):  # an unreadable folder is reported later
        return None
    return pid if pid > 0 else None


def _replace_recorded_pid(cluster: Path) -> None:
    """Replaces the process id in PostgreSQL's pid file, which now belongs to an unrelated process, by the hub's.

    PostgreSQL does not start while the recorded process runs, but treats the id of its parent as stale. The rest of
    the file stays: PostgreSQL needs it to find old backends that still use the shared memory.
    """
    path = cluster / "postmaster.pid"
    rest = path.read_text().split("\n", 1)[1:]
    with path.open("r+") as file:  # in place, to keep owner and permissions
        file.write("\n".join([str(os.getpid()), *rest]))
        file.truncate()


async def _stop(pid: int, cluster: Path, sign: signal.Signals) -> bool:
    """Signals the process, after another check, and waits for its end. Returns False if it does not end in time."""
    if not _serves(pid, cluster):
        return True
    os.kill(pid, sign)
    deadline = time.monotonic() + _STOP_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if not _serves(pid, cluster):
            return True
        await asyncio.sleep(0.05)
    return False


def _serves(pid: int, cluster: Path) -> bool:
    """Returns whether the process is a `postgres` on exactly this cluster."""
    if sys.platform == "linux":
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        program = Path(os.fsdecode(arguments[0])).name
        return program == "postgres" and os.fsencode(cluster) in _values_of(b"-D", arguments)
    command = subprocess.run(  # noqa: S603
        ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    program, _, rest = command.partition(" -D ")
    return Path(program).name == "postgres" and (rest + " ").startswith(f"{cluster} ")


def _values_of(option: bytes, arguments: list[bytes]) -> list[bytes]:
    return [value for name, value in itertools.pairwise(arguments) if name == option]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
