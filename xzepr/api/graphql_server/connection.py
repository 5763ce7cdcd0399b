"""One WebSocket that speaks graphql-transport-ws: who is at the other end, and the operations that run for them."""

import asyncio
from collections.abc import Generator, Iterable
from contextlib import ExitStack, aclosing, contextmanager, nullcontext, suppress
from typing import Any

import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from xzepr.api.auth import Credential, credential_from_headers, credential_from_payload
from xzepr.api.errors import Draining, JsonObject, TooManyOperations, error_objects
from xzepr.api.graphql_server import protocol as messages
from xzepr.api.graphql_server.errors import mask
from xzepr.api.graphql_server.limits import ConnectionLimiter, SocketLimits
from xzepr.api.graphql_server.liveness import ClientLiveness, unsent_bytes_of
from xzepr.api.graphql_server.operations import Call, GraphQLRequest, GraphQLResponse, GraphQLService, Operation
from xzepr.api.graphql_server.protocol import (
    CloseSocket,
    Complete,
    ConnectionInit,
    Ping,
    Subscribe,
    parse_message,
    server_message,
)
from xzepr.api.graphql_server.sessions import ConnectionSession, Sessions
from xzepr.api.middleware import drop, request_id_of
from xzepr.core.actor import Actor
from xzepr.core.errors import InvalidToken, Problem

_REAUTHENTICATION_TIMEOUT_SECONDS = 3.0
_CLOSE_TIMEOUT_SECONDS = 2.0
_SLOT_TIMEOUT_SECONDS = 1.0
_DISCONNECTED = (WebSocketDisconnect, WebSocketDisconnected)


