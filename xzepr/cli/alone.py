"""The hub in one process, which holds everything: its address, its database, its loops."""

from xzepr.cli import start
from xzepr.cli.web import Stop, serve_until
from xzepr.hub import Hub
from xzepr.processes import running
from xzepr.settings import Settings


async def serve_alone(settings: Settings) -> None:
    """Serves until a signal ends it."""
    listener = start.listen(settings.server.host, settings.server.port)
    stop = Stop()
    async with stop.on_signals(), start.database(settings) as url:
        keys = start.keys_of(settings)
        with start.starting():
            async with Hub.open(settings, url, keys) as hub, running(hub):
                await start.ensure_admin(hub.users, settings)
                await serve_until(stop, hub, listener, lambda: start.announce(settings, listener))
