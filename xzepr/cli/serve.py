"""The command `xzepr serve`: serves the hub in one process or several."""

import asyncio
from typing import Annotated

import typer
import uvloop

from xzepr.cli.options import ConfigFile, DataDir, load_settings
from xzepr.infra.telemetry import logs
from xzepr.settings import LoadedSettings, Settings


def serve(
    config: ConfigFile = None,
    data_dir: DataDir = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (setting: server.host).")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 for a free one (setting: server.port).")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", help="Number of processes that serve the port (setting: server.workers)."),
    ] = None,
    no_relay: Annotated[
        bool,
        typer.Option("--no-relay", help="Leave Kafka to another process: `xzepr work` (setting: kafka.enabled)."),
    ] = False,
    database_url: Annotated[
        str | None, typer.Option(help="PostgreSQL to use instead of the embedded one (setting: database.url).")
    ] = None,
) -> None:
    """Serve the hub until Ctrl-C."""
    flags = {
        "server.host": host,
        "server.port": port,
        "server.workers": workers,
        "kafka.enabled": False if no_relay else None,
        "database.url": database_url,
    }
    loaded = load_settings(config, data_dir, flags)
    configure_logging(loaded)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(loaded.settings))


def configure_logging(loaded: LoadedSettings) -> None:
    """Configures logging."""
    telemetry = loaded.settings.telemetry
    logs.configure(telemetry.log_level, telemetry.json_logs)


async def _serve(settings: Settings) -> None:
    if settings.server.workers > 1:
        from xzepr.server.supervisor import supervise

        await supervise(settings)
    else:
        from xzepr.server.single_process import serve_single_process

        await serve_single_process(settings)
