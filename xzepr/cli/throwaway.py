"""A temporary hub: `xzepr serve` as a child process on a free port, with a data folder that is removed at the end."""

import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

from xzepr.core.errors import CannotStart

_START_TIMEOUT_SECONDS = 60.0
_STOP_TIMEOUT_SECONDS = 15.0
_ADDRESS = re.compile(r"answers at (http://\S+)")  # printed by xzepr.server.startup
# Environment variables that configure a hub; the temporary hub must not inherit them.
_HUB_VARIABLES = ("XZEPR_", "APP_ENV", "DATABASE_URL", "REDIS_URL")


@dataclass(frozen=True, slots=True)
class ThrowawayHub:
    """A running hub, and the credentials of its administrator."""

    url: str
    username: str
    password: str = field(repr=False)
    start_seconds: float


@contextmanager
def throwaway_hub() -> Generator[ThrowawayHub]:
    """Runs a hub that uses none of the user's settings and databases.

    Raises CannotStart, with the last lines of its output, if the hub does not start within 60 s.
    """
    folder = Path(tempfile.mkdtemp(prefix="xzepr-"))
    # PostgreSQL does not run as root, so another account must be able to enter the folder. That account owns the data
    # folder below it.
    folder.chmod(0o755)
    try:
        yield from _run_hub(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_hub(folder: Path) -> Generator[ThrowawayHub]:
    password = secrets.token_urlsafe(24)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(_HUB_VARIABLES)}
    environ |= {"XZEPR__AUTH__ADMIN_USERNAME": "admin", "XZEPR__AUTH__ADMIN_PASSWORD": password}
    started_at = time.monotonic()
    process = subprocess.Popen(  # noqa: S603 - runs this program
        [sys.executable, "-m", "xzepr", "serve", "--data-dir", str(folder / "data"), "--port", "0"],
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        url = _wait_for_address(process)
        yield ThrowawayHub(url, "admin", password, time.monotonic() - started_at)
    finally:
        _stop(process)


def _wait_for_address(process: "subprocess.Popen[str]") -> str:
    """Returns the hub's address once it is printed. The output is read until the end, so that the pipe never fills."""
    last_lines: deque[str] = deque(maxlen=5)
    addresses: list[str] = []
    started_or_ended = Event()

    def read() -> None:
        assert process.stdout is not None, "it is a pipe"
        for line in process.stdout:
            last_lines.append(line.strip())
            if match := _ADDRESS.search(line):
                addresses.append(match[1])
                started_or_ended.set()
        started_or_ended.set()

    Thread(target=read, name="hub output", daemon=True).start()
    started_or_ended.wait(_START_TIMEOUT_SECONDS)
    if not addresses:
        raise CannotStart(f"the temporary hub did not start; its last output: {' / '.join(last_lines) or 'none'}")
    return addresses[0]


def _stop(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
