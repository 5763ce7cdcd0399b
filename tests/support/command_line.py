"""A user at a command line: runs `xzepr` in this process or another, with an own folder and a hub's address."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition, Thread
from typing import Any

import orjson
import pytest

from tests.support.postgres import temporary_folder
from tests.support.server import ServedHub, clean_environment, copy_data_folder, reserved_port
from xzepr.__main__ import main
from xzepr.cli.client.credentials import HubCredential
from xzepr.cli.client.http import HubClient

TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The output, parsed as JSON."""
        return orjson.loads(self.out)


class RunningCommand:
    """A command that runs in its own process, and its output so far."""

    def __init__(self, arguments: tuple[str, ...], environ: Mapping[str, str], folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "xzepr", *arguments],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._changed = Condition()
        self.out: list[str] = []
        self.err: list[str] = []
        self._readers = [
            Thread(target=self._read, args=(self.process.stdout, self.out), daemon=True),
            Thread(target=self._read, args=(self.process.stderr, self.err), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any, lines: list[str]) -> None:
        for line in stream:
            with self._changed:
                lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    def until(self, condition: Callable[["RunningCommand"], object], seconds: float = TIMEOUT_SECONDS) -> None:
        """Waits until the condition holds for the output so far."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self), seconds), (self.out, self.err)

    def wait(self, seconds: float = TIMEOUT_SECONDS) -> int:
        """Waits for the end of the process and returns its exit code."""
        code = self.process.wait(seconds)
        for reader in self._readers:
            reader.join(TIMEOUT_SECONDS)
        return code


@dataclass(slots=True)
class CommandLineUser:
    """Runs commands against a hub, with own settings and logins."""

    folder: Path
    hub: str
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    running: list[RunningCommand] = field(default_factory=list[RunningCommand])

    @property
    def environ(self) -> dict[str, str]:
        """The environment of the commands."""
        own = {"HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder / "config"), "XZEPR_HUB": self.hub}
        return clean_environment() | own | {"COLUMNS": "200"}

    @property
    def sessions_file(self) -> Path:
        """The file of logins on Linux."""
        return self.folder / "config" / "xzepr" / "sessions.json"

    def __call__(self, *arguments: str, stdin: str = "", environ: Mapping[str, str] | None = None) -> CommandResult:
        """Runs a command in this process until it ends."""
        self.capsys.readouterr()
        with self.monkeypatch.context() as patch:
            variables = self.environ | dict(environ or {})
            for name in list(os.environ):
                patch.delenv(name)
            for name, value in variables.items():
                patch.setenv(name, value)
            patch.chdir(self.folder)
            patch.setattr(sys, "argv", ["xzepr", *arguments])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            code = 0
            try:
                main()
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 1
        out, err = self.capsys.readouterr()
        return CommandResult(code, out, err)

    def start(self, *arguments: str, environ: Mapping[str, str] | None = None) -> RunningCommand:
        """Starts a command in its own process, which is killed at the end of the test."""
        command = RunningCommand(arguments, self.environ | dict(environ or {}), self.folder)
        self.running.append(command)
        return command

    def log_in(self, username: str, password: str) -> CommandResult:
        """Logs in with `xzepr login`."""
        result = self("login", "--username", username, "--password-stdin", stdin=f"{password}\n")
        assert result.code == 0, result.err
        return result

    def ask(self, document: str, **variables: object) -> Any:
        """Executes a document with the user's login and returns its data."""
        token = orjson.loads(self.sessions_file.read_bytes())[self.hub]["token"]
        client = HubClient(self.hub, HubCredential(token, ""))
        try:
            return client.execute(document, **variables)
        finally:
            client.close()

    def record(self, receiver: str, *unit: str, success: bool = True, **environ: str) -> Any:
        """Records an event of a unit (name, version, release, platform, package). Returns the output of `--json`."""
        names = ("--name", "--version", "--release", "--platform-id", "--package")
        options = [text for pair in zip(names, unit, strict=True) for text in pair]
        outcome = "--success" if success else "--failure"
        rest = ["--description", "by a test", outcome, "--payload", "-", "--json"]
        result = self("events", "create", "--receiver", receiver, *options, *rest, stdin="{}", environ=environ)
        assert result.code == 0, result.err
        return result.json


@pytest.fixture
def anonymous(
    served_hub: ServedHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[CommandLineUser]:
    """A user that has not logged in."""
    user = CommandLineUser(tmp_path, served_hub.url, monkeypatch, capsys)
    yield user
    for command in user.running:
        command.process.kill()
        command.wait()


@pytest.fixture
def admin(anonymous: CommandLineUser, served_hub: ServedHub) -> CommandLineUser:
    """The administrator of the hub, logged in."""
    anonymous.log_in("admin", served_hub.admin_password)
    return anonymous


@pytest.fixture
def own_hub() -> Iterator[list[ServedHub]]:
    """A hub that a test may kill and start again on its port. The last one in the list is stopped at the end."""
    with temporary_folder() as folder, reserved_port() as port:
        hubs = [ServedHub.start(copy_data_folder(folder / "data"), port=port)]
        yield hubs
        hubs[-1].stop()
