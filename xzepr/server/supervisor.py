"""Several web processes behind one port: what starts them, starts them again, and ends them.

The supervisor holds the address, the embedded database and the keys, and serves nothing itself. Its workers are
programs of their own, started afresh rather than forked: they share the listening socket, and nothing else.
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
from pathlib import Path

import structlog

import xzepr
from xzepr.core.backoff import Backoff
from xzepr.core.errors import CannotStart
from xzepr.features.users.service import Users
from xzepr.infra.crypto import Passwords
from xzepr.infra.db import Database
from xzepr.infra.telemetry.metrics import forget_worker
from xzepr.server import startup
from xzepr.server.signals import StopSignals
from xzepr.server.worker_config import ANSWERS, Handover
from xzepr.settings import Settings

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 30.0
_WELL_SECONDS = 60.0
"""A worker that has answered for so long was well, and what ended it has nothing to do with its start."""
_CLOSING_SECONDS = 10.0
"""What a worker may take to close up after it has drained."""
_HURRIED_SECONDS = 3.0
"""What it may take when nobody is waited for."""
_MEMORY = "/dev/shm"  # noqa: S108 - mkdtemp makes a folder that is ours alone
Spawn = Callable[[socket.socket, int], Awaitable[asyncio.subprocess.Process]]
_log = structlog.stdlib.get_logger(__name__)


async def supervise(settings: Settings) -> None:
    """Serves with `server.workers` processes until a signal ends it."""
    listener = startup.listen(settings.server.host, settings.server.port)
    signals = StopSignals()
    async with signals.handled(), startup.database(settings) as url:
        keys = startup.keys_of(settings)
        with startup.starting():
            await _ensure_admin(settings, url)
        with _metrics_folder() as metrics:

            def handover(worker: int) -> Handover:
                return Handover(worker, settings, url, keys, listener.fileno(), metrics)

            workers = Workers(settings.server.workers, handover, settings.server.shutdown_timeout_seconds)
            signals.running()
            await workers.run(signals, listener, lambda: startup.announce(settings, listener))


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
    # Files that are mapped into memory: on a disk that fills up, writing to them would kill the workers.
    folder = Path(tempfile.mkdtemp(prefix="xzepr-metrics-", dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Workers:
    """The processes that serve. The first start is all or nothing; after it, each that ends is started again."""

    def __init__(
        self, count: int, handover: Callable[[int], Handover], drain_seconds: float, spawn: Spawn | None = None
    ) -> None:
        """`handover` makes what a worker of that number, from 1, is given; `spawn` starts a program with its end of the
        channel as standard input, and the listener's descriptor."""
        self._count = count
        self._handover = handover
        self._spawn = spawn or _spawn
        self._drain_seconds = drain_seconds
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._never_answered = set(range(1, count + 1))
        self._all_answer = asyncio.Event()
        self._ending = asyncio.Event()

    async def run(self, signals: StopSignals, listener: socket.socket, answering: Callable[[], None]) -> None:
        """Runs them until the first signal; `answering` is called once, when all of them answer. Closes the listener.
        Raises CannotStart when one of them ends before that."""
        keepers = [asyncio.create_task(self._keep(number)) for number in range(1, self._count + 1)]
        told = asyncio.create_task(signals.first.wait())
        answer = asyncio.create_task(self._say_when_all_answer(answering))
        try:
            await asyncio.wait({*keepers, told}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            listener.close()  # or whoever comes now would wait for an answer until the last of us has gone
            for task in (told, answer):
                task.cancel()
            await self._end(keepers, signals)
        await asyncio.gather(*keepers)

    async def _say_when_all_answer(self, answering: Callable[[], None]) -> None:
        await self._all_answer.wait()
        answering()

    async def _keep(self, number: int) -> None:
        """Runs one worker, and another in its place whenever it ends, until all are told to end."""
        backoff = Backoff(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
        while True:
            began = time.monotonic()
            pid, code = await self._run(number)
            if self._ending.is_set():
                return
            if not self._all_answer.is_set():
                raise CannotStart(f"worker {number} of {self._count} ended while starting ({_ending_of(code)})")
            lived = time.monotonic() - began
            if lived > _WELL_SECONDS:
                backoff.reset()
            pause = backoff.next()
            _log.error(
                "worker.ended",
                worker=number,
                pid=pid,
                how=_ending_of(code),
                after_seconds=round(lived, 1),
                again_in_seconds=pause,
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._ending.wait()
                    return

    async def _run(self, number: int) -> tuple[int, int]:
        """Starts a worker and waits until it ends; gives its process id and exit code."""
        handover = self._handover(number)
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            with theirs:
                process = await self._spawn(theirs, handover.listener)
            self._running[number] = process
            try:
                if self._ending.is_set():  # it was told to all but this one
                    process.terminate()
                await self._converse(number, ours, handover)
                return process.pid, await process.wait()
            finally:
                del self._running[number]
                forget_worker(handover.metrics, number)

    async def _converse(self, number: int, channel: socket.socket, handover: Handover) -> None:
        """Tells a worker all it has to know, and returns when it answers or has ended."""
        loop = asyncio.get_running_loop()
        with suppress(OSError):  # it has ended, and its exit code says more
            await loop.sock_sendall(channel, handover.packed())
            if await loop.sock_recv(channel, 1) == ANSWERS:
                _log.info("worker.answers", worker=number, pid=self._running[number].pid)
                self._never_answered.discard(number)
                if not self._never_answered:
                    self._all_answer.set()

    async def _end(self, keepers: "list[asyncio.Task[None]]", signals: StopSignals) -> None:
        """Lets all workers drain; after the second signal, or when that takes too long, does not wait for them."""
        self._ending.set()
        self._signal(signal.SIGTERM)
        all_ended = asyncio.create_task(asyncio.wait(keepers))
        hurried = asyncio.create_task(signals.second.wait())
        drained = self._drain_seconds + _CLOSING_SECONDS
        await asyncio.wait({all_ended, hurried}, timeout=drained, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not all_ended.done():
            self._signal(signal.SIGTERM)
            await asyncio.wait({all_ended}, timeout=_HURRIED_SECONDS)
        if not all_ended.done():
            _log.error("workers.killed", workers=sorted(self._running))
            self._signal(signal.SIGKILL)
        await all_ended

    def _signal(self, number: signal.Signals) -> None:
        for process in self._running.values():
            with suppress(ProcessLookupError):
                process.send_signal(number)


async def _spawn(channel: socket.socket, listener: int) -> asyncio.subprocess.Process:
    """In a session of its own, so that Ctrl-C in a terminal reaches the supervisor alone, and the worker through it."""
    # The child finds this very package, wherever it was found, and nothing that lies about in the working folder.
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


def _ending_of(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
