"""`xzepr work`: relays into Kafka beside servers that were started with --no-relay."""

import asyncio
from typing import Annotated

import typer
import uvloop

from xzepr.cli.options import ConfigFile, DataDir, load_settings
from xzepr.cli.serve import prepare
from xzepr.core.errors import CannotStart
from xzepr.server.relay_process import relay_process
from xzepr.settings import Loaded


def work(
    config: ConfigFile = None,
    data_dir: DataDir = None,
    port: Annotated[
        int | None, typer.Option(help="Port for /health and /metrics, 0 for any; without, none: work.port.")
    ] = None,
    database_url: Annotated[
        str | None, typer.Option(help="The servers' PostgreSQL, unless it is the data folder's own: database.url.")
    ] = None,
) -> None:
    """Relay into Kafka and keep house until Ctrl-C, beside `xzepr serve --no-relay`."""
    loaded = load_settings(config, data_dir, {"work.port": port, "database.url": database_url})
    prepare(loaded)
    _may_relay(loaded)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(relay_process(loaded.settings))


def _may_relay(loaded: Loaded) -> None:
    if not loaded.settings.kafka.enabled:
        raise CannotStart(
            f"kafka.enabled is off ({loaded.origins['kafka.enabled']}), so there is nothing to work on: leave it on, "
            "and start the servers with `xzepr serve --no-relay`"
        )
