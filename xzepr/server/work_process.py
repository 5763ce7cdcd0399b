"""A process that relays into Kafka and does housekeeping, without serving clients."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
import uvicorn

from xzepr import __version__
from xzepr.app import create_work_app
from xzepr.core.errors import Unavailable
from xzepr.hub import Core, open_core
from xzepr.infra import revisions
from xzepr.infra.embedded import running_url
from xzepr.server import startup
from xzepr.server.loops import relay_loops
from xzepr.server.signals import StopSignals
from xzepr.server.uvicorn_http import HttpProtocol
from xzepr.server.uvicorn_server import Server
from xzepr.settings import Settings

_POLL_SECONDS = 0.25
_FIRST_NOTICE_SECONDS = 1.0
_NEXT_NOTICE_SECONDS = 60.0
_log = structlog.stdlib.get_logger(__name__)


async def run_work_process(settings: Settings) -> None:
    """Relays until a signal stops it, beside the servers of the hub."""
    port, database_url = settings.work.port, settings.database.url
    listener = None if port is None else startup.listen(settings.server.host, port)
    async with StopSignals(settings.server.shutdown_timeout_seconds).handled():
        if database_url is None:
            await _work_beside_embedded(settings, listener)
        else:
            await asyncio.to_thread(startup.ensure_schema, database_url.get_secret_value(), embedded=False)
            with startup.startup_errors():
                async with _working(settings, database_url.get_secret_value(), listener):
                    await asyncio.Event().wait()


async def _work_beside_embedded(settings: Settings, listener: socket.socket | None) -> None:
    """Works on the embedded database of `xzepr serve`, whichever starts first, and follows it when it moves."""
    while True:
        url = await _find_embedded(settings.data_dir)
        try:
            async with _working(settings, url, listener):
                await _wait_until_moved(settings.data_dir, url)
        except Unavailable as problem:  # the database stopped right after it was found
            _log.warning("work.interrupted", error=problem.message)
            await asyncio.sleep(_POLL_SECONDS)


async def _find_embedded(data_dir: Path) -> str:
    """Returns the URL of the data folder's database once a server runs it with the schema of this version."""
    loop = asyncio.get_running_loop()
    notice_at = loop.time() + _FIRST_NOTICE_SECONDS
    while True:
        url = running_url(data_dir)
        if url is not None and await asyncio.to_thread(revisions.are_current, url):
            return url
        if loop.time() >= notice_at:
            startup.print_line(
                f"Waiting for `xzepr serve` of this version on the data folder {data_dir} "
                "(for another database, set database.url)"
            )
            notice_at = loop.time() + _NEXT_NOTICE_SECONDS
        await asyncio.sleep(_POLL_SECONDS)


async def _wait_until_moved(data_dir: Path, url: str) -> None:
    """Returns when the data folder's database runs at another address."""
    while True:
        await asyncio.sleep(_POLL_SECONDS)
        if running_url(data_dir) not in (None, url):
            return


@asynccontextmanager
async def _working(settings: Settings, url: str, listener: socket.socket | None) -> AsyncGenerator[None]:
    async with open_core(settings, url) as core, relay_loops(core):
        if listener is None:
            _print_banner(settings, None)
            yield
            return
        async with _health_server(core, listener.dup(), lambda: _print_banner(settings, listener)):
            yield


@asynccontextmanager
async def _health_server(core: Core, listener: socket.socket, on_ready: Callable[[], None]) -> AsyncGenerator[None]:
    """Serves health and metrics on a bound socket; `on_ready` is called once it accepts connections."""
    config = uvicorn.Config(
        create_work_app(core),
        lifespan="off",
        http=HttpProtocol.with_head_seconds(core.settings.server.request_timeout_seconds),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    server = Server(config, on_ready)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


def _print_banner(settings: Settings, listener: socket.socket | None) -> None:
    database = "database.url" if settings.database.url is not None else f"the data folder {settings.data_dir.resolve()}"
    startup.print_line(f"XZepr {__version__} works on the hub of {database}")
    startup.print_line(f"  Kafka        {startup.describe_kafka(settings)}")
    if listener is not None:
        startup.print_line(f"  health       http://{startup.address_of(listener)}/health")
