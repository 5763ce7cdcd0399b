"""The command `xzepr work`: relays into Kafka in a process that serves no clients."""

import asyncio
from typing import Annotated

import typer
import uvloop

from xzepr.cli.options import ConfigFile, DataDir, load_settings
from xzepr.cli.serve import configure_logging
from xzepr.core.errors import CannotStart
from xzepr.settings import LoadedSettings


def work(
    config: ConfigFile = None,
    data_dir: DataDir = None,
    port: Annotated[
        int | None,
        typer.Option(help="Port for /health and /metrics; 0 for a free one; none by default (setting: work.port)."),
    ] = None,
    database_url: Annotated[
        str | None, typer.Option(help="The servers' PostgreSQL, if it is not the embedded one (setting: database.url).")
    ] = None,
) -> None:
    """Relay into Kafka and do housekeeping until Ctrl-C, beside servers started with `xzepr serve --no-relay`."""
    loaded = load_settings(config, data_dir, {"work.port": port, "database.url": database_url})
    configure_logging(loaded)
    _require_kafka_enabled(loaded)
    from xzepr.server.work_process import run_work_process

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run_work_process(loaded.settings))


def _require_kafka_enabled(loaded: LoadedSettings) -> None:
    if not loaded.settings.kafka.enabled:
        raise CannotStart(
            f"kafka.enabled is off ({loaded.origins['kafka.enabled']}), so there is nothing to relay: turn it on, "
            "and start the servers with `xzepr serve --no-relay`"
        )
