"""The supervisor: starts, restarts and stops the workers that serve on one port.

It owns the address, the embedded database and the keys, and serves no clients. Workers are separate programs rather
than forks, and share only the listening socket (docs/adr/0025-workers-are-programs-that-share-a-socket.md).
"""

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

import xzepr
from xzepr.core.backoff import Backoff
from xzepr.core.errors import CannotStart
from xzepr.features.users.service import Users
from xzepr.infra.crypto import Passwords
from xzepr.infra.db import Database
from xzepr.infra.telemetry.metrics import remove_worker_gauges
from xzepr.server import startup
from xzepr.server.signals import StopSignals
from xzepr.server.worker_config import READY, WorkerConfig
from xzepr.settings import Settings

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 30.0
_STABLE_SECONDS = 60.0  # a worker that lived for longer did not end because of its start
_CLOSE_SECONDS = 10.0  # for a worker to close after it has drained
_FORCED_CLOSE_SECONDS = 3.0  # for a worker to close after the second signal
_MEMORY_FOLDER = "/dev/shm"  # noqa: S108 - mkdtemp creates a private folder in it
Spawn = Callable[[socket.socket, int], Awaitable[asyncio.subprocess.Process]]
_log = structlog.stdlib.get_logger(__name__)


async def supervise(settings: Settings) -> None:
    """Serves with `server.workers` processes until a signal stops it."""
    listener = startup.listen(settings.server.host, settings.server.port)
    signals, listener_fd = StopSignals(), listener.fileno()
    async with (
        signals.handled(),
        spawned_early(settings.server.workers, listener_fd) as early,  # they import while the database starts
        startup.database(settings) as url,
    ):
        keys = startup.signing_keys_of(settings)
        with startup.startup_errors():
            await _ensure_admin(settings, url)
        with _metrics_folder() as metrics_folder:

            def config_of(worker: int) -> WorkerConfig:
                return WorkerConfig(
                    worker=worker,
                    settings=settings,
                    database_url=url,
                    keys=keys,
                    listener_fd=listener_fd,
                    metrics_folder=metrics_folder,
                )

            workers = Workers(settings.server.workers, config_of, settings.server.shutdown_timeout_seconds, early=early)
            signals.running()
            await workers.run(signals, listener, lambda: startup.print_banner(settings, listener))


@dataclass(frozen=True, slots=True)
class SpawnedWorker:
    """A worker that waits for its configuration, and this end of its channel."""

    process: asyncio.subprocess.Process
    channel: socket.socket


@asynccontextmanager
async def spawned_early(count: int, listener_fd: int) -> AsyncGenerator[list[SpawnedWorker]]:
    """Spawns workers while the block begins. Kills those that are still in the list at its end."""
    spawned: list[SpawnedWorker] = []
    try:
        while len(spawned) < count:
            spawned.append(await _spawn_with_channel(_spawn, listener_fd))
        yield spawned
    finally:
        for worker in spawned:  # they have no configuration, and so nothing to end
            with suppress(ProcessLookupError):
                worker.process.kill()
            await worker.process.wait()
            worker.channel.close()


async def _spawn_with_channel(spawn: Spawn, listener_fd: int) -> SpawnedWorker:
    parent_end, child_end = socket.socketpair()
    try:
        parent_end.setblocking(False)
        with child_end:
            return SpawnedWorker(await spawn(child_end, listener_fd), parent_end)
    except BaseException:
        parent_end.close()
        raise


async def _ensure_admin(settings: Settings, url: str) -> None:
    async with _users(settings, url) as users:
        await startup.ensure_admin(users, settings)


@asynccontextmanager
async def _users(settings: Settings, url: str) -> AsyncGenerator[Users]:
    passwords, db = Passwords(), Database(url, settings.database, name="supervisor")
    try:
        await db.open()
        yield Users(db, passwords, min_password=settings.auth.password_min_length)
    finally:
        await db.close()
        passwords.close()


