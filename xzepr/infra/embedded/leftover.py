"""What a killed hub left running: recognised as our PostgreSQL before it is touched, then stopped."""

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

_PATIENCE_SECONDS = 20.0


async def stop_leftover(cluster: Path, say: Callable[[str], None]) -> None:
    """Stop the PostgreSQL that still serves this cluster; never signals a process that is not seen to be that.

    The caller holds the folder's lock, so no living hub owns it.
    """
    pid = _recorded_pid(cluster)
    if pid is None or pid == os.getpid():
        return
    if not _serves(pid, cluster):
        if _runs(pid):
            _disown(cluster)
        return
    say(f"stopping the database that an earlier server left running (pid {pid})")
    for sign in (signal.SIGINT, signal.SIGQUIT):
        if await _ends(pid, cluster, sign):
            return
    raise CannotStart(f"the database process {pid} of {cluster} does not stop: end it, then start again")


def _recorded_pid(cluster: Path) -> int | None:
    try:
        pid = int((cluster / "postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError):  # a folder that we may not read is refused later, with its reason
        return None
    return pid if pid > 0 else None


def _disown(cluster: Path) -> None:
    """The number in the pid file now belongs to a stranger, for whose sake PostgreSQL would refuse to start.

    Its parent's number it takes for stale; the rest of the file stays, by which it finds old backends that still
    use the shared memory.
    """
    path = cluster / "postmaster.pid"
    rest = path.read_text().split("\n", 1)[1:]
    with path.open("r+") as file:  # in place: owner and permissions stay
        file.write("\n".join([str(os.getpid()), *rest]))
        file.truncate()


async def _ends(pid: int, cluster: Path, sign: signal.Signals) -> bool:
    """Signal the process, checked again just before, and wait for its end; false when patience ran out."""
    if not _serves(pid, cluster):
        return True
    os.kill(pid, sign)
    until = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < until:
        if not _serves(pid, cluster):
            return True
        await asyncio.sleep(0.05)
    return False


def _serves(pid: int, cluster: Path) -> bool:
    """Whether the process is a `postgres` started on exactly this folder."""
    if sys.platform == "linux":
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        program = Path(os.fsdecode(arguments[0])).name
        return program == "postgres" and os.fsencode(cluster) in _values_of(b"-D", arguments)
    shown = subprocess.run(  # noqa: S603
        ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    program, _, rest = shown.partition(" -D ")
    return Path(program).name == "postgres" and (rest + " ").startswith(f"{cluster} ")


def _values_of(option: bytes, arguments: list[bytes]) -> list[bytes]:
    return [value for name, value in itertools.pairwise(arguments) if name == option]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
