"""One of several web processes: started by the supervisor as `python -m xzepr.server.worker`."""

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
from xzepr.features.processes.service import WORKER
from xzepr.hub import Hub
from xzepr.infra.telemetry import logs
from xzepr.infra.telemetry.metrics import Metrics
from xzepr.server.http_server import serve_hub
from xzepr.server.loops import running
from xzepr.server.signals import StopSignals
from xzepr.server.startup import starting
from xzepr.server.worker_config import ANSWERS, Handover, received


def main() -> None:
    """Serves what the supervisor hands over, until it says so or is gone."""
    channel = _channel()
    try:
        handover = received(channel)
        telemetry = handover.settings.telemetry
        logs.configure(telemetry.log_level, telemetry.json_logs)
        structlog.contextvars.bind_contextvars(worker=handover.worker)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(handover, channel))
    except CannotStart as error:
        print(f"xzepr: {error}", file=sys.stderr)
        sys.exit(1)


def _channel() -> socket.socket:
    """The supervisor's end of our standard input, which from here on is empty."""
    channel = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return channel


async def _serve(handover: Handover, channel: socket.socket) -> None:
    settings = handover.settings
    signals = StopSignals(settings.server.shutdown_timeout_seconds)
    listener = socket.socket(fileno=handover.listener)
    metrics = Metrics.shared(__version__, handover.metrics, handover.worker)
    async with signals.handled(), _ending_with_the_supervisor(handover, channel):
        with starting():
            async with Hub.open(settings, handover.database_url, handover.keys, metrics) as hub, running(hub, WORKER):
                await serve_hub(signals, hub, listener, lambda: _answers(channel))


def _answers(channel: socket.socket) -> None:
    channel.send(ANSWERS)


@asynccontextmanager
async def _ending_with_the_supervisor(handover: Handover, channel: socket.socket) -> AsyncGenerator[None]:
    """When the supervisor is gone, however it ended, this process drains as if it had been told to."""
    loop, gone = asyncio.get_running_loop(), asyncio.Event()

    def hear() -> None:
        loop.remove_reader(channel)
        gone.set()
        os.kill(os.getpid(), signal.SIGTERM)

    # Nothing is sent after the handover: readable is closed. The kernel closes it, whatever killed the supervisor.
    loop.add_reader(channel, hear)
    try:
        yield
    finally:
        loop.remove_reader(channel)
        if gone.is_set():  # nobody else is left to do it
            shutil.rmtree(handover.metrics, ignore_errors=True)


if __name__ == "__main__":
    main()
