"""One web process: uvicorn around the application, and how signals end it (docs/adr/0026-a-server-drains.md)."""

import asyncio
import gc
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager

import structlog
import uvicorn
from starlette.applications import Starlette

from xzepr import __version__
from xzepr.api.drain import Drain
from xzepr.app import create_app
from xzepr.cli.protocols import HttpConnection, WebSocketConnection
from xzepr.cli.signals import LastResort
from xzepr.hub import Hub
from xzepr.infra.telemetry import traces
from xzepr.settings import Settings

_BACKLOG = 2048
_TICK_SECONDS = 0.02
_IDLE_SECONDS = 1.0
"""That a connection on which nothing runs is kept: for a request on its way, which is then answered as the last one."""
_FLUSH_SECONDS = 3.0
"""That a WebSocket which was closed is given to read so."""
_AFTER_CLIENTS_SECONDS = 5.0
"""Of the time to stop, but at most a quarter, for what is left to do without clients: relay, traces, database."""
_log = structlog.stdlib.get_logger(__name__)


async def serve_until(stop: "Stop", hub: Hub, listener: socket.socket, listening: Callable[[], None]) -> None:
    """Serves the hub on a bound socket until `stop` is signalled, and then until clients have what they were promised;
    `listening` is called once it answers."""
    settings, drain = hub.settings, Drain()
    app = create_app(hub, drain)
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
        # Each subscriber's frame would be compressed anew, for 14 µs of 250 bytes and 15 ms of 500 KB, where it is
        # worked out once for all; each socket would hold 40 KB more. Event streams are not compressed either: whoever
        # wants it lets a proxy do it.
        ws_per_message_deflate=False,
        backlog=_BACKLOG,
    )
    server = _Server(config, drain, listening)
    stop.serves(server, settings.server.shutdown_timeout_seconds)
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
    """uvicorn without its own signal handlers, which would end the process before the database is stopped, and with an
    end that cuts nothing: uvicorn would close WebSockets and idle connections at once, and wait for the slowest."""

    def __init__(self, config: uvicorn.Config, drain: Drain, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._drain = drain
        self._listening = listening
        self._deadline = 0.0

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Signals are `Stop`'s."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Says that it listens, once it does."""
        await super().startup(sockets)
        self._listening()

    def stop(self, seconds: float) -> None:
        """Begins nothing from now on, and ends when what runs is finished, or after so many seconds."""
        self._deadline = asyncio.get_running_loop().time() + seconds
        self._drain.begin()
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accepts nothing more, and returns when every client has its answer; drops those who do not let it."""
        for server in self.servers:
            server.close()
        state, loop = self.server_state, asyncio.get_running_loop()
        begun = loop.time()
        while state.connections or state.tasks or self._drain.mutations:
            if self.force_exit or loop.time() >= self._deadline:
                await self._drop()
                break
            self._close_what_is_done(loop.time() - begun)
            await asyncio.sleep(_TICK_SECONDS)

    def _close_what_is_done(self, waited: float) -> None:
        """Connections on which nothing runs any more, once they had their time."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, WebSocketConnection):
                if connection.close_sent and waited >= _FLUSH_SECONDS:
                    connection.transport.abort()
            elif waited >= _IDLE_SECONDS:
                connection.shutdown()

    async def _drop(self) -> None:
        """Ends every connection, whatever is under way on it."""
        state = self.server_state
        counts = {"connections": len(state.connections), "mutations": len(self._drain.mutations)}
        _log.warning("stop.cut_off", **counts)
        for connection in list(state.connections):
            connection.transport.abort()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=_IDLE_SECONDS)


class Stop:
    """SIGINT and SIGTERM: end what starts, let what serves finish; the second one waits for nobody. The process ends in
    the time it is given, with 0, whatever clients, brokers and the database do."""

    def __init__(self) -> None:
        self._server: _Server | None = None
        self._seconds = 0.0
        self._last_resort = LastResort()

    def serves(self, server: _Server, seconds: float) -> None:
        """From now on there is a server, and it is given so long to stop."""
        self._server, self._seconds = server, seconds

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
            self._last_resort.cancel()

    def _signalled(self, task: "asyncio.Task[object]") -> None:
        if self._server is None:
            task.cancel()
        elif self._server.should_exit:
            self._server.force_exit = True
        else:
            self._last_resort.within(self._seconds)
            self._server.stop(self._seconds - min(_AFTER_CLIENTS_SECONDS, self._seconds / 4))
