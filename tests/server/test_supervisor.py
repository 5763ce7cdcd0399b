"""The supervisor of workers, tested with shell scripts in their place."""

import asyncio
import itertools
import socket
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.accounts import key_pair
from tests.support.hub import until
from xzepr.core.errors import CannotStart
from xzepr.server.signals import StopSignals
from xzepr.server.supervisor import Spawn, SpawnedWorker, Workers, spawned_early
from xzepr.server.worker_config import WorkerConfig, receive_config
from xzepr.settings import Settings

ANSWER = "dd bs=65536 count=1 of=/dev/null 2>&1; printf + >&0; "  # reads its config and reports that it answers
SECONDS = 20


@pytest.fixture
def listener() -> Generator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def spawning(script: str, started: list[float]) -> Spawn:
    """Returns a function that starts a shell script as a worker and notes the time of each start."""

    async def spawn(channel: socket.socket, listener: int) -> asyncio.subprocess.Process:
        started.append(time.monotonic())
        return await asyncio.create_subprocess_exec("/bin/sh", "-c", script, stdin=channel.fileno())

    return spawn


def config_of(number: int, folder: Path) -> WorkerConfig:
    return WorkerConfig(
        worker=number,
        settings=Settings(),
        database_url="postgresql://u:secret@h/d",
        keys=key_pair(),
        listener_fd=7,
        metrics_folder=folder,
    )


def workers(count: int, folder: Path, spawn: Spawn, drain_seconds: float = 5) -> Workers:
    return Workers(count, lambda number: config_of(number, folder), drain_seconds, spawn)


async def test_failing_worker_restarts_at_growing_intervals(tmp_path: Path, listener: socket.socket) -> None:
    started: list[float] = []
    signals = StopSignals()
    failing = workers(1, tmp_path, spawning(ANSWER + "exit 3", started))
    running = asyncio.create_task(failing.run(signals, listener, lambda: None))
    await until(lambda: len(started) >= 5)
    signals.first.set()
    async with asyncio.timeout(SECONDS):
        await running
    pauses = [later - earlier for earlier, later in itertools.pairwise(started)]
    for pause, least in zip(pauses, (0.1, 0.2, 0.4, 0.8), strict=False):
        assert pause >= least


async def test_ready_is_reported_once_after_all_workers_answer(tmp_path: Path, listener: socket.socket) -> None:
    reported: list[float] = []
    signals, started = StopSignals(), list[float]()
    may_end = tmp_path / "may-end"
    script = f"sleep 0.3; {ANSWER} until [ -e {may_end} ]; do sleep 0.05; done; exit 1"
    slow = workers(3, tmp_path, spawning(script, started))
    running = asyncio.create_task(slow.run(signals, listener, lambda: reported.append(time.monotonic())))
    await until(lambda: bool(reported))
    assert len(started) == 3
    may_end.touch()
    await until(lambda: len(started) >= 9)  # all were restarted and answered again
    signals.first.set()
    async with asyncio.timeout(SECONDS):
        await running
    assert len(reported) == 1
    assert reported[0] - started[2] >= 0.3


async def test_worker_exit_during_start_fails_the_start(tmp_path: Path, listener: socket.socket) -> None:
    reported: list[str] = []
    failing = workers(2, tmp_path, spawning("exit 3", []))
    async with asyncio.timeout(SECONDS):
        with pytest.raises(CannotStart, match=r"worker [12] of 2 ended while starting \(exit code 3\)"):
            await failing.run(StopSignals(), listener, lambda: reported.append("answers"))
    assert not reported
    assert listener.fileno() == -1, "the listener must be closed"


async def test_second_signal_kills_workers_at_once(tmp_path: Path, listener: socket.socket) -> None:
    signals, answering = StopSignals(), asyncio.Event()
    script = f"trap '' TERM; {ANSWER} while :; do sleep 0.1; done"
    ignoring_sigterm = workers(1, tmp_path, spawning(script, []), drain_seconds=60)
    running = asyncio.create_task(ignoring_sigterm.run(signals, listener, answering.set))
    async with asyncio.timeout(SECONDS):
        await answering.wait()
        signals.first.set()
        await asyncio.sleep(0.5)
        assert not running.done(), "the supervisor must wait for the worker"
        began = time.monotonic()
        signals.second.set()
        await running
    assert time.monotonic() - began < 5


async def test_worker_config_arrives_complete(tmp_path: Path) -> None:
    parent, child = socket.socketpair()
    config = config_of(2, tmp_path)
    with parent, child:
        parent.sendall(config.pickled())
        assert receive_config(child) == config
    assert "secret" not in repr(config)
    assert "PRIVATE KEY" not in repr(config)


def test_worker_without_supervisor_names_the_command() -> None:
    parent, child = socket.socketpair()
    with child:
        parent.close()
        with pytest.raises(CannotStart, match="xzepr serve --workers"):
            receive_config(child)


async def test_early_workers_serve_before_others_are_spawned(tmp_path: Path, listener: socket.socket) -> None:
    started: list[float] = []
    spawn = spawning(ANSWER + "sleep 60", started)
    early: list[SpawnedWorker] = []
    for _ in range(2):
        parent_end, child_end = socket.socketpair()
        parent_end.setblocking(False)
        with child_end:
            early.append(SpawnedWorker(await spawn(child_end, listener.fileno()), parent_end))
    signals, answering = StopSignals(), asyncio.Event()
    supervisor = Workers(2, lambda number: config_of(number, tmp_path), 5, spawn, early=early)
    running = asyncio.create_task(supervisor.run(signals, listener, answering.set))
    await asyncio.wait_for(answering.wait(), SECONDS)
    assert len(started) == 2
    assert not early
    signals.first.set()
    await asyncio.wait_for(running, SECONDS)


async def test_unused_early_workers_are_killed(listener: socket.socket) -> None:
    async with spawned_early(2, listener.fileno()) as early:
        used = early.pop()
        [unused] = early
        assert unused.process.returncode is None
    assert unused.process.returncode == -9
    assert used.process.returncode is None
    used.channel.close()
    assert await asyncio.wait_for(used.process.wait(), SECONDS) == 1, "its supervisor has ended"
