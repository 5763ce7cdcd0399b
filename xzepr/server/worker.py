"""A worker: one of several processes that serve the hub, started as `python -m xzepr.server.worker`."""

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import structlog
import uvloop

from xzepr import __version__
from xzepr.core.errors import CannotStart
from xzepr.infra.telemetry import logs
from xzepr.server.signals import StopSignals
from xzepr.server.startup import import_server, startup_errors
from xzepr.server.worker_config import READY, WorkerConfig, receive_config


def main() -> None:
    """Serves with the supervisor's configuration, until the supervisor stops this process or ends."""
    channel = _channel()
    import_server()  # before the configuration arrives: the supervisor's database may still be starting
    try:
        config = receive_config(channel)
        telemetry = config.settings.telemetry
        logs.configure(telemetry.log_level, telemetry.json_logs)
        structlog.contextvars.bind_contextvars(worker=config.worker)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(config, channel))
    except CannotStart as error:
        print(f"xzepr: {error}", file=sys.stderr)
        sys.exit(1)


def _channel() -> socket.socket:
    """Returns the channel to the supervisor, which is standard input, and leaves standard input empty."""
    channel = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return channel


async def _serve(config: WorkerConfig, channel: socket.socket) -> None:
    from xzepr.features.processes.service import WORKER
    from xzepr.hub import Hub
    from xzepr.infra.telemetry.metrics import Metrics
    from xzepr.server.http_server import serve_hub
    from xzepr.server.loops import serving_loops

    settings = config.settings
    signals = StopSignals(settings.server.shutdown_timeout_seconds)
    listener = socket.socket(fileno=config.listener_fd)
    metrics = Metrics.shared(__version__, config.metrics_folder, config.worker)
    async with signals.handled(), _stopped_with_supervisor(config, channel):
        with startup_errors():
            async with (
                Hub.open(settings, config.database_url, config.keys, metrics=metrics) as hub,
                serving_loops(hub, WORKER),
            ):
                await serve_hub(signals, hub, listener, lambda: _report_ready(channel))


def _report_ready(channel: socket.socket) -> None:
    channel.send(READY)


@asynccontextmanager
async def _stopped_with_supervisor(config: WorkerConfig, channel: socket.socket) -> AsyncGenerator[None]:
    """Drains this process when the supervisor ends, whatever ended it."""
    loop, supervisor_ended = asyncio.get_running_loop(), asyncio.Event()

    def on_closed() -> None:
        loop.remove_reader(channel)
        supervisor_ended.set()
        os.kill(os.getpid(), signal.SIGTERM)

    # Nothing follows the configuration, so readable means closed. The kernel closes the channel of a killed process.
    loop.add_reader(channel, on_closed)
    try:
        yield
    finally:
        loop.remove_reader(channel)
        if supervisor_ended.is_set():  # the supervisor would have removed it
            shutil.rmtree(config.metrics_folder, ignore_errors=True)


if __name__ == "__main__":
    main()
