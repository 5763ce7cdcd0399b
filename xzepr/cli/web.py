"""One web process: uvicorn around the application, and how signals end it."""

import asyncio
import gc
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.applications import Starlette

from xzepr import __version__
from xzepr.app import create_app
from xzepr.cli.protocols import HttpConnection, WebSocketConnection
from xzepr.hub import Hub
from xzepr.infra.telemetry import traces
from xzepr.settings import Settings

_BACKLOG = 2048


async def serve_until(stop: "Stop", hub: Hub, listener: socket.socket, listening: Callable[[], None]) -> None:
    """Serves the hub on a bound socket until `stop` is signalled; `listening` is called once it answers."""
    settings = hub.settings
    app = create_app(hub)
    end_tracing = _trace(app, settings)
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        http=HttpConnection,
        ws=WebSocketConnection,
        ws_max_size=settings.stream.max_frame_bytes,
        ws_ping_interval=None,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=round(settings.server.shutdown_timeout_seconds),
    )
    server = _Server(config, listening)
    stop.server = server
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        await server.serve(sockets=[listener])
    finally:
        await asyncio.to_thread(end_tracing)


def _trace(app: Starlette, settings: Settings) -> Callable[[], None]:
    telemetry = settings.telemetry
    if not telemetry.tracing_enabled:
        return lambda: None
    return traces.instrument(
        app,
        service_name=telemetry.service_name,
        version=__version__,
        otlp_endpoint=telemetry.otlp_endpoint,
    )


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers, which would end the process before the database is stopped."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Signals are `Stop`'s."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Says that it listens, once it does."""
        await super().startup(sockets)
        self._listening()


class Stop:
    """SIGINT and SIGTERM: end what starts, let what serves finish; the second one waits for nobody."""

    def __init__(self) -> None:
        self.server: _Server | None = None

    @asynccontextmanager
    async def on_signals(self) -> AsyncGenerator[None]:
        """Handles the signals meanwhile. A start that was ended ends quietly."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None, "this runs in a coroutine"
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled, task)
        try:
            yield
        except asyncio.CancelledError:
            if task.uncancel() > 0:
                raise
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _signalled(self, task: "asyncio.Task[object]") -> None:
        if self.server is None:
            task.cancel()
        elif self.server.should_exit:
            self.server.force_exit = True
        else:
            self.server.should_exit = True
