"""uvicorn's connections, and what they lack for clients that do not read: an end that does not wait for them."""

from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from xzepr.api.middleware import DROP


class HttpConnection(HttpToolsProtocol):
    """HTTP/1.1; the application may drop it."""

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)["extensions"] = {DROP: self.transport.abort}


class WebSocketConnection(WebSocketsSansIOProtocol):
    """A WebSocket; the application may drop it, and once it has ended nothing waits for long to be read."""

    async def run_asgi(self) -> None:
        """Runs the application. uvicorn would then wait until the client has read everything, however long."""
        cast("dict[str, Any]", self.scope)["extensions"][DROP] = self.transport.abort
        await super().run_asgi()
        if self in self.connections:
            self.loop.call_later(self.close_timeout, self.transport.abort)
