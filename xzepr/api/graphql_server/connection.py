"""One graphql-transport-ws connection: the client's session, its operations, and the reasons to close it."""

import asyncio
from collections.abc import Generator, Iterable
from contextlib import ExitStack, aclosing, contextmanager, nullcontext, suppress
from typing import Any

import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from xzepr.api.auth import Credential, credential_from_head, credential_from_payload
from xzepr.api.client_connection import drop
from xzepr.api.errors import Draining, JsonObject, TooManyOperations, error_objects
from xzepr.api.graphql_server import protocol
from xzepr.api.graphql_server.errors import mask
from xzepr.api.graphql_server.limits import ConnectionLimiter, SocketLimits
from xzepr.api.graphql_server.liveness import ClientLiveness, unsent_bytes_of
from xzepr.api.graphql_server.operations import Call, GraphQLRequest, GraphQLResponse, GraphQLService, Operation
from xzepr.api.graphql_server.protocol import CloseSocket, Subscribe, parse_message, server_message
from xzepr.api.graphql_server.sessions import ConnectionSession, Sessions
from xzepr.api.request_head import head_of, request_id_of
from xzepr.core.actor import Actor
from xzepr.core.errors import InvalidToken, Problem

_REAUTHENTICATION_TIMEOUT_SECONDS = 3.0  # of the check of a fresh credential in a ping
_CLOSE_TIMEOUT_SECONDS = 2.0  # of sending the close frame
_SLOT_TIMEOUT_SECONDS = 1.0  # of a new operation's wait for a cancelled one to end
_DISCONNECTED = (WebSocketDisconnect, WebSocketDisconnected)


