"""A durable PostgreSQL that a test can stop, crash or kill and start again with the same data."""

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import pq

from xzepr.infra.embedded.account import can_end_with_parent, choose_account, clean_environment
from xzepr.infra.embedded.binaries import find_binaries
from xzepr.infra.embedded.cluster import OWNER, SUPERUSER, prepare_cluster
from xzepr.infra.embedded.folder import make_folder, make_socket_folder
from xzepr.infra.migrate import migrate

_SETTINGS = {"max_connections": "100", "shared_buffers": "64MB", "log_line_prefix": "%m [%p] "}
_STOP_SECONDS = 20.0


class DatabaseServer:
    """A PostgreSQL with its own folder, reachable by its Unix socket only. Durable: fsync is on."""

    def __init__(
        self, folder: Path, *, settings: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        """`settings` are PostgreSQL's, `environ` is added to its environment. A test may change both before a start."""
        self.folder = make_folder(folder)
        self.cluster = self.folder / "postgres"
        self.settings = {**_SETTINGS, **(settings or {})}
        self.environ = dict(environ or {})
        self._account = choose_account(self.folder, self.cluster)
        if self._account.switch:  # PostgreSQL's account must reach the cluster, and writes only there
            self.folder.chmod(0o755)
        self.binaries = find_binaries(self._account, self.folder)
        prepare_cluster(self._account, self.binaries, self.cluster)
        self._sockets = make_socket_folder(self._account, self.folder)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of the hub's database for its owner, which is no superuser."""
        return self.url_of(OWNER, OWNER)

    @property
    def admin_url(self) -> str:
        """The URL of the hub's database for the superuser."""
        return self.url_of(SUPERUSER, OWNER)

    def url_of(self, user: str, database: str) -> str:
        """Returns the URL of a database for a role."""
        return f"postgresql://{user}@/{database}?host={quote(str(self._sockets), safe='')}&port=5432"

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        assert self._process is not None, "PostgreSQL is not running"
        return self._process.pid

    @property
    def log(self) -> str:
        """The server log so far."""
        path = self.folder / "postgres.log"
        return path.read_text(errors="replace") if path.exists() else ""

    async def start(self, seconds: float = 60) -> None:
        """Starts PostgreSQL and waits until it answers.

        Tries again if processes of a killed server still have to end.
        """
        end = time.monotonic() + seconds
        while True:
            self._process = self._spawn()
            if await self._accepts_connections(self._process, end):
                return
            assert time.monotonic() < end, "PostgreSQL did not start:\n" + self.log[-1000:]
            await asyncio.sleep(0.1)

    def _spawn(self) -> "subprocess.Popen[bytes]":
        options = [f"--{name}={value}" for name, value in self.settings.items()]
        arguments = ["-D", str(self.cluster), "-h", "", "-k", str(self._sockets), *options]
        # Through `env`, so that PostgreSQL's variables do not affect the program that starts it as root.
        variables = [f"{name}={value}" for name, value in self.environ.items()]
        postgres = str(self.binaries / "postgres")
        with (self.folder / "postgres.log").open("ab") as log:
            return subprocess.Popen(
                self._account.command(
                    Path("/usr/bin/env"), *variables, postgres, *arguments, end_with_parent=can_end_with_parent()
                ),
                cwd="/",
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def _accepts_connections(self, process: "subprocess.Popen[bytes]", end: float) -> bool:
        """Waits until PostgreSQL accepts connections. Returns False if it ends first or takes too long."""
        conninfo = self.url_of(SUPERUSER, "postgres").encode()
        while await asyncio.to_thread(pq.PGconn.ping, conninfo) != pq.Ping.OK:
            if process.poll() is not None or time.monotonic() > end:
                return False
            await asyncio.sleep(0.05)
        return True

    async def prepare(self) -> None:
        """Creates the hub's role and its empty database on a new server."""
        async with await psycopg.AsyncConnection.connect(
            self.url_of(SUPERUSER, "postgres"), autocommit=True
        ) as connection:
            await connection.execute("CREATE ROLE xzepr LOGIN")
            await connection.execute("CREATE DATABASE xzepr OWNER xzepr")

    async def migrate(self) -> None:
        """Migrates the hub's database to the current schema."""
        await asyncio.to_thread(migrate, self.url, report=lambda _: None)

    async def stop(self) -> None:
        """Fast shutdown: ends every session and writes a checkpoint."""
        await self._end(signal.SIGINT)

    async def crash(self) -> None:
        """Immediate shutdown: all processes end at once, and the next start recovers from the write-ahead log."""
        await self._end(signal.SIGQUIT)

    async def kill(self) -> None:
        """Kills the postmaster with SIGKILL. Its other processes end when they notice."""
        await self._end(signal.SIGKILL)

    async def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(how)
        try:
            await asyncio.to_thread(process.wait, _STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    async def execute(self, statement: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """Runs a statement as the superuser in the hub's database. Returns its rows, if any."""
        async with await psycopg.AsyncConnection.connect(self.admin_url, autocommit=True) as connection:
            cursor = await connection.execute(statement.encode(), values)
            return await cursor.fetchall() if cursor.description else []


@asynccontextmanager
async def database_server(
    folder: Path,
    *,
    settings: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    migrated: bool = True,
) -> AsyncGenerator[DatabaseServer]:
    """A running server with the hub's database, empty unless `migrated`. It is shut down at the end."""
    server = await asyncio.to_thread(DatabaseServer, folder, settings=settings, environ=environ)
    try:
        await server.start()
        await server.prepare()
        if migrated:
            await server.migrate()
        yield server
    finally:
        await server.crash()
