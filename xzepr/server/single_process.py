"""A server of one process. It starts the database while it imports the rest of itself."""

import asyncio

from xzepr.server import startup
from xzepr.server.signals import StopSignals
from xzepr.settings import Settings


async def serve_single_process(settings: Settings) -> None:
    """Serves a hub with one process, which holds the address, the database and the loops, until a signal stops it."""
    listener = startup.listen(settings.server.host, settings.server.port)
    signals = StopSignals(settings.server.shutdown_timeout_seconds)
    async with signals.handled():
        importing = asyncio.create_task(asyncio.to_thread(startup.import_server))
        async with startup.database(settings) as url:
            keys = startup.signing_keys_of(settings)
            await importing
            from xzepr.hub import Hub
            from xzepr.server.http_server import serve_hub
            from xzepr.server.loops import serving_loops

            with startup.startup_errors():
                async with Hub.open(settings, url, keys) as hub, serving_loops(hub):
                    await startup.ensure_admin(hub.users, settings)
                    await serve_hub(signals, hub, listener, lambda: startup.print_banner(settings, listener))
