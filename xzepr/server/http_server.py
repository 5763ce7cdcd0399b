"""A process that serves the hub: uvicorn around the application, and its drain (docs/adr/0026-a-server-drains.md)."""

import asyncio
import gc
import socket
from collections.abc import Callable

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp

from xzepr import __version__
from xzepr.api.drain import Drain
from xzepr.api.shell import Shell
from xzepr.app import create_app
from xzepr.hub import Hub
from xzepr.infra.telemetry import traces
from xzepr.server.signals import StopSignals
from xzepr.server.uvicorn_http import HttpProtocol
from xzepr.server.uvicorn_protocols import WebSocketProtocol
from xzepr.server.uvicorn_server import Server
from xzepr.settings import Settings

_LISTEN_BACKLOG = 2048
_TICK_SECONDS = 0.02
_IDLE_SECONDS = 1.0  # an idle connection stays open this long, for a request that is on its way
_FLUSH_SECONDS = 3.0  # for a WebSocket client to read the close frame
_AFTER_CLIENTS_SECONDS = 5.0  # for relay, traces and database after the clients; at most a quarter of the shutdown
# With 64 connections that read, collections took this part of the processor time, and the longest this long:
# Python's 700, 10, 10 without `freeze` 23 % and 120 ms (p99 of a request 123 ms); with it 6 % and 2.5 ms (26 to 50 ms);
# 10,000 with it 1.6 % and 6 ms (26 to 34 ms); 50,000 with it 1.3 % and 19 to 59 ms (26 to 53 ms).
_GC_THRESHOLDS = (10_000, 10, 100)
_log = structlog.stdlib.get_logger(__name__)


async def serve_hub(signals: StopSignals, hub: Hub, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serves an open hub on a bound socket until a signal stops it and its clients have their responses.

    `on_ready` is called once the socket accepts connections.
    """
    settings, drain = hub.settings, Drain()
    app, end_tracing = traced(create_app(hub, drain), settings)
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        http=HttpProtocol.with_head_seconds(settings.server.request_timeout_seconds),
        ws=WebSocketProtocol,
        ws_max_size=settings.stream.max_frame_bytes,
        ws_ping_interval=None,
        # Frames are rendered once for all subscribers, but would be compressed for each: 14 µs for 250 bytes, 15 ms for
        # 500 KB, and 40 KB of memory a socket. Event streams are not compressed either. A proxy can compress both.
        ws_per_message_deflate=False,
        timeout_keep_alive=settings.server.keep_alive_seconds,
        backlog=_LISTEN_BACKLOG,
    )
    server = _DrainingServer(config, drain, on_ready)
    shutdown_seconds = settings.server.shutdown_timeout_seconds
    drain_seconds = shutdown_seconds - min(_AFTER_CLIENTS_SECONDS, shutdown_seconds / 4)
    signals.running(lambda: server.stop(drain_seconds), server.stop_waiting)
    collect_garbage_from_now_on()
    try:
        await server.serve(sockets=[listener])
    finally:
        await asyncio.to_thread(end_tracing)


def traced(shell: Shell, settings: Settings) -> tuple[ASGIApp, Callable[[], None]]:
    """Returns the application to serve, traced if the settings say so, and a function that ends the tracing."""
    telemetry = settings.telemetry
    if not telemetry.tracing_enabled:
        return shell, lambda: None
    # OpenTelemetry instruments Starlette applications, and names spans by their routes.
    app = Starlette(routes=shell.routes, middleware=[Middleware(lambda _: shell)])
    end = traces.instrument(
        app,
        service_name=telemetry.service_name,
        version=__version__,
        otlp_endpoint=telemetry.otlp_endpoint,
    )
    return app, end


def collect_garbage_from_now_on() -> None:
    """Enables the collection of garbage. It skips the objects of the start, which live as long as the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    gc.enable()


class _DrainingServer(Server):
    """A server that lets requests finish when it stops, until a deadline.

    uvicorn would close WebSockets and idle connections at once, and wait for the slowest client.
    """

    def __init__(self, config: uvicorn.Config, drain: Drain, on_ready: Callable[[], None]) -> None:
        super().__init__(config, on_ready)
        self._drain = drain
        self._deadline = 0.0

    def stop(self, seconds: float) -> None:
        """Starts the drain; the server ends once nothing runs any more, or after `seconds`."""
        self._deadline = asyncio.get_running_loop().time() + seconds
        self._drain.begin()
        self.should_exit = True

    def stop_waiting(self) -> None:
        """Makes the shutdown drop the clients that are left, and end now."""
        self.force_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accepts no more connections and returns once every client has its response, or at the deadline."""
        for server in self.servers:
            server.close()
        state, loop = self.server_state, asyncio.get_running_loop()
        started = loop.time()
        while state.connections or state.tasks or self._drain.mutations:
            if self.force_exit or loop.time() >= self._deadline:
                await self._drop_clients()
                break
            self._close_idle(loop.time() - started)
            await asyncio.sleep(_TICK_SECONDS)

    def _close_idle(self, waited_seconds: float) -> None:
        """Closes connections on which nothing runs, after a grace period."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, WebSocketProtocol):
                if connection.close_sent and waited_seconds >= _FLUSH_SECONDS:
                    connection.transport.abort()
            elif waited_seconds >= _IDLE_SECONDS:
                connection.shutdown()

    async def _drop_clients(self) -> None:
        """Ends every connection, whatever runs on it."""
        state = self.server_state
        counts = {"connections": len(state.connections), "mutations": len(self._drain.mutations)}
        _log.warning("stop.cut_off", **counts)
        for connection in list(state.connections):
            connection.transport.abort()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=_IDLE_SECONDS)
