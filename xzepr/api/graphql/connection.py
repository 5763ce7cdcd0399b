"""One WebSocket that speaks graphql-transport-ws: who is at the other end, and the operations that run for them."""

import asyncio
from collections.abc import Generator, Iterable
from contextlib import ExitStack, aclosing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from xzepr.api.auth import Credential, credentials_in, credentials_of
from xzepr.api.errors import Draining, JsonObject, TooManyOperations, described
from xzepr.api.graphql import messages
from xzepr.api.graphql.capacity import Capacity
from xzepr.api.graphql.messages import CloseSocket, Complete, Init, Ping, Subscribe, message_of, server_message
from xzepr.api.graphql.operations import Answer, Call, GraphQLRequest, GraphQLService, Operation
from xzepr.api.graphql.problems import masked
from xzepr.api.graphql.pulse import Pulse, unsent_in
from xzepr.api.graphql.sessions import Session, Sessions
from xzepr.api.middleware import drop, request_id_of
from xzepr.core.actor import Actor
from xzepr.core.errors import InvalidToken, Problem

_RENEWAL_SECONDS = 3.0
_CLOSE_SECONDS = 2.0
_LEAVING_SECONDS = 1.0
_LEFT = (WebSocketDisconnect, WebSocketDisconnected)


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """What one socket may take."""

    init_timeout_seconds: float = 3
    ping_seconds: float = 12
    """A socket from which nothing has come between two pings is closed."""
    stalled_seconds: float = 300
    """Unless it is behind with reading: then it has so long."""
    max_frame_bytes: int = 1024 * 1024
    max_operations: int = 100
    """Operations that run at the same time."""
    anonymous_seconds: float = 60
    """Who has not said who they are may only log in, and has so long."""