class WebSocketConnection:
    """One accepted socket: who is at the other end, and the operations that run for them."""

    def __init__(
        self,
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
        self._authenticated = asyncio.Event()
        self._operations: set[asyncio.Task[None]] = set()
        """Each until it has ended: its last message is written, whatever the client wants of it meanwhile."""
        self._tasks_by_id: dict[str, asyncio.Task[None]] = {}
        """Those that the client knows of."""
        self._subscriptions: set[asyncio.Task[Any]] = set()
        self._mutations: set[asyncio.Task[Any]] = set()
        self._cancelled: set[asyncio.Task[Any]] = set()
        self._liveness = ClientLiveness(limits.stalled_seconds, unsent_bytes_of(socket.scope))

    async def run(self) -> None:
        """Serve until either end closes, or the client's credential holds no longer."""
        loops = [
            asyncio.create_task(loop())
            for loop in (self._receive_messages, self._monitor, self._require_session, self._close_when_drained)
        ]
        try:
            ended, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            self._cancel((*loops, *self._operations))
            await self._close(next((error for loop in loops if loop in ended and (error := loop.exception())), None))
        finally:
            self._cancel((*loops, *self._operations))
            # A query may take its time to end, as where the database has fallen silent; the client need not wait.
            await asyncio.gather(*loops, *self._operations, return_exceptions=True)
            self._resources.close()

    def _cancel(self, tasks: "Iterable[asyncio.Task[Any]]") -> None:
        """Each once: a second time would break off what an operation does to end well."""
        for task in {*tasks} - self._cancelled:
            task.cancel()
        self._cancelled.update(tasks)

    async def _close(self, error: BaseException | None) -> None:
        if error is None or isinstance(error, _DISCONNECTED):
            return
        if not isinstance(error, CloseSocket):
            mask(error, self._request_id)
            error = CloseSocket(messages.INTERNAL_ERROR, "internal error")
        with suppress(*_DISCONNECTED):
            try:
                async with asyncio.timeout(_CLOSE_TIMEOUT_SECONDS):
                    await self._socket.close(error.code, error.reason)
            except TimeoutError:  # who reads nothing takes no close frame either
                drop(self._socket.scope)

    async def _receive_messages(self) -> None:
        while True:
            received = await self._socket.receive()
            if received["type"] == "websocket.disconnect":
                return
            self._liveness.received()
            if (text := received.get("text")) is None:
                raise CloseSocket(messages.BAD_REQUEST, "messages are text")
            if len(text) > self._limits.max_frame_bytes or len(text.encode()) > self._limits.max_frame_bytes:
                raise CloseSocket(messages.TOO_BIG, f"a message is larger than {self._limits.max_frame_bytes} bytes")
            await self._handle_message(text)

    async def _handle_message(self, text: str) -> None:
        match parse_message(text):
            case ConnectionInit() as init:
                await self._handle_connection_init(init)
            case Ping(payload):
                await self._handle_ping(payload)
            case Subscribe() as subscribe:
                await self._handle_subscribe(subscribe)
            case Complete(id):
                task = self._tasks_by_id.pop(id, None)
                if task is not None and task not in self._mutations:  # a change goes on, and has its place till then
                    self._cancel((task,))
            case _:  # a pong, which was heard
                pass

    async def _monitor(self) -> None:
        """Close a socket that does not say who it is in time, or whose client has gone silent."""
        # Never wait_for, which before Python 3.12 loses a cancellation that comes together with what it waits for.
        try:
            async with asyncio.timeout(self._limits.init_timeout_seconds):
                await self._initialised.wait()
        except TimeoutError:
            raise CloseSocket(messages.INIT_TIMEOUT, "connection_init did not arrive in time") from None
        while True:
            await asyncio.sleep(self._limits.ping_seconds)
            if self._liveness.is_gone():
                raise CloseSocket(messages.GOING_AWAY, "no answer to a ping")
            if not self._liveness.has_pending_write:
                await self._ping()

    async def _ping(self) -> None:
        with suppress(TimeoutError):  # it cannot be sent to who does not read
            async with asyncio.timeout(self._limits.ping_seconds):
                await self._send(server_message("ping"))
                self._liveness.ping_sent()

    async def _send(self, text: str) -> None:
        await self._liveness.track_write(self._socket.send_text(text), len(text))

    async def _require_session(self) -> None:
        await self._authenticated.wait()
        assert self._session is not None, "that is what is known"
        if self._session.credential is None:
            await asyncio.sleep(self._limits.anonymous_seconds)
            raise CloseSocket(messages.UNAUTHORIZED, "nobody said in time who they are: connect again with credentials")
        raise CloseSocket(messages.FORBIDDEN, (await self._session.ended).message)

    async def _close_when_drained(self) -> None:
        """Once the process stops: lets what runs be answered, and closes. Who follows goes on elsewhere."""
        await self._drain.wait()
        self._cancel(self._subscriptions)
        if finishing := set(self._tasks_by_id.values()) - self._subscriptions:  # what comes from now on is not begun
            await asyncio.wait(finishing)
        raise CloseSocket(messages.SERVICE_RESTART, "this server stops: connect again")

    async def _handle_connection_init(self, init: ConnectionInit) -> None:
        if self._initialised.is_set():
            raise CloseSocket(messages.TOO_MANY_INITS, "connection_init was sent twice")
        self._initialised.set()
        try:
            credential = credential_from_payload(init.payload) or credential_from_headers(self._socket.headers)
            session = self._resources.enter_context(self._sessions.open(await self._sessions.authenticate(credential)))
            self._resources.enter_context(self._limiter.actor_connection(session.actor))
        except InvalidToken as problem:
            raise CloseSocket(messages.FORBIDDEN, problem.message) from None
        except Problem as problem:
            raise CloseSocket(messages.TRY_AGAIN_LATER, f"{problem.code}: {problem.message}") from None
        self._session = session
        self._authenticated.set()
        await self._send(server_message("connection_ack"))

    async def _handle_ping(self, payload: JsonObject | None) -> None:
        """Answer a ping: with its own payload, or where that held a credential, with whether it is now in force."""
        try:
            credential = credential_from_payload(payload)
            if credential is not None:
                payload = {"renewed": await self._handle_reauthentication(credential)}
        except InvalidToken as problem:
            raise CloseSocket(messages.FORBIDDEN, problem.message) from None
        await self._send(server_message("pong", payload=payload))

    async def _handle_reauthentication(self, credential: Credential) -> bool:
        """Whether the connection goes on with this credential; not where it cannot be checked at the moment."""
        if self._session is None:
            raise CloseSocket(messages.UNAUTHORIZED, "send connection_init and await its answer first")
        try:
            async with asyncio.timeout(_REAUTHENTICATION_TIMEOUT_SECONDS):
                proof = await self._sessions.authenticate(credential)
        except InvalidToken:
            raise
        except (Problem, TimeoutError):
            return False
        if proof is not None:
            self._sessions.reauthenticate(self._session, proof)
        return True

    async def _handle_subscribe(self, message: Subscribe) -> None:
        if self._session is None:
            raise CloseSocket(messages.UNAUTHORIZED, "send connection_init and await its answer first")
        if message.id in self._tasks_by_id:
            raise CloseSocket(messages.SUBSCRIBER_EXISTS, f"an operation with the id {message.id} is running")
        if not await self._has_free_slot():
            return await self._send_error(message.id, TooManyOperations(self._limits.max_operations))
        task = asyncio.create_task(self._run_operation(message, self._session.actor))
        self._tasks_by_id[message.id] = task
        self._operations.add(task)
        task.add_done_callback(
            lambda _: self._cleanup_operation(message.id, task)
        )  # one that was cancelled may never have begun
        return None

    async def _has_free_slot(self) -> bool:
        """Whether one more operation may run. Those that the client has just completed leave in a moment."""
        if len(self._operations) < self._limits.max_operations:
            return True
        if leaving := self._operations - self._mutations - set(self._tasks_by_id.values()):
            await asyncio.wait(leaving, timeout=_SLOT_TIMEOUT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        return len(self._operations) < self._limits.max_operations

    def _cleanup_operation(self, id: str, task: "asyncio.Task[Any]") -> None:
        """The operation has ended, and its id is free, unless it already belongs to another one."""
        self._operations.discard(task)
        self._cancelled.discard(task)
        if self._tasks_by_id.get(id) is task:
            del self._tasks_by_id[id]

    async def _run_operation(self, message: Subscribe, actor: Actor) -> None:
        """One operation from its first message to its last. Nothing that happens in it concerns the others."""
        id, request, task = message.id, message.request, asyncio.current_task()
        assert task is not None, "this runs in a task"
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
        # Before anything else runs, so that a client who hears of the end may use the id again at once.
        self._cleanup_operation(id, task)

    async def _execute(self, id: str, request: GraphQLRequest, actor: Actor, task: "asyncio.Task[Any]") -> bool:
        """Whether the client is told of the end."""
        call = Call(actor, self._request_id)
        operation = self._service.prepare(request, actor)
        if operation.is_subscription:
            with _listed(self._subscriptions, task):
                return await self._stream(id, operation, call)
        if self._drain.begun:
            raise Draining
        with _listed(self._mutations, task) if operation.type == "mutation" else nullcontext():
            answer = await self._service.run(operation, call)
        if self._tasks_by_id.get(id) is not task:
            return False
        await self._send_next(id, answer)
        return True

    async def _stream(self, id: str, operation: Operation, call: Call) -> bool:
        if self._drain.begun:  # the socket is closed in a moment, and clients subscribe again on the next one
            return False
        answers = self._service.stream(operation, call)
        with self._limiter.subscription(call.actor, "websocket", operation.request):
            async with aclosing(answers):
                async for answer in answers:
                    await self._send_next(id, answer)
        return True

    async def _send_next(self, id: str, answer: GraphQLResponse) -> None:
        await self._send(server_message("next", id, orjson.Fragment(answer.to_json())))

    async def _send_error(self, id: str, problem: Problem) -> None:
        await self._send(server_message("error", id, error_objects(problem)))


@contextmanager
def _listed(of: "set[asyncio.Task[Any]]", task: "asyncio.Task[Any]") -> Generator[None]:
    of.add(task)
    try:
        yield
    finally:
        of.discard(task)
