"""A process that relays into Kafka and does housekeeping, and serves no clients."""

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
from xzepr.server.http_server import Server
from xzepr.server.loops import working
from xzepr.server.signals import StopSignals
from xzepr.settings import Settings

_LOOK_SECONDS = 0.25
_FIRST_WORD_SECONDS = 1.0
_NEXT_WORD_SECONDS = 60.0
_log = structlog.stdlib.get_logger(__name__)


async def relay_process(settings: Settings) -> None:
    """Relays until a signal stops it, beside the servers of the hub."""
    port, named = settings.work.port, settings.database.url
    listener = None if port is None else startup.listen(settings.server.host, port)
    async with StopSignals(settings.server.shutdown_timeout_seconds).handled():
        if named is None:
            await _beside_embedded(settings, listener)
        else:
            await asyncio.to_thread(startup.fit, named.get_secret_value(), embedded=False)
            with startup.starting():
                async with _working(settings, named.get_secret_value(), listener):
                    await asyncio.Event().wait()


async def _beside_embedded(settings: Settings, listener: socket.socket | None) -> None:
    """Works on the database that `xzepr serve` runs in the data folder, whichever of the two is started first; follows
    it when it comes back at another place."""
    while True:
        url = await _sought(settings.data_dir)
        try:
            async with _working(settings, url, listener):
                await _moved(settings.data_dir, url)
        except Unavailable as problem:  # it went away just when it had been found
            _log.warning("work.interrupted", error=problem.message)
            await asyncio.sleep(_LOOK_SECONDS)


async def _sought(data_dir: Path) -> str:
    """The URL of the data folder's database, once somebody runs it and its schema is this version's."""
    loop = asyncio.get_running_loop()
    word = loop.time() + _FIRST_WORD_SECONDS
    while True:
        url = running_url(data_dir)
        if url is not None and await asyncio.to_thread(revisions.are_current, url):
            return url
        if loop.time() >= word:
            startup.say(
                f"Waiting for `xzepr serve` of this version on the data folder {data_dir} "
                "(for another database, set database.url)"
            )
            word = loop.time() + _NEXT_WORD_SECONDS
        await asyncio.sleep(_LOOK_SECONDS)


async def _moved(data_dir: Path, url: str) -> None:
    """Returns when the data folder's database is run at another place."""
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        if running_url(data_dir) not in (None, url):
            return


@asynccontextmanager
async def _working(settings: Settings, url: str, listener: socket.socket | None) -> AsyncGenerator[None]:
    async with open_core(settings, url) as core, working(core):
        if listener is None:
            _announce(settings, None)
            yield
            return
        async with _answering(core, listener.dup(), lambda: _announce(settings, listener)):
            yield


@asynccontextmanager
async def _answering(core: Core, listener: socket.socket, listening: Callable[[], None]) -> AsyncGenerator[None]:
    """Answers on a bound socket how this process is, and closes it; `listening` is called once it answers."""
    config = uvicorn.Config(
        create_work_app(core),
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    server = Server(config, listening)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


def _announce(settings: Settings, listener: socket.socket | None) -> None:
    place = "database.url" if settings.database.url is not None else f"the data folder {settings.data_dir.resolve()}"
    startup.say(f"XZepr {__version__} works on the hub of {place}")
    startup.say(f"  Kafka        {startup.kafka_of(settings)}")
    if listener is not None:
        startup.say(f"  health       http://{startup.address_of(listener)}/health")
