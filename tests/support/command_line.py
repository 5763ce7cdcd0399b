"""Somebody with a command line: a folder of their own, a hub's address, and `xzepr` in this process or another."""

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
from tests.support.server import ServedHub, clean_environment, held_port
from xzepr.__main__ import main
from xzepr.cli.client import Client
from xzepr.cli.session import Credential

PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, read as JSON."""
        return orjson.loads(self.out)


class Running:
    """A command that runs in a process of its own, and what it has printed."""

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
        self._news = Condition()
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
            with self._news:
                lines.append(line.rstrip("\n"))
                self._news.notify_all()

    def until(self, condition: Callable[["Running"], object], seconds: float = PATIENCE_SECONDS) -> None:
        """Waits until what it has printed is so."""
        with self._news:
            assert self._news.wait_for(lambda: condition(self), seconds), (self.out, self.err)

    def end(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Waits for its end; its exit code."""
        code = self.process.wait(seconds)
        for reader in self._readers:
            reader.join(PATIENCE_SECONDS)
        return code


@dataclass(slots=True)
class Person:
    """Runs commands against one hub, with settings and logins of their own."""

    folder: Path
    hub: str
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    running: list[Running] = field(default_factory=list[Running])

    @property
    def environ(self) -> dict[str, str]:
        """The variables of their commands."""
        theirs = {"HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder / "config"), "XZEPR_HUB": self.hub}
        return clean_environment() | theirs | {"COLUMNS": "200"}

    @property
    def sessions_file(self) -> Path:
        """Where their logins are kept on Linux."""
        return self.folder / "config" / "xzepr" / "sessions.json"

    def __call__(self, *arguments: str, stdin: str = "", environ: Mapping[str, str] | None = None) -> Done:
        """Runs a command to its end, in this process."""
        self.capsys.readouterr()
        with self.monkeypatch.context() as patch:
            wanted = self.environ | dict(environ or {})
            for name in list(os.environ):
                patch.delenv(name)
            for name, value in wanted.items():
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
        return Done(code, out, err)

    def start(self, *arguments: str, environ: Mapping[str, str] | None = None) -> Running:
        """Starts a command in a process of its own; it is ended with the test."""
        started = Running(arguments, self.environ | dict(environ or {}), self.folder)
        self.running.append(started)
        return started

    def log_in(self, username: str, password: str) -> Done:
        """Logs in."""
        done = self("login", "--username", username, "--password-stdin", stdin=f"{password}\n")
        assert done.code == 0, done.err
        return done

    def ask(self, document: str, **variables: object) -> Any:
        """What the hub answers to a document, asked with their login."""
        token = orjson.loads(self.sessions_file.read_bytes())[self.hub]["token"]
        client = Client(self.hub, Credential(token, ""))
        try:
            return client.ask(document, **variables)
        finally:
            client.close()

    def record(self, receiver: str, *unit: str, success: bool = True, **environ: str) -> Any:
        """Records an event of a unit (name, version, release, platform, package); what `--json` says of it."""
        names = ("--name", "--version", "--release", "--platform-id", "--package")
        options = [text for pair in zip(names, unit, strict=True) for text in pair]
        outcome = "--success" if success else "--failure"
        end = ["--description", "by a test", outcome, "--payload", "-", "--json"]
        done = self("events", "create", "--receiver", receiver, *options, *end, stdin="{}", environ=environ)
        assert done.code == 0, done.err
        return done.json


@pytest.fixture
def stranger(
    served_hub: ServedHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Person]:
    """Somebody who has not logged in."""
    person = Person(tmp_path, served_hub.url, monkeypatch, capsys)
    yield person
    for running in person.running:
        running.process.kill()
        running.end()


@pytest.fixture
def admin(stranger: Person, served_hub: ServedHub) -> Person:
    """The hub's admin, logged in."""
    stranger.log_in("admin", served_hub.admin_password)
    return stranger


@pytest.fixture
def own_hub() -> Iterator[list[ServedHub]]:
    """A hub that a test may kill and start again at its port; the one that is to be stopped at the end comes last."""
    with temporary_folder() as folder, held_port() as port:
        hubs = [ServedHub.start(folder / "data", port=port)]
        yield hubs
        hubs[-1].stop()
