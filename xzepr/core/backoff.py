"""Waiting before the next try, for longer each time."""

import asyncio
import random


class Backoff:
    """Sleeps for longer each time, from 0.2 to 10 seconds, never for exactly as long as another process does."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()
        self._seconds = 0.2

    async def __call__(self) -> None:
        """Sleeps."""
        await asyncio.sleep(self._seconds * self._random.uniform(0.5, 1.0))
        self._seconds = min(self._seconds * 2, 10.0)

    def reset(self) -> None:
        """Starts from the short end again."""
        self._seconds = 0.2
