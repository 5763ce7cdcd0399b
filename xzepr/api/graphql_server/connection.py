"""One graphql-transport-ws connection: the client's session, its operations, and the reasons to close it."""

import asyncio
from contextlib import AbstractContextManager, suppress
from typing import Any, TypeVar

from starlette.types import Message
from starlette.websockets import WebSocket

from xzepr.api.auth import Credential, credential_from_head, credential_from_payload
from xzepr.api.client_connection import drop
from xzepr.api.errors import JsonObject
from xzepr.api.graphql_server import protocol
from xzepr.api.graphql_server.errors import mask
from xzepr.api.graphql_server.keep_alive import KeepAlive
from xzepr.api.graphql_server.limits import ConnectionLimiter, SocketLimits
from xzepr.api.graphql_server.liveness import ClientLiveness, unsent_bytes_of
from xzepr.api.graphql_server.operations import GraphQLService
from xzepr.api.graphql_server.protocol import CloseSocket, Subscribe, parse_message, server_message
from xzepr.api.graphql_server.sessions import ConnectionSession, Sessions
from xzepr.api.graphql_server.socket_operations import SocketOperations
from xzepr.api.graphql_server.socket_writer import DISCONNECTED, NextFrames, SocketWriter
from xzepr.api.request_head import head_of, request_id_of
from xzepr.core.errors import InvalidToken, Problem

_REAUTHENTICATION_TIMEOUT_SECONDS = 3.0  # of the check of a fresh credential in a ping
_CLOSE_TIMEOUT_SECONDS = 2.0  # of sending the close frame
T = TypeVar("T")


