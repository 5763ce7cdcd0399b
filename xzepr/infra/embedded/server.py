"""The embedded PostgreSQL as a child of this process: started, waited for, stopped."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import pq

from xzepr.core.backoff import Backoff
from xzepr.core.errors import CannotStart
from xzepr.infra.embedded.account import Account, can_end_with_parent, choose_account, clean_environment
from xzepr.infra.embedded.binaries import find_binaries
from xzepr.infra.embedded.cluster import OWNER, SUPERUSER, prepare_cluster
from xzepr.infra.embedded.folder import (
    grant_access,
    lock_folder,
    log_tail,
    make_folder,
    make_socket_folder,
    open_log,
    remove_socket_folder,
    running_socket_folder,
)
from xzepr.infra.embedded.leftover import stop_leftover

_FAST_STOP_SECONDS = 20.0
_FIRST_WORD_SECONDS = 3.0
_NEXT_WORD_SECONDS = 10.0
_LOOK_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 5.0
_SETTINGS = {"log_checkpoints": "off", "log_line_prefix": "%m [%p] "}


@dataclass(slots=True)
class EmbeddedPostgres:
    """A PostgreSQL of our own, reachable through a private Unix socket for as long as this process lives."""

    data_dir: Path
    _lock: int
    _account: Account
    _sockets: Path | None = None
    _process: "subprocess.Popen[bytes] | None" = None
    _binaries: Path | None = None
    _settings: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    async def start(
        cls, data_dir: Path, *, report: Callable[[str], None], settings: Mapping[str, str] | None = None
    ) -> "EmbeddedPostgres":
        """Make the cluster if there is none, start it and wait until it answers, however long recovery takes.

        Call it from the main thread: on Linux the database then ends by itself when this process is killed.
        `settings` are PostgreSQL's own, by name. Raises CannotStart with a sentence for the operator.
        """
        data_dir = make_folder(data_dir)
        lock = lock_folder(data_dir)
        try:
            server = cls(data_dir, lock, choose_account(data_dir, data_dir / "postgres"), _settings=settings or {})
        except BaseException:
            os.close(lock)
            raise
        try:
            await server._open(report)
        except BaseException:
            await server.stop()
            raise
        return server

    @property
    def url(self) -> str:
        """Where the hub's database is, as a `postgresql://` URL; the hub's account needs no password there."""
        return self.url_of(OWNER, OWNER)

    def url_of(self, user: str, database: str) -> str:
        """The URL of one of the cluster's databases, as one of its roles (`postgres` is the superuser)."""
        return _url(str(self._sockets), user, database)

    async def stop(self) -> None:
        """End every connection, write everything down, stop, and let the data folder go. Harmless when repeated."""
        if self._process is not None:
            await asyncio.to_thread(_stop_process, self._process)
            self._process = None
        if self._sockets is not None:
            remove_socket_folder(self._sockets, self.data_dir)
            self._sockets = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    async def keep_running(self, say: Callable[[str], None]) -> None:
        """Start the database again whenever it ends by itself, until cancelled. Its URL stays the same."""
        backoff = Backoff(_LOOK_SECONDS, _LONGEST_PAUSE_SECONDS)
        while True:
            await backoff.sleep()
            if self._process is None or self._binaries is None or self._process.poll() is None:
                backoff.reset()
                continue
            say(f"The database ended ({self._process.returncode}); starting it again: see {self.data_dir}/postgres.log")
            self._process = self._spawn(self._binaries / "postgres", self.data_dir / "postgres")
            try:
                await self._answers(self._process, say)
            except CannotStart as error:
                say(str(error))
            else:
                backoff.reset()

    async def _open(self, say: Callable[[str], None]) -> None:
        cluster = self.data_dir / "postgres"
        grant_access(self._account, self.data_dir)
        binaries = await asyncio.to_thread(find_binaries, self._account, self.data_dir)
        await stop_leftover(cluster, say)
        durable = self._settings.get("fsync") != "off"
        await asyncio.to_thread(prepare_cluster, self._account, binaries, cluster, durable=durable)
        self._sockets = make_socket_folder(self._account, self.data_dir)
        self._binaries = binaries
        self._process = self._spawn(binaries / "postgres", cluster)
        await self._answers(self._process, say)
        await asyncio.to_thread(_ensure_database, self.url_of(SUPERUSER, "postgres"))

    def _spawn(self, postgres: Path, cluster: Path) -> "subprocess.Popen[bytes]":
        """In a session of its own, so that Ctrl-C in a terminal reaches the hub first and the database through it."""
        options = [f"--{name}={value}" for name, value in {**_SETTINGS, **self._settings}.items()]
        arguments = ["-D", str(cluster), "-h", "", "-k", str(self._sockets), *options]
        command = self._account.command(postgres, *arguments, end_with_parent=can_end_with_parent())
        log = open_log(self.data_dir)
        try:
            return subprocess.Popen(  # noqa: S603
                command,
                cwd="/",
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(log)

    async def _answers(self, process: "subprocess.Popen[bytes]", say: Callable[[str], None]) -> None:
        """Return when the server accepts connections. Recovery after a crash may take minutes and is not cut short."""
        conninfo = self.url_of(SUPERUSER, "postgres").encode()
        started = time.monotonic()
        word = started + _FIRST_WORD_SECONDS
        pause = 0.02
        while await asyncio.to_thread(pq.PGconn.ping, conninfo) != pq.Ping.OK:
            if process.poll() is not None:
                raise CannotStart(f"the embedded PostgreSQL ended while starting:\n{log_tail(self.data_dir)}")
            if time.monotonic() >= word:
                waited = time.monotonic() - started
                say(f"waiting for the database to recover ({waited:.0f} s so far; see {self.data_dir}/postgres.log)")
                word += _NEXT_WORD_SECONDS
            await asyncio.sleep(pause)
            pause = min(pause * 1.2, 0.25)  # each question that is refused is a line in the log


def running_url(data_dir: Path) -> str | None:
    """Where the database is that another process of this user runs in the data folder; None where none does. It may
    still be starting. Raises CannotStart when the folder is another user's."""
    folder = running_socket_folder(data_dir)
    return None if folder is None else _url(str(folder), OWNER, OWNER)


def _url(sockets: str, user: str, database: str) -> str:
    return f"postgresql://{user}@/{quote(database, safe='')}?host={quote(sockets, safe='')}&port=5432"


def _stop_process(process: "subprocess.Popen[bytes]") -> None:
    for sign, seconds in ((signal.SIGINT, _FAST_STOP_SECONDS), (signal.SIGQUIT, None)):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.send_signal(sign)  # Popen signals only while the child is ours to wait for
            process.wait(seconds)
            return


def _ensure_database(url: str) -> None:
    """The hub's role, which is no superuser, and its database; at every start, as the first may have been killed."""
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            if connection.execute("SELECT FROM pg_roles WHERE rolname = 'xzepr'").fetchone() is None:
                connection.execute("CREATE ROLE xzepr LOGIN")
            if connection.execute("SELECT FROM pg_database WHERE datname = 'xzepr'").fetchone() is None:
                connection.execute("CREATE DATABASE xzepr OWNER xzepr")
    except psycopg.Error as error:
        raise CannotStart(f"the embedded PostgreSQL does not let xzepr in: {error}") from None