@contextmanager
def _metrics_folder() -> Generator[Path]:
    # The files are mapped into memory. On a full disk writing to them would kill the workers.
    folder = Path(
        tempfile.mkdtemp(prefix="xzepr-metrics-", dir=_MEMORY_FOLDER if os.access(_MEMORY_FOLDER, os.W_OK) else None)
    )
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Workers:
    """The workers. All of them must start at first; after that, each one that ends is restarted."""

    def __init__(
        self,
        count: int,
        config_of: Callable[[int], WorkerConfig],
        drain_seconds: float,
        spawn: Spawn | None = None,
        *,
        early: list[SpawnedWorker] | None = None,
    ) -> None:
        """`config_of` returns the configuration of a worker by its number, from 1.

        `spawn` starts a program with its end of the channel as standard input and the listener's file descriptor.
        Workers that were spawned early are taken from the list `early` first.
        """
        self._count = count
        self._config_of = config_of
        self._spawn = spawn or _spawn
        self._drain_seconds = drain_seconds
        self._early = [] if early is None else early
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._starting = set(range(1, count + 1))
        self._all_ready = asyncio.Event()
        self._is_stopping = asyncio.Event()

    async def run(self, signals: StopSignals, listener: socket.socket, on_ready: Callable[[], None]) -> None:
        """Runs the workers until the first signal, and closes the listener.

        `on_ready` is called once, when all workers accept connections. Raises CannotStart if one ends before that.
        """
        keepers = [asyncio.create_task(self._keep_running(number)) for number in range(1, self._count + 1)]
        first_signal = asyncio.create_task(signals.first.wait())
        ready = asyncio.create_task(self._report_ready(on_ready))
        try:
            await asyncio.wait({*keepers, first_signal}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            listener.close()  # or new clients would wait until the last worker has ended
            for task in (first_signal, ready):
                task.cancel()
            await self._stop(keepers, signals)
        await asyncio.gather(*keepers)

    async def _report_ready(self, on_ready: Callable[[], None]) -> None:
        await self._all_ready.wait()
        on_ready()

    async def _keep_running(self, number: int) -> None:
        """Runs one worker and restarts it whenever it ends, until the supervisor stops."""
        backoff = Backoff(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
        while True:
            began = time.monotonic()
            pid, code = await self._run(number)
            if self._is_stopping.is_set():
                return
            if not self._all_ready.is_set():
                raise CannotStart(f"worker {number} of {self._count} ended while starting ({_describe_exit(code)})")
            lived_seconds = time.monotonic() - began
            if lived_seconds > _STABLE_SECONDS:
                backoff.reset()
            pause = backoff.next()
            _log.error(
                "worker.ended",
                worker=number,
                pid=pid,
                how=_describe_exit(code),
                after_seconds=round(lived_seconds, 1),
                again_in_seconds=pause,
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._is_stopping.wait()
                    return

    async def _run(self, number: int) -> tuple[int, int]:
        """Runs a worker until it ends; returns its process id and exit code."""
        config = self._config_of(number)
        worker = self._early.pop() if self._early else await _spawn_with_channel(self._spawn, config.listener_fd)
        process = worker.process
        with worker.channel:
            self._running[number] = process
            try:
                if self._is_stopping.is_set():  # the other workers got the signal before this one ran
                    process.terminate()
                await self._configure(number, worker.channel, config)
                return process.pid, await process.wait()
            finally:
                del self._running[number]
                remove_worker_gauges(config.metrics_folder, number)

    async def _configure(self, number: int, channel: socket.socket, config: WorkerConfig) -> None:
        """Sends a worker its configuration; returns once it accepts connections or has ended."""
        loop = asyncio.get_running_loop()
        with suppress(OSError):  # the worker has ended; its exit code is reported
            await loop.sock_sendall(channel, config.pickled())
            if await loop.sock_recv(channel, 1) == READY:
                _log.info("worker.answers", worker=number, pid=self._running[number].pid)
                self._starting.discard(number)
                if not self._starting:
                    self._all_ready.set()

    async def _stop(self, keepers: "list[asyncio.Task[None]]", signals: StopSignals) -> None:
        """Drains all workers; kills them after the second signal, or if they take too long."""
        self._is_stopping.set()
        self._signal(signal.SIGTERM)
        all_ended = asyncio.create_task(asyncio.wait(keepers))
        second_signal = asyncio.create_task(signals.second.wait())
        drain_timeout = self._drain_seconds + _CLOSE_SECONDS
        await asyncio.wait({all_ended, second_signal}, timeout=drain_timeout, return_when=asyncio.FIRST_COMPLETED)
        second_signal.cancel()
        if not all_ended.done():
            self._signal(signal.SIGTERM)
            await asyncio.wait({all_ended}, timeout=_FORCED_CLOSE_SECONDS)
        if not all_ended.done():
            _log.error("workers.killed", workers=sorted(self._running))
            self._signal(signal.SIGKILL)
        await all_ended

    def _signal(self, number: signal.Signals) -> None:
        for process in self._running.values():
            with suppress(ProcessLookupError):
                process.send_signal(number)


async def _spawn(channel: socket.socket, listener: int) -> asyncio.subprocess.Process:
    """Starts a worker in a new session, so that Ctrl-C in a terminal reaches the supervisor only."""
    # The child imports this very package, and nothing from the working folder.
    path = [str(Path(xzepr.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "xzepr.server.worker",
        stdin=channel.fileno(),
        pass_fds=(listener,),
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
    )


def _describe_exit(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