class WebSocketConnection:
    """Serves one accepted WebSocket: authenticates the client, runs its operations and decides when to close.

    A connection that waits takes one task, and each of its operations another. Its memory counts: there may be 10,000.
    """

    __slots__ = (
        "_anonymous_timer",
        "_close_reason",
        "_drain",
        "_draining",
        "_held",
        "_keep_alive",
        "_limiter",
        "_limits",
        "_liveness",
        "_open",
        "_operations",
        "_request_id",
        "_session",
        "_sessions",
        "_socket",
        "_writer",
    )

    def __init__(
        self,
        *,
        socket: WebSocket,
        service: GraphQLService,
        sessions: Sessions,
        limiter: ConnectionLimiter,
        limits: SocketLimits,
        frames: NextFrames | None = None,
    ) -> None:
        """`frames`: those of all connections that may share them; None if this connection shares none."""
        self._socket = socket
        self._drain = service.drain
        self._sessions = sessions
        self._limiter = limiter
        self._limits = limits
        self._request_id = request_id_of(socket.scope)
        self._session: ConnectionSession | None = None
        self._liveness = ClientLiveness(limits.stalled_seconds, unsent_bytes_of(socket.scope))
        self._writer = SocketWriter(socket, self._liveness)
        self._operations = SocketOperations(
            service,
            limiter,
            self._writer,
            frames or NextFrames(),
            request_id=self._request_id,
            max_operations=limits.max_operations,
        )
        self._keep_alive = KeepAlive(limits, self._liveness, self._writer, self._end)
        self._open: asyncio.Timeout | None = None
        """Expires when the connection has to close."""
        self._close_reason: Exception | None = None
        self._held: list[AbstractContextManager[Any]] = []  # an ExitStack would take 1 KB
        self._anonymous_timer: asyncio.TimerHandle | None = None
        self._draining: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serves the connection until the client disconnects or there is a reason to close it."""
        try:
            reason = await self._receive_until_closed()
            await asyncio.sleep(0)  # operations that were created just now begin, so that their clean-up runs
            self._operations.cancel()
            await self._close(reason)
        finally:
            tasks = [*self._operations.cancel(), *self._keep_alive.stop()]
            if self._draining is not None:
                self._draining.cancel()
                tasks.append(self._draining)
            # After the close, because a cancelled query may end late, for example if the database does not respond.
            await asyncio.gather(*tasks, return_exceptions=True)
            self._release()

    def _release(self) -> None:
        if self._anonymous_timer is not None:
            self._anonymous_timer.cancel()
        for held in reversed(self._held):
            held.__exit__(None, None, None)

    async def _receive_until_closed(self) -> Exception | None:
        """Handles messages. Returns the reason to close; None if the client has disconnected."""
        self._drain.listeners.add(self._begin_drain)
        try:
            async with asyncio.timeout(None) as self._open:
                if self._drain.begun:
                    self._begin_drain()
                # No variable may hold the message: the connection waits for the next one most of the time.
                while await self._handle_frame(await self._socket.receive()):
                    pass
        except TimeoutError as error:
            return self._close_reason or error
        except Exception as error:
            return error
        finally:
            self._open = None
            self._drain.listeners.discard(self._begin_drain)
        return None

    def _end(self, reason: Exception) -> None:
        """Makes the connection close for this reason, unless there is one already."""
        if self._open is not None and self._close_reason is None:
            self._close_reason = reason
            self._open.reschedule(0)

    async def _close(self, error: Exception | None) -> None:
        if error is None or isinstance(error, DISCONNECTED):
            return
        if not isinstance(error, CloseSocket):
            mask(error, self._request_id)
            error = CloseSocket(protocol.INTERNAL_ERROR, "internal error")
        with suppress(*DISCONNECTED):
            try:
                async with asyncio.timeout(_CLOSE_TIMEOUT_SECONDS):
                    await self._socket.close(error.code, error.reason)
            except TimeoutError:  # the client reads nothing, so the close frame cannot be sent
                drop(self._socket.scope)

    async def _handle_frame(self, frame: Message) -> bool:
        """Handles an ASGI message. Returns False if the client has disconnected."""
        if frame["type"] == "websocket.disconnect":
            return False
        self._liveness.received()
        if (text := frame.get("text")) is None:
            raise CloseSocket(protocol.BAD_REQUEST, "messages must be text frames")
        if len(text) > self._limits.max_frame_bytes or len(text.encode()) > self._limits.max_frame_bytes:
            raise CloseSocket(protocol.TOO_BIG, f"a message is larger than {self._limits.max_frame_bytes} bytes")
        await self._handle_message(text)
        return True

    async def _handle_message(self, text: str) -> None:
        match parse_message(text):
            case protocol.ConnectionInit() as init:
                await self._handle_connection_init(init)
            case protocol.Ping(payload):
                await self._handle_ping(payload)
            case Subscribe() as subscribe:
                await self._handle_subscribe(subscribe)
            case protocol.Complete(id):
                self._operations.complete(id)
            case _:  # a pong: `received` has noted it
                pass

    def _end_session(self, ended: "asyncio.Future[InvalidToken]") -> None:
        if not ended.cancelled():
            self._end(CloseSocket(protocol.FORBIDDEN, ended.result().message))

    def _end_anonymous(self) -> None:
        seconds = self._limits.anonymous_seconds
        reason = f"a connection without credentials lasts {seconds:g} seconds: connect again with credentials"
        self._end(CloseSocket(protocol.UNAUTHORIZED, reason))

    def _begin_drain(self) -> None:
        self._draining = asyncio.create_task(self._close_when_drained())

    async def _close_when_drained(self) -> None:
        """Closes the socket during shutdown, once running queries and mutations have their responses."""
        await self._operations.drain()
        self._end(CloseSocket(protocol.SERVICE_RESTART, "this server is shutting down: connect again"))

    def _hold(self, resource: AbstractContextManager[T]) -> T:
        """Opens a resource until the connection has ended."""
        opened = resource.__enter__()
        self._held.append(resource)
        return opened

    async def _handle_connection_init(self, init: protocol.ConnectionInit) -> None:
        if not self._keep_alive.initialise():
            raise CloseSocket(protocol.TOO_MANY_INITS, "connection_init was sent twice")
        try:
            head = head_of(self._socket.scope)
            credential = credential_from_payload(init.payload) or credential_from_head(head)
            head.forget_headers()
            session = self._hold(self._sessions.open(await self._sessions.authenticate(credential)))
            self._hold(self._limiter.actor_connection(session.actor))
        except InvalidToken as problem:
            raise CloseSocket(protocol.FORBIDDEN, problem.message) from None
        except Problem as problem:
            raise CloseSocket(protocol.TRY_AGAIN_LATER, f"{problem.code}: {problem.message}") from None
        self._session = session
        if session.credential is None:
            seconds = self._limits.anonymous_seconds
            self._anonymous_timer = asyncio.get_running_loop().call_later(seconds, self._end_anonymous)
        else:
            session.ended.add_done_callback(self._end_session)
        await self._writer.write(server_message("connection_ack"))

    async def _handle_ping(self, payload: JsonObject | None) -> None:
        """Sends a pong with the ping's payload, or with `renewed` if the payload has a fresh credential."""
        try:
            credential = credential_from_payload(payload)
            if credential is not None:
                payload = {"renewed": await self._handle_reauthentication(credential)}
        except InvalidToken as problem:
            raise CloseSocket(protocol.FORBIDDEN, problem.message) from None
        await self._writer.write(server_message("pong", payload=payload))

    async def _handle_reauthentication(self, credential: Credential) -> bool:
        """Puts a fresh credential in force. Returns False if it cannot be checked at the moment."""
        if self._session is None:
            raise CloseSocket(protocol.UNAUTHORIZED, "send connection_init and wait for connection_ack first")
        try:
            async with asyncio.timeout(_REAUTHENTICATION_TIMEOUT_SECONDS):
                authenticated = await self._sessions.authenticate(credential)
        except InvalidToken:
            raise
        except (Problem, TimeoutError):
            return False
        if authenticated is not None:
            self._sessions.reauthenticate(self._session, authenticated)
        return True

    async def _handle_subscribe(self, message: Subscribe) -> None:
        if self._session is None:
            raise CloseSocket(protocol.UNAUTHORIZED, "send connection_init and wait for connection_ack first")
        await self._operations.start(message, self._session.actor)
