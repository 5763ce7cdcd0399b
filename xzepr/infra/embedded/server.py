"""The embedded PostgreSQL, a child process of the hub: its start, restart and stop."""

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
from xzepr.infra.embedded.account import (
    Account,
    can_end_with_parent,
    choose_account,
    clean_environment,
    forget_libpq_variables,
)
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
from xzepr.infra.embedded.memory import shared_buffers

_FAST_STOP_TIMEOUT_SECONDS = 20.0  # of PostgreSQL's fast shutdown; then follows an immediate one
_FIRST_REPORT_SECONDS = 3.0  # until a slow start is reported
_REPORT_SECONDS = 10.0  # between further reports
_CHECK_SECONDS = 0.25  # between checks whether the process still runs, and before a restart
_MAX_RESTART_SECONDS = 5.0  # before a restart, after several failures
_SETTINGS = {"log_checkpoints": "off", "log_line_prefix": "%m [%p] "}


@dataclass(slots=True)
class EmbeddedPostgres:
    """A running PostgreSQL in the data folder, reachable through a private Unix socket."""

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
        """Creates the cluster if there is none, starts PostgreSQL, and waits until it accepts connections.

        There is no time limit, because recovery may take long; `report` gets messages about it. Call it from the main
        thread, so that on Linux PostgreSQL ends if this process is killed. Variables of libpq, such as PGSERVICE, are
        removed from the environment: they concern other databases. `settings` are PostgreSQL's, by name. Raises
        CannotStart with a message for the operator.
        """
        forget_libpq_variables()
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
        """The `postgresql://` URL of the hub's database. The hub's account needs no password."""
        return self.url_of(OWNER, OWNER)

    def url_of(self, user: str, database: str) -> str:
        """Returns the URL of a database of the cluster for one of its roles. The superuser is `postgres`."""
        return _url(str(self._sockets), user, database)

    async def stop(self) -> None:
        """Shuts PostgreSQL down, which ends all connections, and unlocks the data folder. May be called twice."""
        if self._process is not None:
            await asyncio.to_thread(_stop_process, self._process)
            self._process = None
        if self._sockets is not None:
            remove_socket_folder(self._sockets, self.data_dir)
            self._sockets = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    async def keep_running(self, report: Callable[[str], None]) -> None:
        """Restarts PostgreSQL with the same URL whenever it ends unexpectedly, until this is cancelled."""
        backoff = Backoff(_CHECK_SECONDS, _MAX_RESTART_SECONDS)
        while True:
            await backoff.sleep()
            if self._process is None or self._binaries is None or self._process.poll() is None:
                backoff.reset()
                continue
            log = self.data_dir / "postgres.log"
            report(f"The database ended (exit code {self._process.returncode}); starting it again. See {log}.")
            self._process = self._spawn(self._binaries / "postgres", self.data_dir / "postgres")
            try:
                await self._wait_until_ready(self._process, report)
            except CannotStart as error:
                report(str(error))
            else:
                backoff.reset()

    async def _open(self, report: Callable[[str], None]) -> None:
        cluster = self.data_dir / "postgres"
        grant_access(self._account, self.data_dir)
        binaries = await asyncio.to_thread(find_binaries, self._account, self.data_dir)
        await stop_leftover(cluster, report)
        durable = self._settings.get("fsync") != "off"
        await asyncio.to_thread(prepare_cluster, self._account, binaries, cluster, durable=durable)
        self._sockets = make_socket_folder(self._account, self.data_dir)
        self._binaries = binaries
        self._process = self._spawn(binaries / "postgres", cluster)
        await self._wait_until_ready(self._process, report)
        await asyncio.to_thread(_ensure_database, self.url_of(SUPERUSER, "postgres"))

    def _spawn(self, postgres: Path, cluster: Path) -> "subprocess.Popen[bytes]":
        """Starts PostgreSQL in a new session: Ctrl-C in a terminal must reach only the hub, which then stops it."""
        settings = {**_SETTINGS, "shared_buffers": shared_buffers(), **self._settings}
        options = [f"--{name}={value}" for name, value in settings.items()]
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

    async def _wait_until_ready(self, process: "subprocess.Popen[bytes]", report: Callable[[str], None]) -> None:
        """Waits until PostgreSQL accepts connections, without a limit: recovery after a crash may take minutes."""
        conninfo = self.url_of(SUPERUSER, "postgres").encode()
        started = time.monotonic()
        next_report = started + _FIRST_REPORT_SECONDS
        pause = 0.02
        while await asyncio.to_thread(pq.PGconn.ping, conninfo) != pq.Ping.OK:
            if process.poll() is not None:
                raise CannotStart(f"the embedded PostgreSQL ended while starting:\n{log_tail(self.data_dir)}")
            if time.monotonic() >= next_report:
                waited = time.monotonic() - started
                report(f"waiting for the database to recover ({waited:.0f} s so far; see {self.data_dir}/postgres.log)")
                next_report += _REPORT_SECONDS
            await asyncio.sleep(pause)
            pause = min(pause * 1.2, 0.25)  # each rejected attempt is a line in PostgreSQL's log


def running_url(data_dir: Path) -> str | None:
    """Returns the URL of the database that another process runs in the data folder; None if none runs.

    The database may still be starting. Removes variables of libpq from the environment, as `start` does. Raises
    CannotStart if the folder belongs to another user.
    """
    forget_libpq_variables()
    folder = running_socket_folder(data_dir)
    return None if folder is None else _url(str(folder), OWNER, OWNER)


def _url(sockets: str, user: str, database: str) -> str:
    return f"postgresql://{user}@/{quote(database, safe='')}?host={quote(sockets, safe='')}&port=5432"


def _stop_process(process: "subprocess.Popen[bytes]") -> None:
    for sign, seconds in ((signal.SIGINT, _FAST_STOP_TIMEOUT_SECONDS), (signal.SIGQUIT, None)):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.send_signal(sign)  # Popen sends no signal to a process that it has reaped
            process.wait(seconds)
            return


def _ensure_database(url: str) -> None:
    """Creates the hub's role and database if they are missing: an earlier start may have been killed."""
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            if connection.execute("SELECT FROM pg_roles WHERE rolname = 'xzepr'").fetchone() is None:
                connection.execute("CREATE ROLE xzepr LOGIN")
            if connection.execute("SELECT FROM pg_database WHERE datname = 'xzepr'").fetchone() is None:
                connection.execute("CREATE DATABASE xzepr OWNER xzepr")
    except psycopg.Error as error:
        raise CannotStart(f"xzepr cannot connect to the embedded PostgreSQL: {error}") from None
