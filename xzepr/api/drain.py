"""Graceful shutdown of a process: no new work begins, running work finishes, and subscribers reconnect elsewhere."""

import asyncio
from collections.abc import Callable

from xzepr.api.request_head import Head


class Drain:
    """The shutdown signal of this process. Code that serves clients checks or awaits it, then sends them elsewhere."""

    def __init__(self) -> None:
        self.begun = False
        """Whether the process is shutting down."""
        self._event = asyncio.Event()
        self.mutations: set[asyncio.Task[object]] = set()
        """Mutations that are running. The process does not stop before they end, even if their clients disconnected."""
        self.listeners: set[Callable[[], None]] = set()
        """Called when the shutdown starts."""

    def begin(self) -> None:
        """Starts the shutdown. It cannot be reversed."""
        self.begun = True
        self._event.set()
        for listener in [*self.listeners]:
            listener()

    async def wait(self) -> None:
        """Waits until the shutdown starts."""
        await self._event.wait()

    def close_connection(self, _head: Head, headers: list[tuple[bytes, bytes]]) -> None:
        """Adds `Connection: close` to a response once the shutdown has started: the client connects to another process.

        The shell calls it for each response.
        """
        if self.begun:
            headers[:] = [header for header in headers if header[0] != b"connection"]
            headers.append((b"connection", b"close"))
