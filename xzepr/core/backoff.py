"""Exponential back-off for repeated attempts."""

import random

_RANDOM = random.SystemRandom()


class Backoff:
    """Exponential back-off: each pause is twice as long as the one before, up to a limit.

    With `jitter`, that fraction of each pause is random, so that several processes do not retry at the same moment.
    """

    def __init__(self, first: float, longest: float, *, jitter: float = 0.0) -> None:
        """Both figures are in seconds. With a jitter of 0.5, a pause lasts between half of its length and all of it."""
        self._first = first
        self._longest = longest
        self._jitter = jitter
        self._seconds = first

    def next(self) -> float:
        """Returns the seconds to pause before the next try."""
        seconds = self._seconds
        self._seconds = min(seconds * 2, self._longest)
        return seconds * _RANDOM.uniform(1 - self._jitter, 1) if self._jitter else seconds

    def reset(self) -> None:
        """Starts again with the first pause, after a success."""
        self._seconds = self._first

    async def sleep(self) -> None:
        """Pauses."""
        import asyncio  # synchronous commands use the rest of this class, and start faster without it

        await asyncio.sleep(self.next())
