"""SIGINT and SIGTERM for commands that run until a signal stops them."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from threading import Timer

import structlog

_log = structlog.stdlib.get_logger(__name__)


class StopSignals:
    """Turns signals into an orderly stop.

    The first signal sets `first`, and every later one sets `second`, which means "wait for no client". Before `running`
    is called, the first signal also cancels the block of `handled`. With a time limit, the process ends that long after
    the first signal, with exit code 0, whatever is stuck.
    """

    def __init__(self, timeout_seconds: float | None = None) -> None:
        """`timeout_seconds` limits the stop; None sets no limit."""
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self._timeout_seconds = timeout_seconds
        self._is_running = False
        self._on_first: Callable[[], None] = _nothing
        self._on_second: Callable[[], None] = _nothing
        self._deadline = _Deadline()

    def running(self, on_first: Callable[[], None] | None = None, on_second: Callable[[], None] | None = None) -> None:
        """Makes signals call these functions from now on, instead of cancelling the block."""
        self._is_running = True
        self._on_first, self._on_second = on_first or _nothing, on_second or _nothing

    @asynccontextmanager
    async def handled(self) -> AsyncGenerator[None]:
        """Handles signals while the block runs. A block that a signal cancels ends without an error."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None, "this runs in a coroutine"
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled, task)
        is_interrupted = False
        try:
            yield
        except asyncio.CancelledError:
            if not self.first.is_set():
                raise
            task.uncancel()
            is_interrupted = True
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
            if not is_interrupted:  # else a thread may still run, for which the event loop waits when it closes
                self._deadline.cancel()

    def _signalled(self, task: "asyncio.Task[object]") -> None:
        if self.first.is_set():
            self.second.set()
            self._on_second()
            return
        self.first.set()
        if self._timeout_seconds is not None:
            self._deadline.start(self._timeout_seconds)
        if self._is_running:
            self._on_first()
        else:
            task.cancel()


def _nothing() -> None:
    pass


class _Deadline:
    """Ends the process when it takes too long to end by itself."""

    def __init__(self) -> None:
        self._timer: Timer | None = None

    def start(self, seconds: float) -> None:
        """Ends the process after `seconds`, unless `cancel` is called before."""
        # A thread, because the event loop may be stuck. Acknowledged events are committed, and the embedded database
        # stops by itself when its parent process has ended.
        self._timer = Timer(seconds, _end_now)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        """Lets the process end by itself."""
        if self._timer is not None:
            self._timer.cancel()


def _end_now() -> None:
    _log.error("stop.too_slow")
    sys.stdout.flush()
    os._exit(0)
