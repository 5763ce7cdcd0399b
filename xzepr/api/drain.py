"""The end of one process, as its clients meet it: nothing new begins, what runs is finished, who follows leaves."""

import asyncio


class Drain:
    """Whether this process is about to stop. Whatever serves clients asks, or waits, and sends them elsewhere."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self.mutations: set[asyncio.Task[object]] = set()
        """Those that run, also when their callers have gone: the process does not stop before they have ended."""

    @property
    def begun(self) -> bool:
        """Whether the process stops."""
        return self._begun.is_set()

    def begin(self) -> None:
        """The process stops, from now on and for good."""
        self._begun.set()

    async def wait(self) -> None:
        """Returns once the process stops."""
        await self._begun.wait()
