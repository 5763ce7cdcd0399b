"""A served hub: `xzepr serve` as a separate process, on a free port and the embedded PostgreSQL."""

import atexit
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
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
    """Returns this process's environment without settings, addresses and keys of a hub or a command."""
    removed = ("XZEPR_", "APP_ENV", "DATABASE_URL", "REDIS_URL")
    return {name: value for name, value in os.environ.items() if not name.startswith(removed)} | {
        "PYTHONPATH": str(ROOT)
    }


@dataclass(slots=True)
class ServedHub:
    """A hub that answers. `lines` collects its standard output and standard error."""

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
        end_with_thread: bool = False,
        command: str = "serve",
    ) -> "ServedHub":
        """Starts a hub and waits until it answers. Fails with the hub's output if it ends instead.

        `arguments` are options of `xzepr serve`, `environ` overrides its variables.
        `end_with_thread`: the process ends with the thread that started it.
        `command`: "work" for a process that relays and answers only health requests.
        """
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
            preexec_fn=die_with_parent if end_with_thread else None,
        )
        hub = cls("", variables["XZEPR__AUTH__ADMIN_PASSWORD"], data_dir, process)
        ready = Event()
        hub._reader = Thread(target=hub._read, args=(ready,), daemon=True)
        hub._reader.start()
        if not ready.wait(START_SECONDS) or not hub.url:
            hub.kill()
            raise AssertionError("the hub did not start:\n" + "".join(hub.lines))
        return hub

    def _read(self, ready: Event) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if not self.url and (match := _ANSWERS.search(line)):
                self.url = match[1]
                ready.set()
        ready.set()

    @property
    def port(self) -> int:
        """The port of the hub. Another hub that is started on it gets the clients of this one."""
        return int(self.url.rpartition(":")[2])

    def stop(self) -> int:
        """Stops the hub as Ctrl-C does and returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def wait(self) -> int:
        """Waits until the hub has ended and `lines` is complete. Returns the exit code.

        Not for a hub whose embedded database keeps running, because that holds the output open.
        """
        code = self.process.wait(STOP_SECONDS)
        assert self._reader is not None
        self._reader.join(STOP_SECONDS)
        return code

    def kill(self) -> None:
        """Kills the hub with SIGKILL, as a crash does."""
        self.process.kill()
        self.process.wait()


@cache
def _used_data_folder() -> Path:
    """Returns the data folder of a hub that was started once and stopped. It is deleted at the end of this process."""
    folder = ExitStack()
    atexit.register(folder.close)
    data_dir = folder.enter_context(temporary_folder()) / "data"
    hub = ServedHub.start(data_dir)
    assert hub.stop() == 0
    return data_dir


def copy_data_folder(data_dir: Path) -> Path:
    """Creates the data folder of a hub that has been started once, with an empty stream, and returns it.

    This takes a tenth of a second; a first start takes two seconds more than the next one. All copies have the same
    keys, administrator and id of the stream.
    """
    program = ["cp", "--archive", "--reflink=auto", str(_used_data_folder()), str(data_dir)]
    subprocess.run(program, check=True)
    return data_dir


@contextmanager
def serving(*arguments: str, environ: Mapping[str, str] | None = None) -> Generator[ServedHub]:
    """Runs a hub with an empty stream."""
    with temporary_folder() as folder:
        hub = ServedHub.start(copy_data_folder(folder / "data"), *arguments, environ=environ)
        try:
            yield hub
        finally:
            hub.stop()


@contextmanager
def reserved_port() -> Generator[int]:
    """Reserves a port for a hub that a test restarts, so that no other process can take it."""
    with socket.socket() as holder:  # with SO_REUSEADDR, the hub can listen although this socket is bound
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture(scope="session")
def served_hub() -> Iterator[ServedHub]:
    """A hub that many tests share. They use their own names and leave it running."""
    with serving() as hub:
        yield hub
