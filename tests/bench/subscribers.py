"""Subscribers in one separate process that count frames without parsing them. They need Linux."""

import multiprocessing
import select
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.bench.load import LoadError
from tests.support.many_subscribers import frame, subscriber

MARK = b'"EventRecorded"'  # occurs once in each frame
_TIMEOUT_SECONDS = 60.0
_PONG_SECONDS = 4.0
_CHUNK = 1 << 18


class Subscribers:
    """The other end of the pipe to the subscribers' process."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def wait_for(self, frames: int) -> None:
        """Waits until all subscribers together have received a number of frames. Raises LoadError after a minute."""
        if self._ask("wait", frames) < frames:
            raise LoadError(f"{self.frames()} of {frames} frames arrived in {_TIMEOUT_SECONDS:g} s")

    def frames(self) -> int:
        """Returns the number of frames that all subscribers have received."""
        return int(self._ask("frames", 0))

    def cpu_seconds(self) -> float:
        """Returns the processor time of their process."""
        return self._ask("cpu", 0)

    def _ask(self, command: str, value: int) -> float:
        self._pipe.send((command, value))
        return self._pipe.recv()


@contextmanager
def subscribers(port: int, token: str, count: int) -> Generator[Subscribers]:
    """Runs `count` subscribers that start at the end of the stream. All have subscribed when the block begins."""
    context = multiprocessing.get_context("spawn")
    parent, child = context.Pipe()
    process = context.Process(target=_run, args=(child, port, token, count), daemon=True)
    process.start()
    child.close()
    try:
        if parent.recv() != count:
            raise LoadError("the subscribers have not connected")
        yield Subscribers(parent)
    finally:
        process.terminate()
        process.join()


def _run(pipe: Any, port: int, token: str, count: int) -> None:
    counter = _Counter([subscriber(port, token, None) for _ in range(count)])
    pipe.send(count)
    while True:
        if not pipe.poll():
            counter.receive(0.02)
            continue
        command, value = pipe.recv()
        if command == "wait":
            counter.receive_until(value)
        pipe.send(time.process_time() if command == "cpu" else counter.frames)


@dataclass(slots=True)
class _Counter:
    """Counts the frames of all sockets."""

    sockets: list[socket.socket]
    frames: int = 0
    _poll: select.epoll = field(default_factory=select.epoll)
    _by_number: dict[int, socket.socket] = field(default_factory=dict[int, socket.socket])
    _tails: dict[int, bytes] = field(default_factory=dict[int, bytes])
    """The end of what a socket received last, which may be the start of a mark."""
    _ponged_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        for connection in self.sockets:
            self._by_number[connection.fileno()] = connection
            self._tails[connection.fileno()] = b""
            self._poll.register(connection, select.EPOLLIN)

    def receive_until(self, frames: int) -> None:
        """Reads until a number of frames have arrived, or for a minute."""
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while self.frames < frames and time.monotonic() < deadline:
            self.receive(0.1)

    def receive(self, timeout_seconds: float) -> None:
        """Reads what has arrived, and answers pings before they time out."""
        for number, _ in self._poll.poll(timeout_seconds):
            chunk = self._by_number[number].recv(_CHUNK)
            if not chunk:
                raise LoadError("a subscriber's connection was closed")
            received = self._tails[number] + chunk
            self.frames += received.count(MARK)
            self._tails[number] = received[1 - len(MARK) :]
        if time.monotonic() - self._ponged_at > _PONG_SECONDS:
            self._ponged_at = time.monotonic()
            for connection in self.sockets:
                connection.sendall(frame({"type": "pong"}))
