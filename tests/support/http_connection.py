"""A connection of the hub's HTTP protocol on a fake transport."""

import asyncio

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from tests.support.fake_transport import FakeTransport
from xzepr.server.uvicorn_http import HttpProtocol


def connection(
    app: ASGIApp, state: ServerState | None = None, protocol_class: type[HttpProtocol] = HttpProtocol
) -> tuple[HttpProtocol, FakeTransport]:
    """Returns a new connection to the application, and its transport. It may be idle for a second."""
    config = uvicorn.Config(app, log_config=None, lifespan="off", timeout_keep_alive=1)
    config.load()
    transport = FakeTransport()
    protocol = protocol_class(config, state or ServerState(), {})
    protocol.connection_made(transport)
    return protocol, transport


async def ended(protocol: HttpProtocol) -> None:
    """Waits until all requests of the connection have ended."""
    while protocol.tasks:
        await asyncio.sleep(0)


async def response_to(request: bytes, app: ASGIApp) -> FakeTransport:
    """Sends one request. Returns the transport once the application has ended."""
    protocol, transport = connection(app)
    protocol.data_received(request)
    await ended(protocol)
    return transport
