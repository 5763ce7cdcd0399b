"""Graceful shutdown of a process: no new work begins, running work finishes, and subscribers reconnect elsewhere."""

import asyncio


class Drain:
    """The shutdown signal of this process. Code that serves clients checks or awaits it, then sends them elsewhere."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self.mutations: set[asyncio.Task[object]] = set()
        """Mutations that are running. The process does not stop before they end, even if their clients disconnected."""

    @property
    def begun(self) -> bool:
        """Whether the process is shutting down."""
        return self._begun.is_set()

    def begin(self) -> None:
        """Starts the shutdown. It cannot be reversed."""
        self._begun.set()

    async def wait(self) -> None:
        """Waits until the shutdown starts."""
        await self._begun.wait()