class Connection:
    """One accepted socket: who is at the other end, and the operations that run for them."""

    def __init__(
        self, socket: WebSocket, service: GraphQLService, sessions: Sessions, capacity: Capacity, limits: SocketLimits
    ) -> None:
        self._socket = socket
        self._service = service
        self._drain = service.drain
        self._sessions = sessions
        self._capacity = capacity
        self._limits = limits
        self._request_id = request_id_of(socket.scope)
        self._held = ExitStack()
        self._initialised = asyncio.Event()
        self._session: Session | None = None
        self._known = asyncio.Event()
        self._operations: set[asyncio.Task[None]] = set()
        """Each until it has ended: its last message is written, whatever the client wants of it meanwhile."""
        self._ids: dict[str, asyncio.Task[None]] = {}
        """Those that the client knows of."""
        self._following: set[asyncio.Task[Any]] = set()
        self._changing: set[asyncio.Task[Any]] = set()
        self._cancelled: set[asyncio.Task[Any]] = set()
        self._pulse = Pulse(limits.stalled_seconds, unsent_in(socket.scope))

    async def run(self) -> None:
        """Serve until either end closes, or the client's credential holds no longer."""
        loops = [asyncio.create_task(loop()) for loop in (self._read, self._watch, self._must_hold, self._leave)]
        try:
            ended, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            self._cancel((*loops, *self._operations))
            await self._close(next((error for loop in loops if loop in ended and (error := loop.exception())), None))
        finally:
            self._cancel((*loops, *self._operations))
            # A query may take its time to end, as where the database has fallen silent; the client need not wait.
            await asyncio.gather(*loops, *self._operations, return_exceptions=True)
            self._held.close()

    def _cancel(self, tasks: "Iterable[asyncio.Task[Any]]") -> None:
        """Each once: a second time would break off what an operation does to end well."""
        for task in {*tasks} - self._cancelled:
            task.cancel()
        self._cancelled.update(tasks)

    async def _close(self, error: BaseException | None) -> None:
        if error is None or isinstance(error, _LEFT):
            return
        if not isinstance(error, CloseSocket):
            masked(error, self._request_id)
            error = CloseSocket(messages.INTERNAL_ERROR, "internal error")
        with suppress(*_LEFT):
            try:
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._socket.close(error.code, error.reason)
            except TimeoutError:  # who reads nothing takes no close frame either
                drop(self._socket.scope)

    async def _read(self) -> None:
        while True:
            received = await self._socket.receive()
            if received["type"] == "websocket.disconnect":
                return
            self._pulse.heard()
            text = received.get("text")
            if text is None:
                raise CloseSocket(messages.BAD_REQUEST, "messages are text")
            if len(text) > self._limits.max_frame_bytes or len(text.encode()) > self._limits.max_frame_bytes:
                raise CloseSocket(messages.TOO_BIG, f"a message is larger than {self._limits.max_frame_bytes} bytes")
            await self._take(text)

    async def _take(self, text: str) -> None:
        match message_of(text):
            case Init() as init:
                await self._initialise(init)
            case Ping(payload):
                await self._pong(payload)
            case Subscribe() as subscribe:
                await self._subscribe(subscribe)
            case Complete(id):
                task = self._ids.pop(id, None)
                if task is not None and task not in self._changing:  # a change goes on, and has its place till then
                    self._cancel((task,))
            case _:  # a pong, which was heard
                pass

    async def _watch(self) -> None:
        """Close a socket that does not say who it is in time, or whose client has gone silent."""
        # Never wait_for, which before Python 3.12 loses a cancellation that comes together with what it waits for.
        try:
            async with asyncio.timeout(self._limits.init_timeout_seconds):
                await self._initialised.wait()
        except TimeoutError:
            raise CloseSocket(messages.INIT_TIMEOUT, "connection_init did not arrive in time") from None
        while True:
            await asyncio.sleep(self._limits.ping_seconds)
            if self._pulse.gone():
                raise CloseSocket(messages.GOING_AWAY, "no answer to a ping")
            if not self._pulse.waiting:
                await self._ping()

    async def _ping(self) -> None:
        with suppress(TimeoutError):  # it cannot be sent to who does not read
            async with asyncio.timeout(self._limits.ping_seconds):
                await self._say(server_message("ping"))
                self._pulse.pinged()

    async def _say(self, text: str) -> None:
        await self._pulse.write(self._socket.send_text(text), len(text))

    async def _must_hold(self) -> None:
        await self._known.wait()
        assert self._session is not None, "that is what is known"
        if self._session.proof is None:
            await asyncio.sleep(self._limits.anonymous_seconds)
            raise CloseSocket(messages.UNAUTHORIZED, "nobody said in time who they are: connect again with credentials")
        raise CloseSocket(messages.FORBIDDEN, (await self._session.over).message)

    async def _leave(self) -> None:
        """Once the process stops: lets what runs be answered, and closes. Who follows goes on elsewhere."""
        await self._drain.wait()
        self._cancel(self._following)
        if finishing := set(self._ids.values()) - self._following:  # what comes from now on is not begun
            await asyncio.wait(finishing)
        raise CloseSocket(messages.SERVICE_RESTART, "this server stops: connect again")

    async def _initialise(self, init: Init) -> None:
        if self._initialised.is_set():
            raise CloseSocket(messages.TOO_MANY_INITS, "connection_init was sent twice")
        self._initialised.set()
        try:
            credential = credentials_in(init.payload) or credentials_of(self._socket.headers)
            session = self._held.enter_context(self._sessions.open(await self._sessions.prove(credential)))
            self._held.enter_context(self._capacity.connection_of(session.actor))
        except InvalidToken as problem:
            raise CloseSocket(messages.FORBIDDEN, problem.message) from None
        except Problem as problem:
            raise CloseSocket(messages.TRY_AGAIN_LATER, f"{problem.code}: {problem.message}") from None
        self._session = session
        self._known.set()
        await self._say(server_message("connection_ack"))

    async def _pong(self, payload: JsonObject | None) -> None:
        """Answer a ping: with its own payload, or where that held a credential, with whether it is now in force."""
        try:
            credential = credentials_in(payload)
            if credential is not None:
                payload = {"renewed": await self._renew(credential)}
        except InvalidToken as problem:
            raise CloseSocket(messages.FORBIDDEN, problem.message) from None
        await self._say(server_message("pong", payload=payload))

    async def _renew(self, credential: Credential) -> bool:
        """Whether the connection goes on with this credential; not where it cannot be checked at the moment."""
        if self._session is None:
            raise CloseSocket(messages.UNAUTHORIZED, "send connection_init and await its answer first")
        try:
            async with asyncio.timeout(_RENEWAL_SECONDS):
                proof = await self._sessions.prove(credential)
        except InvalidToken:
            raise
        except (Problem, TimeoutError):
            return False
        if proof is not None:
            self._sessions.renew(self._session, proof)
        return True

    async def _subscribe(self, message: Subscribe) -> None:
        if self._session is None:
            raise CloseSocket(messages.UNAUTHORIZED, "send connection_init and await its answer first")
        if message.id in self._ids:
            raise CloseSocket(messages.SUBSCRIBER_EXISTS, f"an operation with the id {message.id} is running")
        if not await self._has_room():
            return await self._refuse(message.id, TooManyOperations(self._limits.max_operations))
        task = asyncio.create_task(self._operate(message, self._session.actor))
        self._ids[message.id] = task
        self._operations.add(task)
        task.add_done_callback(lambda _: self._forget(message.id, task))  # one that was cancelled may never have begun
        return None

    async def _has_room(self) -> bool:
        """Whether one more operation may run. Those that the client has just completed leave in a moment."""
        if len(self._operations) < self._limits.max_operations:
            return True
        if leaving := self._operations - self._changing - set(self._ids.values()):
            await asyncio.wait(leaving, timeout=_LEAVING_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        return len(self._operations) < self._limits.max_operations

    def _forget(self, id: str, task: "asyncio.Task[Any]") -> None:
        """The operation has ended, and its id is free, unless it already belongs to another one."""
        self._operations.discard(task)
        self._cancelled.discard(task)
        if self._ids.get(id) is task:
            del self._ids[id]

    async def _operate(self, message: Subscribe, actor: Actor) -> None:
        """One operation from its first message to its last. Nothing that happens in it concerns the others."""
        id, request, task = message.id, message.request, asyncio.current_task()
        assert task is not None, "this runs in a task"
        with suppress(*_LEFT):
            try:
                if isinstance(request, Problem):
                    raise request
                if await self._answer(id, request, actor, task):
                    await self._say(server_message("complete", id))
            except Problem as problem:
                await self._refuse(id, problem)
            except _LEFT:
                raise
            except Exception as error:
                await self._say(server_message("error", id, [masked(error, self._request_id)]))
        # Before anything else runs, so that a client who hears of the end may use the id again at once.
        self._forget(id, task)

    async def _answer(self, id: str, request: GraphQLRequest, actor: Actor, task: "asyncio.Task[Any]") -> bool:
        """Whether the client is told of the end."""
        call = Call(actor, self._request_id)
        operation = self._service.prepare(request, actor)
        if operation.is_subscription:
            with _member(self._following, task):
                return await self._follow(id, operation, call)
        if self._drain.begun:
            raise Draining
        with _member(self._changing, task) if operation.type == "mutation" else nullcontext():
            answer = await self._service.run(operation, call)
        if self._ids.get(id) is not task:
            return False
        await self._next(id, answer)
        return True

    async def _follow(self, id: str, operation: Operation, call: Call) -> bool:
        if self._drain.begun:  # the socket is closed in a moment, and clients subscribe again on the next one
            return False
        answers = self._service.stream(operation, call)
        with self._capacity.subscription(call.actor, "websocket", operation.request):
            async with aclosing(answers):
                async for answer in answers:
                    await self._next(id, answer)
        return True

    async def _next(self, id: str, answer: Answer) -> None:
        await self._say(server_message("next", id, orjson.Fragment(answer.text())))

    async def _refuse(self, id: str, problem: Problem) -> None:
        await self._say(server_message("error", id, described(problem)))


@contextmanager
def _member(of: "set[asyncio.Task[Any]]", task: "asyncio.Task[Any]") -> Generator[None]:
    of.add(task)
    try:
        yield
    finally:
        of.discard(task)
