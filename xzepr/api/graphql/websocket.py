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
from xzepr.api.graphql import messages
from xzepr.api.graphql.capacity import Capacity
from xzepr.api.graphql.connection import Connection, SocketLimits
from xzepr.api.graphql.http import ticket_in
from xzepr.api.graphql.operations import GraphQLService
from xzepr.api.graphql.sessions import Sessions
from xzepr.api.hosts import AllowedOrigins
from xzepr.api.middleware import refuse
from xzepr.core.errors import InvalidToken


@dataclass(frozen=True, slots=True)
class GraphQLOverWebSocket:
    """The ASGI application at `/graphql` for WebSocket."""

    service: GraphQLService
    origins: AllowedOrigins
    sessions: Sessions
    capacity: Capacity
    limits: SocketLimits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One handshake and, if it is granted, one connection."""
        headers = Headers(scope=scope)
        if not self.origins.allow(headers.get("origin"), headers.get("host", "")):
            return await refuse(OriginNotAllowed(), scope, receive, send)
        try:
            if ticket_in(scope["query_string"]) is not None:
                raise InvalidToken("a ticket opens an event stream by GET, and nothing else")
            if self.service.drain.begun:
                raise Draining
            with self.capacity.connection("websocket"):
                await self._serve(WebSocket(scope, receive, send))
        except (ConnectionsFull, Draining, InvalidToken) as problem:
            await refuse(problem, scope, receive, send)
        return None

    async def _serve(self, socket: WebSocket) -> None:
        with suppress(WebSocketDisconnect, WebSocketDisconnected):
            if messages.SUBPROTOCOL not in socket.scope.get("subprotocols", []):
                await socket.accept()
                return await socket.close(messages.SUBPROTOCOL_NOT_ACCEPTABLE, f"only {messages.SUBPROTOCOL} is spoken")
            await socket.accept(messages.SUBPROTOCOL)
            await Connection(socket, self.service, self.sessions, self.capacity, self.limits).run()
        return None
