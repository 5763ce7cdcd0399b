"""A hub as it is served: `xzepr serve` as a process of its own, on a free port and the embedded PostgreSQL."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.support.kafka import die_with_parent
from tests.support.postgres import temporary_folder

ROOT = Path(__file__).parents[2]
ADMIN_PASSWORD = "correct horse battery staple"
START_SECONDS = 60
STOP_SECONDS = 30

_ANSWERS = re.compile(r"(?:answers at|health) +(http://[^\s/]+)")


def clean_environment() -> dict[str, str]:
    """This process's environment without what would change a hub or a command: settings, addresses, keys."""
    theirs = ("XZEPR_", "APP_ENV", "DATABASE_URL", "REDIS_URL")
    return {name: value for name, value in os.environ.items() if not name.startswith(theirs)} | {
        "PYTHONPATH": str(ROOT)
    }


@dataclass(slots=True)
class ServedHub:
    """A hub that answers. Its log is kept in `lines`, both streams in one."""

    url: str
    admin_password: str
    data_dir: Path
    process: "subprocess.Popen[str]"
    lines: list[str] = field(default_factory=list[str])
    _reader: Thread | None = None

    @classmethod
    def start(
        cls,
        data_dir: Path,
        *arguments: str,
        port: int = 0,
        environ: Mapping[str, str] | None = None,
        tied: bool = False,
        command: str = "serve",
    ) -> "ServedHub":
        """Starts one and waits until it answers; `arguments` go to `xzepr serve`, `environ` overrides its variables.
        Fails with the hub's own words when it ends instead. `tied`: it ends with the thread that started it.
        `command`: "work" for a process that relays and answers for its health alone."""
        program = [sys.executable, "-m", "xzepr", command, "--data-dir", str(data_dir), "--port", str(port), *arguments]
        variables = clean_environment() | {"XZEPR__AUTH__ADMIN_PASSWORD": ADMIN_PASSWORD} | dict(environ or {})
        process = subprocess.Popen(
            program,
            cwd=data_dir.parent,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=die_with_parent if tied else None,
        )
        hub = cls("", variables["XZEPR__AUTH__ADMIN_PASSWORD"], data_dir, process)
        answers = Event()
        hub._reader = Thread(target=hub._read, args=(answers,), daemon=True)
        hub._reader.start()
        if not answers.wait(START_SECONDS) or not hub.url:
            hub.kill()
            raise AssertionError("the hub did not start:\n" + "".join(hub.lines))
        return hub

    def _read(self, answers: Event) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if not self.url and (found := _ANSWERS.search(line)):
                self.url = found[1]
                answers.set()
        answers.set()

    @property
    def port(self) -> int:
        """Where it listens; a hub started there later is met by the clients of this one."""
        return int(self.url.rpartition(":")[2])

    def stop(self) -> int:
        """Ends it as Ctrl-C does; gives its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def ended(self) -> int:
        """Waits until it has ended and all that it said is in `lines`; gives its exit code. Not for a hub that leaves a
        database of its own behind, which still holds its output."""
        code = self.process.wait(STOP_SECONDS)
        assert self._reader is not None
        self._reader.join(STOP_SECONDS)
        return code

    def kill(self) -> None:
        """Ends it at once, as a crash does."""
        self.process.kill()
        self.process.wait()


@contextmanager
def serving(*arguments: str, environ: Mapping[str, str] | None = None) -> Generator[ServedHub]:
    """A hub of one's own with an empty database, gone at the end."""
    with temporary_folder() as folder:
        hub = ServedHub.start(folder / "data", *arguments, environ=environ)
        try:
            yield hub
        finally:
            hub.stop()


@contextmanager
def held_port() -> Generator[int]:
    """A port for a hub that is started again meanwhile: nobody else is given it when the hub is away."""
    with socket.socket() as holder:  # beside a socket that is bound and does not listen, who sets this may listen
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture(scope="session")
def served_hub() -> Iterator[ServedHub]:
    """One hub for all tests that ask: make names of your own, and leave it running."""
    with serving() as hub:
        yield hub
