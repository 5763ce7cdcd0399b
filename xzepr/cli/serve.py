"""`xzepr serve`: the hub, with an embedded PostgreSQL unless a database is named."""

import asyncio
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

import structlog
import typer
import uvloop

from xzepr import __version__
from xzepr.cli.options import ConfigFile, DataDir, load_settings
from xzepr.cli.web import Stop, serve_until
from xzepr.core.errors import CannotStart, Problem
from xzepr.hub import Hub
from xzepr.infra import revisions
from xzepr.infra.crypto import signing_keys, write_password_file
from xzepr.infra.embedded import EmbeddedPostgres
from xzepr.infra.telemetry import logs
from xzepr.processes import running
from xzepr.settings import Loaded, Settings

_log = structlog.stdlib.get_logger(__name__)


def serve(
    config: ConfigFile = None,
    data_dir: DataDir = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on: server.host.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for any: server.port.")] = None,
    database_url: Annotated[
        str | None, typer.Option(help="PostgreSQL to use instead of the embedded one: database.url.")
    ] = None,
) -> None:
    """Serve the hub until Ctrl-C."""
    flags = {"server.host": host, "server.port": port, "database.url": database_url}
    loaded = load_settings(config, data_dir, flags)
    telemetry = loaded.settings.telemetry
    logs.configure(telemetry.log_level, telemetry.json_logs)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(loaded))


async def _serve(loaded: Loaded) -> None:
    settings = loaded.settings
    for key in loaded.not_in_effect:
        _log.warning("setting.not_in_effect_yet", key=key, origin=loaded.origins.get(key))
    listener = _listen(settings.server.host, settings.server.port)
    stop = Stop()
    async with stop.on_signals(), _database(settings) as url:
        embedded = settings.database.url is None
        keys = signing_keys(
            settings.jwt.private_key_path,
            settings.jwt.public_key_path,
            data_dir=settings.data_dir,
            embedded=embedded,
        )
        try:
            async with Hub.open(settings, url, keys) as hub, running(hub):
                await _ensure_admin(hub)
                await serve_until(stop, hub, listener, lambda: _announce(settings, listener))
        except Problem as problem:
            raise CannotStart(f"The hub cannot start: {problem.message}.") from problem


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise CannotStart(
            f"Cannot listen on {host}:{port} ({error.strerror}): stop what listens there, or choose another with "
            "--port or --host."
        ) from error
    return listener


@asynccontextmanager
async def _database(settings: Settings) -> AsyncGenerator[str]:
    """The URL of a database with a schema that this server works with."""
    if settings.database.url is not None:
        url = settings.database.url.get_secret_value()
        await asyncio.to_thread(_fit, url, embedded=False)
        yield url
        return
    postgres = await EmbeddedPostgres.start(settings.data_dir, say=_say)
    keeper = asyncio.create_task(postgres.keep_running(_say))
    try:
        await asyncio.to_thread(_fit, postgres.url, embedded=True)
        yield postgres.url
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        await postgres.stop()


def _fit(url: str, *, embedded: bool) -> None:
    """Brings the embedded database to this server's schema; raises CannotStart unless another's has it."""
    if revisions.are_current(url):
        return
    from xzepr.infra import migrate  # takes most of a second to load, and is seldom needed

    if embedded:
        migrate.migrate(url, say=_say)
    else:
        migrate.check(url)


async def _ensure_admin(hub: Hub) -> None:
    """Makes the first admin. A password that was made up is shown on a terminal, else kept in a file."""
    auth, path = hub.settings.auth, hub.settings.data_dir / "admin-password"

    def keep(password: str) -> None:
        if sys.stdout.isatty():
            _say(f"First start: log in as {auth.admin_username!r} with the password {password} (it is shown only now)")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_password_file(path, password)
            _say(f"First start: the password of {auth.admin_username!r} is in {path.resolve()}")

    password = auth.admin_password
    await hub.users.ensure_admin(
        auth.admin_username, None if password is None else password.get_secret_value(), keep=keep
    )


def _announce(settings: Settings, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    _say(f"XZepr {__version__} answers at http://{shown}:{port}")
    _say(f"  playground   http://{shown}:{port}/graphql/playground")
    _say(f"  data folder  {settings.data_dir.resolve()}")
    _say(f"  Kafka        {', '.join(settings.kafka.brokers) or 'no brokers named: history waits for them'}")


def _say(line: str) -> None:
    print(line, flush=True)
