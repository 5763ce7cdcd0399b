"""How late this process was woken: what a machine that stands still takes from every process alike."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

_TICK_SECONDS = 0.05


@dataclass(slots=True)
class Lateness:
    """Seconds, added up."""

    seconds: float = 0.0


@asynccontextmanager
async def lateness() -> AsyncGenerator[Lateness]:
    """Adds up how late the loop is meanwhile. A promise in seconds is kept by who takes no longer than that and this;
    block the loop with nothing of your own."""
    late = Lateness()

    async def tick() -> None:
        while True:
            due = time.monotonic() + _TICK_SECONDS
            await asyncio.sleep(_TICK_SECONDS)
            late.seconds += time.monotonic() - due

    ticking = asyncio.create_task(tick())
    try:
        yield late
    finally:
        ticking.cancel()
