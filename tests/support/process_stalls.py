"""Measures how late this process wakes up, because a stall of the machine delays every process."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

_TICK_SECONDS = 0.05


@dataclass(slots=True)
class Stalls:
    """The sum of all delays in seconds."""

    seconds: float = 0.0


@asynccontextmanager
async def measured_stalls() -> AsyncGenerator[Stalls]:
    """Measures the delays of the loop while the block runs. A test allows a process its time limit plus these.

    The block itself must not block the loop.
    """
    stalls = Stalls()

    async def tick() -> None:
        while True:
            due = time.monotonic() + _TICK_SECONDS
            await asyncio.sleep(_TICK_SECONDS)
            stalls.seconds += time.monotonic() - due

    ticking = asyncio.create_task(tick())
    try:
        yield stalls
    finally:
        ticking.cancel()
