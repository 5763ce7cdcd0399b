"""GraphQL over WebSocket: graphql-transport-ws, and only that.

What one operation does wrong is told under its id and leaves the others alone; what breaks the protocol closes the
socket with the code that the protocol has for it.
"""

from contextlib import suppress
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from xzepr.api.errors import ConnectionsFull, Draining, OriginNotAllowed
from xzepr.api.graphql_server import protocol as messages
from xzepr.api.graphql_server.connection import WebSocketConnection
from xzepr.api.graphql_server.http import ticket_from_query
from xzepr.api.graphql_server.limits import ConnectionLimiter, SocketLimits
from xzepr.api.graphql_server.operations import GraphQLService
from xzepr.api.graphql_server.sessions import Sessions
from xzepr.api.hosts import AllowedOrigins
from xzepr.api.middleware import send_problem
from xzepr.core.errors import InvalidToken


@dataclass(frozen=True, slots=True)
class GraphQLOverWebSocket:
    """The ASGI application at `/graphql` for WebSocket."""

    service: GraphQLService
    origins: AllowedOrigins
    sessions: Sessions
    limiter: ConnectionLimiter
    limits: SocketLimits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One handshake and, if it is granted, one connection."""
        headers = Headers(scope=scope)
        if not self.origins.allow(headers.get("origin"), headers.get("host", "")):
            return await send_problem(OriginNotAllowed(), scope, receive, send)
        try:
            if ticket_from_query(scope["query_string"]) is not None:
                raise InvalidToken("a ticket opens an event stream by GET, and nothing else")
            if self.service.drain.begun:
                raise Draining
            with self.limiter.connection("websocket"):
                await self._serve(WebSocket(scope, receive, send))
        except (ConnectionsFull, Draining, InvalidToken) as problem:
            await send_problem(problem, scope, receive, send)
        return None

    async def _serve(self, socket: WebSocket) -> None:
        with suppress(WebSocketDisconnect, WebSocketDisconnected):
            if messages.SUBPROTOCOL not in socket.scope.get("subprotocols", []):
                await socket.accept()
                return await socket.close(messages.SUBPROTOCOL_NOT_ACCEPTABLE, f"only {messages.SUBPROTOCOL} is spoken")
            await socket.accept(messages.SUBPROTOCOL)
            await WebSocketConnection(socket, self.service, self.sessions, self.limiter, self.limits).run()
        return None
