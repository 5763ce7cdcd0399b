"""uvicorn's server without its signal handlers."""

import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager

import uvicorn


class Server(uvicorn.Server):
    """uvicorn without its signal handlers, which would end the process before the database has stopped."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leaves signals to `StopSignals`."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to listen, then calls `on_ready`."""
        await super().startup(sockets)
        self._on_ready()
