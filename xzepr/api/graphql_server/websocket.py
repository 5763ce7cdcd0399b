"""GraphQL over WebSocket, with graphql-transport-ws as the only subprotocol.

An operation's errors are sent under its id and do not affect other operations. A violation of the protocol closes the
socket with the protocol's code for it.
"""

from contextlib import suppress
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from xzepr.api.errors import ConnectionsFull, Draining, OriginNotAllowed
from xzepr.api.graphql_server.connection import WebSocketConnection
from xzepr.api.graphql_server.limits import ConnectionLimiter, SocketLimits
from xzepr.api.graphql_server.operations import GraphQLService
from xzepr.api.graphql_server.protocol import SUBPROTOCOL, SUBPROTOCOL_NOT_ACCEPTABLE
from xzepr.api.graphql_server.requests import ticket_from_query
from xzepr.api.graphql_server.sessions import Sessions
from xzepr.api.graphql_server.socket_writer import NextFrames
from xzepr.api.hosts import AllowedOrigins
from xzepr.api.shell import send_problem
from xzepr.core.errors import InvalidToken


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphQLOverWebSocket:
    """The ASGI application for WebSocket connections at `/graphql`."""

    service: GraphQLService
    origins: AllowedOrigins
    sessions: Sessions
    limiter: ConnectionLimiter
    limits: SocketLimits
    frames: NextFrames = field(default_factory=NextFrames)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one handshake and, if it is accepted, the connection."""
        if not self._allows_origin(scope):
            return await send_problem(OriginNotAllowed(), scope, receive, send)
        try:
            if ticket_from_query(scope["query_string"]) is not None:
                raise InvalidToken("a ticket can only open an event stream by GET")
            if self.service.drain.begun:
                raise Draining
            with self.limiter.connection("websocket"):
                await self._serve(WebSocket(scope, receive, send))
        except (ConnectionsFull, Draining, InvalidToken) as problem:
            await send_problem(problem, scope, receive, send)
        return None

    def _allows_origin(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        return self.origins.allow(headers.get("origin"), headers.get("host", ""))

    async def _serve(self, socket: WebSocket) -> None:
        with suppress(WebSocketDisconnect, WebSocketDisconnected):
            if SUBPROTOCOL not in socket.scope.get("subprotocols", []):
                await socket.accept()
                return await socket.close(SUBPROTOCOL_NOT_ACCEPTABLE, f"the subprotocol must be {SUBPROTOCOL}")
            await socket.accept(SUBPROTOCOL)
            connection = WebSocketConnection(
                socket=socket,
                service=self.service,
                sessions=self.sessions,
                limiter=self.limiter,
                limits=self.limits,
                frames=self.frames,
            )
            await connection.run()
        return None
