"""SIGINT and SIGTERM for commands that run until they are told to stop."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from threading import Timer

import structlog

_log = structlog.stdlib.get_logger(__name__)


class LastResort:
    """Ends the process, with 0, when it takes too long to end by itself."""

    def __init__(self) -> None:
        self._timer: Timer | None = None

    def within(self, seconds: float) -> None:
        """The process has so many seconds from now, unless `cancel` is called."""
        # A thread, because the loop may be what is stuck. What is acknowledged is committed, and the embedded database
        # stops by itself when its parent has ended.
        self._timer = Timer(seconds, _end_now)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        """It has ended by itself, or is about to."""
        if self._timer is not None:
            self._timer.cancel()


def _end_now() -> None:
    _log.error("stop.too_slow")
    sys.stdout.flush()
    os._exit(0)


class Signals:
    """The first signal ends what it interrupts by cancelling it; or, after `running`, only sets `first`, and another
    one `second`. Whatever is stuck, the process ends `seconds` after the first, with 0, if that is given."""

    def __init__(self, seconds: float | None = None) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self._running = False
        self._seconds = seconds
        self._last_resort = LastResort()

    def running(self) -> None:
        """From now on signals set the events."""
        self._running = True

    @asynccontextmanager
    async def handled(self) -> AsyncGenerator[None]:
        """Handles the signals meanwhile. What was cancelled by one ends quietly."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None, "this runs in a coroutine"
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled, task)
        try:
            yield
        except asyncio.CancelledError:
            if not self.first.is_set():
                raise
            task.uncancel()
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
            self._last_resort.cancel()

    def _signalled(self, task: "asyncio.Task[object]") -> None:
        if self.first.is_set():
            self.second.set()
            return
        self.first.set()
        if self._seconds is not None:
            self._last_resort.within(self._seconds)
        if not self._running:
            task.cancel()