class WebSocketConnection:
    """Serves one accepted WebSocket: authenticates the client, runs its operations and decides when to close."""

    def __init__(
        self,
        *,
        socket: WebSocket,
        service: GraphQLService,
        sessions: Sessions,
        limiter: ConnectionLimiter,
        limits: SocketLimits,
    ) -> None:
        self._socket = socket
        self._service = service
        self._drain = service.drain
        self._sessions = sessions
        self._limiter = limiter
        self._limits = limits
        self._request_id = request_id_of(socket.scope)
        self._resources = ExitStack()
        self._initialised = asyncio.Event()
        self._session: ConnectionSession | None = None
        self._session_opened = asyncio.Event()
        self._operations: set[asyncio.Task[None]] = set()
        """All tasks that have not ended, including operations that the client has completed."""
        self._tasks_by_id: dict[str, asyncio.Task[None]] = {}
        """The operations that the client has not completed."""
        self._subscriptions: set[asyncio.Task[Any]] = set()
        self._mutations: set[asyncio.Task[Any]] = set()
        self._cancelled: set[asyncio.Task[Any]] = set()
        self._liveness = ClientLiveness(limits.stalled_seconds, unsent_bytes_of(socket.scope))

    async def run(self) -> None:
        """Serves the connection until the client disconnects or one of the loops closes it."""
        loops = [
            asyncio.create_task(loop())
            for loop in (self._receive_messages, self._monitor, self._require_session, self._close_when_drained)
        ]
        try:
            done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            self._cancel((*loops, *self._operations))
            await self._close(next((error for loop in loops if loop in done and (error := loop.exception())), None))
        finally:
            self._cancel((*loops, *self._operations))
            # After the close, because a cancelled query may end late, for example if the database does not respond.
            await asyncio.gather(*loops, *self._operations, return_exceptions=True)
            self._resources.close()

    def _cancel(self, tasks: "Iterable[asyncio.Task[Any]]") -> None:
        """Cancels each task once: a second cancellation would interrupt the task's clean-up."""
        for task in {*tasks} - self._cancelled:
            task.cancel()
        self._cancelled.update(tasks)

    async def _close(self, error: BaseException | None) -> None:
        if error is None or isinstance(error, _DISCONNECTED):
            return
        if not isinstance(error, CloseSocket):
            mask(error, self._request_id)
            error = CloseSocket(protocol.INTERNAL_ERROR, "internal error")
        with suppress(*_DISCONNECTED):
            try:
                async with asyncio.timeout(_CLOSE_TIMEOUT_SECONDS):
                    await self._socket.close(error.code, error.reason)
            except TimeoutError:  # the client reads nothing, so the close frame cannot be sent
                drop(self._socket.scope)

    async def _receive_messages(self) -> None:
        while True:
            frame = await self._socket.receive()
            if frame["type"] == "websocket.disconnect":
                return
            self._liveness.received()
            if (text := frame.get("text")) is None:
                raise CloseSocket(protocol.BAD_REQUEST, "messages must be text frames")
            if len(text) > self._limits.max_frame_bytes or len(text.encode()) > self._limits.max_frame_bytes:
                raise CloseSocket(protocol.TOO_BIG, f"a message is larger than {self._limits.max_frame_bytes} bytes")
            await self._handle_message(text)

    async def _handle_message(self, text: str) -> None:
        match parse_message(text):
            case protocol.ConnectionInit() as init:
                await self._handle_connection_init(init)
            case protocol.Ping(payload):
                await self._handle_ping(payload)
            case Subscribe() as subscribe:
                await self._handle_subscribe(subscribe)
            case protocol.Complete(id):
                task = self._tasks_by_id.pop(id, None)
                if task is not None and task not in self._mutations:  # a mutation continues and keeps its slot
                    self._cancel((task,))
            case _:  # a pong: `received` has noted it
                pass

    async def _monitor(self) -> None:
        """Closes the socket if `connection_init` does not arrive in time, or if the client no longer responds."""
        # Not wait_for: before Python 3.12 it loses a cancellation that arrives together with the result.
        try:
            async with asyncio.timeout(self._limits.init_timeout_seconds):
                await self._initialised.wait()
        except TimeoutError:
            raise CloseSocket(protocol.INIT_TIMEOUT, "connection_init did not arrive in time") from None
        while True:
            await asyncio.sleep(self._limits.ping_seconds)
            if self._liveness.is_gone():
                raise CloseSocket(protocol.GOING_AWAY, "the client did not respond to a ping")
            if not self._liveness.has_pending_write:
                await self._ping()

    async def _ping(self) -> None:
        with suppress(TimeoutError):  # the client does not read; `is_gone` decides how long that may last
            async with asyncio.timeout(self._limits.ping_seconds):
                await self._send(server_message("ping"))
                self._liveness.ping_sent()

    async def _send(self, text: str) -> None:
        await self._liveness.track_write(self._socket.send_text(text), len(text))

    async def _require_session(self) -> None:
        """Closes the socket when the credential becomes invalid; without a credential, after a fixed time."""
        await self._session_opened.wait()
        assert self._session is not None, "the session is set before the event"
        if self._session.credential is None:
            seconds = self._limits.anonymous_seconds
            await asyncio.sleep(seconds)
            reason = f"a connection without credentials lasts {seconds:g} seconds: connect again with credentials"
            raise CloseSocket(protocol.UNAUTHORIZED, reason)
        raise CloseSocket(protocol.FORBIDDEN, (await self._session.ended).message)

    async def _close_when_drained(self) -> None:
        """Closes the socket during shutdown, once running queries and mutations have their responses."""
        await self._drain.wait()
        self._cancel(self._subscriptions)
        if unfinished := set(self._tasks_by_id.values()) - self._subscriptions:  # later operations are not executed
            await asyncio.wait(unfinished)
        raise CloseSocket(protocol.SERVICE_RESTART, "this server is shutting down: connect again")

    async def _handle_connection_init(self, init: protocol.ConnectionInit) -> None:
        if self._initialised.is_set():
            raise CloseSocket(protocol.TOO_MANY_INITS, "connection_init was sent twice")
        self._initialised.set()
        try:
            credential = credential_from_payload(init.payload) or credential_from_head(head_of(self._socket.scope))
            session = self._resources.enter_context(self._sessions.open(await self._sessions.authenticate(credential)))
            self._resources.enter_context(self._limiter.actor_connection(session.actor))
        except InvalidToken as problem:
            raise CloseSocket(protocol.FORBIDDEN, problem.message) from None
        except Problem as problem:
            raise CloseSocket(protocol.TRY_AGAIN_LATER, f"{problem.code}: {problem.message}") from None
        self._session = session
        self._session_opened.set()
        await self._send(server_message("connection_ack"))

    async def _handle_ping(self, payload: JsonObject | None) -> None:
        """Sends a pong with the ping's payload, or with `renewed` if the payload has a fresh credential."""
        try:
            credential = credential_from_payload(payload)
            if credential is not None:
                payload = {"renewed": await self._handle_reauthentication(credential)}
        except InvalidToken as problem:
            raise CloseSocket(protocol.FORBIDDEN, problem.message) from None
        await self._send(server_message("pong", payload=payload))

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
        if message.id in self._tasks_by_id:
            raise CloseSocket(protocol.SUBSCRIBER_EXISTS, f"an operation with the id {message.id} is already running")
        if not await self._wait_for_slot():
            return await self._send_error(message.id, TooManyOperations(self._limits.max_operations))
        task = asyncio.create_task(self._run_operation(message, self._session.actor))
        self._tasks_by_id[message.id] = task
        self._operations.add(task)
        # As a callback, too, because a task that is cancelled before it starts never runs its own clean-up.
        task.add_done_callback(lambda _: self._cleanup_operation(message.id, task))
        return None

    async def _wait_for_slot(self) -> bool:
        """Waits briefly for cancelled operations to end. Returns whether another operation may run."""
        if len(self._operations) < self._limits.max_operations:
            return True
        if cancelled := self._operations - self._mutations - set(self._tasks_by_id.values()):
            await asyncio.wait(cancelled, timeout=_SLOT_TIMEOUT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        return len(self._operations) < self._limits.max_operations

    def _cleanup_operation(self, id: str, task: "asyncio.Task[Any]") -> None:
        """Removes an ended operation and frees its id, unless a newer operation already uses the id."""
        self._operations.discard(task)
        self._cancelled.discard(task)
        if self._tasks_by_id.get(id) is task:
            del self._tasks_by_id[id]

    async def _run_operation(self, message: Subscribe, actor: Actor) -> None:
        """Runs one operation and sends all its messages. Its errors do not affect other operations."""
        id, request, task = message.id, message.request, asyncio.current_task()
        assert task is not None, "_handle_subscribe creates a task for it"
        with suppress(*_DISCONNECTED):
            try:
                if isinstance(request, Problem):
                    raise request
                if await self._execute(id, request, actor, task):
                    await self._send(server_message("complete", id))
            except Problem as problem:
                await self._send_error(id, problem)
            except _DISCONNECTED:
                raise
            except Exception as error:
                await self._send(server_message("error", id, [mask(error, self._request_id)]))
        # At once, so that a client may reuse the id as soon as it receives the last message.
        self._cleanup_operation(id, task)

    async def _execute(self, id: str, request: GraphQLRequest, actor: Actor, task: "asyncio.Task[Any]") -> bool:
        """Runs an operation and sends its responses. Returns whether `complete` must follow."""
        call = Call(actor, self._request_id)
        operation = self._service.prepare(request, actor)
        if operation.is_subscription:
            with _registered(task, self._subscriptions):
                return await self._stream(id, operation, call)
        if self._drain.begun:
            raise Draining
        with _registered(task, self._mutations) if operation.type == "mutation" else nullcontext():
            response = await self._service.run(operation, call)
        if self._tasks_by_id.get(id) is not task:  # the client has completed it and expects no response
            return False
        await self._send_next(id, response)
        return True

    async def _stream(self, id: str, operation: Operation, call: Call) -> bool:
        if self._drain.begun:  # the socket closes in a moment, and clients subscribe again on their next connection
            return False
        responses = self._service.stream(operation, call)
        with self._limiter.subscription(call.actor, "websocket", operation.request):
            async with aclosing(responses):
                async for response in responses:
                    await self._send_next(id, response)
        return True

    async def _send_next(self, id: str, response: GraphQLResponse) -> None:
        await self._send(server_message("next", id, orjson.Fragment(response.to_json())))

    async def _send_error(self, id: str, problem: Problem) -> None:
        await self._send(server_message("error", id, error_objects(problem)))


@contextmanager
def _registered(task: "asyncio.Task[Any]", tasks: "set[asyncio.Task[Any]]") -> Generator[None]:
    """Keeps a task in a set while the block runs."""
    tasks.add(task)
    try:
        yield
    finally:
        tasks.discard(task)
