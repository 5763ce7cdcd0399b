"""The operations of one WebSocket: each runs in its own task and sends its messages under its id."""

import asyncio
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial

import orjson

from xzepr.api.errors import Draining, TooManyOperations, error_objects
from xzepr.api.graphql_server import protocol
from xzepr.api.graphql_server.errors import mask
from xzepr.api.graphql_server.limits import ConnectionLimiter
from xzepr.api.graphql_server.operations import Call, GraphQLRequest, GraphQLResponse, GraphQLService, Operation
from xzepr.api.graphql_server.protocol import CloseSocket, Subscribe, server_message
from xzepr.api.graphql_server.socket_writer import DISCONNECTED, NextFrames, SocketWriter, next_message
from xzepr.core.actor import Actor
from xzepr.core.errors import Problem

_SLOT_TIMEOUT_SECONDS = 1.0  # of a new operation's wait for a cancelled one to end


@dataclass(eq=False, slots=True)
class _Running:
    """An operation whose task has not ended."""

    id: str
    task: "asyncio.Task[None] | None" = None
    type: str = ""
    """`query`, `mutation` or `subscription`; empty until the document is parsed."""
    is_cancelled: bool = False

    def cancel(self) -> None:
        """Cancels the task once: a second cancellation would interrupt the task's clean-up."""
        if not self.is_cancelled and self.task is not None:
            self.is_cancelled = True
            self.task.cancel()


class SocketOperations:
    """Starts, completes and cancels operations. An error of one does not affect the others."""

    __slots__ = ("_by_id", "_frames", "_limiter", "_max_operations", "_request_id", "_running", "_service", "_writer")

    def __init__(
        self,
        service: GraphQLService,
        limiter: ConnectionLimiter,
        writer: SocketWriter,
        frames: NextFrames,
        *,
        request_id: str,
        max_operations: int,
    ) -> None:
        self._service = service
        self._limiter = limiter
        self._writer = writer
        self._frames = frames
        self._request_id = request_id
        self._max_operations = max_operations
        self._running: set[_Running] = set()
        """All operations whose tasks have not ended, including those that the client has completed."""
        self._by_id: dict[str, _Running] = {}
        """The operations that the client has not completed."""

    async def start(self, message: Subscribe, actor: Actor) -> None:
        """Starts an operation. Raises CloseSocket if its id is in use."""
        id = message.id
        if id in self._by_id:
            raise CloseSocket(protocol.SUBSCRIBER_EXISTS, f"an operation with the id {id} is already running")
        if not await self._wait_for_slot():
            return await self._send_error(id, TooManyOperations(self._max_operations))
        running = _Running(id)
        running.task = asyncio.create_task(self._run(running, message.request, actor))
        self._by_id[id] = running
        self._running.add(running)
        # As a callback, too, because a task that is cancelled before it starts never runs its own clean-up.
        running.task.add_done_callback(partial(self._remove, running))
        return None

    def complete(self, id: str) -> None:
        """Ends an operation for the client. A mutation continues and keeps its slot, but sends no response."""
        running = self._by_id.pop(id, None)
        if running is not None and running.type != "mutation":
            running.cancel()

    def cancel(self) -> "list[asyncio.Task[None]]":
        """Cancels all operations. Returns their tasks, which the caller must await."""
        for running in self._running:
            running.cancel()
        return [running.task for running in self._running if running.task is not None]

    async def drain(self) -> None:
        """Ends all subscriptions and waits for the other operations that the client has not completed."""
        for running in self._running:
            if running.type == "subscription":
                running.cancel()
        unfinished = [running.task for running in self._by_id.values() if running.type != "subscription"]
        if tasks := [task for task in unfinished if task is not None]:
            await asyncio.wait(tasks)

    async def _wait_for_slot(self) -> bool:
        """Waits briefly for cancelled operations to end. Returns whether another operation may run."""
        if len(self._running) < self._max_operations:
            return True
        if cancelled := [
            running.task for running in self._running if running.is_cancelled and running.task is not None
        ]:
            await asyncio.wait(cancelled, timeout=_SLOT_TIMEOUT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        return len(self._running) < self._max_operations

    def _remove(self, running: _Running, _: object = None) -> None:
        """Removes an ended operation and frees its id, unless a newer operation already uses the id."""
        self._running.discard(running)
        if self._by_id.get(running.id) is running:
            del self._by_id[running.id]

    async def _run(self, running: _Running, request: GraphQLRequest | Problem, actor: Actor) -> None:
        """Runs one operation and sends all its messages."""
        with suppress(*DISCONNECTED):
            try:
                if isinstance(request, Problem):
                    raise request
                operation = self._service.prepare(request, actor)
                running.type = operation.type
                run = self._stream if operation.is_subscription else self._execute
                if await run(running, operation, Call(actor, self._request_id)):
                    await self._writer.write(server_message("complete", running.id))
            except Problem as problem:
                await self._send_error(running.id, problem)
            except DISCONNECTED:
                raise
            except Exception as error:
                await self._writer.write(server_message("error", running.id, [mask(error, self._request_id)]))
        # At once, so that a client may reuse the id as soon as it receives the last message.
        self._remove(running)

    async def _execute(self, running: _Running, operation: Operation, call: Call) -> bool:
        """Runs a query or a mutation and sends its response. Returns whether `complete` must follow."""
        if self._service.drain.begun:
            raise Draining
        response = await self._service.run(operation, call)
        if self._by_id.get(running.id) is not running:  # the client has completed it and expects no response
            return False
        await self._send_next(orjson.dumps(running.id), response)
        return True

    async def _stream(self, running: _Running, operation: Operation, call: Call) -> bool:
        """Sends the responses of a subscription. Returns whether `complete` must follow."""
        # During a drain the socket closes in a moment, and clients subscribe again on their next connection.
        if self._service.drain.begun:
            return False
        json_id = bytes(memoryview(orjson.dumps(running.id)))  # a copy, because orjson's own result takes 4 KB
        responses = self._service.stream(operation, call, partial(self._push_next, json_id))
        with self._limiter.subscription(call.actor, "websocket", operation.request):
            async with aclosing(responses):
                async for response in responses:
                    await self._send_next(json_id, response)
        return True

    def _push_next(self, json_id: bytes, response: GraphQLResponse) -> bool:
        """Sends a response at once; returns False if it has to wait."""
        return self._writer.write_now(self._frames.frame(json_id, response))

    async def _send_next(self, json_id: bytes, response: GraphQLResponse) -> None:
        if not self._push_next(json_id, response):
            await self._writer.write(next_message(json_id, response))

    async def _send_error(self, id: str, problem: Problem) -> None:
        await self._writer.write(server_message("error", id, error_objects(problem)))
