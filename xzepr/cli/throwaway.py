"""A hub for a while: `xzepr serve` as a child on a free port, with a data folder that is removed at the end."""

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

_START_SECONDS = 60.0
_STOP_SECONDS = 15.0
_ANSWERS = re.compile(r"answers at (http://\S+)")
_THEIRS = ("XZEPR_", "APP_ENV", "DATABASE_URL", "REDIS_URL")


@dataclass(frozen=True, slots=True)
class ThrowAwayHub:
    """A hub that answers, and its admin."""

    url: str
    username: str
    password: str = field(repr=False)
    start_seconds: float


@contextmanager
def throw_away_hub() -> Generator[ThrowAwayHub]:
    """A hub that knows nothing of this person's settings and databases. Raises CannotStart with its last words when it
    does not start."""
    folder = Path(tempfile.mkdtemp(prefix="xzepr-"))
    # PostgreSQL does not run as root: when we do, another account must be able to pass. The data folder is its own.
    folder.chmod(0o755)
    try:
        yield from _served(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _served(folder: Path) -> Generator[ThrowAwayHub]:
    password = secrets.token_urlsafe(24)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(_THEIRS)}
    environ |= {"XZEPR__AUTH__ADMIN_USERNAME": "admin", "XZEPR__AUTH__ADMIN_PASSWORD": password}
    began = time.monotonic()
    child = subprocess.Popen(  # noqa: S603 - this very program
        [sys.executable, "-m", "xzepr", "serve", "--data-dir", str(folder / "data"), "--port", "0"],
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        url = _address(child)
        yield ThrowAwayHub(url, "admin", password, time.monotonic() - began)
    finally:
        _end(child)


def _address(child: "subprocess.Popen[str]") -> str:
    """Where the child listens; its output is read on, so that it never waits for us."""
    said: deque[str] = deque(maxlen=5)
    found: list[str] = []
    decided = Event()

    def read() -> None:
        assert child.stdout is not None, "it is a pipe"
        for line in child.stdout:
            said.append(line.strip())
            if match := _ANSWERS.search(line):
                found.append(match[1])
                decided.set()
        decided.set()

    Thread(target=read, name="hub output", daemon=True).start()
    decided.wait(_START_SECONDS)
    if not found:
        raise CannotStart(f"the throw-away hub did not start; its last words: {' / '.join(said) or 'none'}")
    return found[0]


def _end(child: "subprocess.Popen[str]") -> None:
    if child.poll() is None:
        child.terminate()
    try:
        child.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
