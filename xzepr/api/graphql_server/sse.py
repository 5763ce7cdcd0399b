"""GraphQL over server-sent events, with one operation per response.

Implements the distinct connections mode of https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md, and adds
`id:`, from which clients resume.
"""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing, suppress
from time import monotonic

import orjson
from starlette.types import Receive, Scope, Send

from xzepr.api.client_connection import drop
from xzepr.api.errors import Draining, error_objects, problem_response
from xzepr.api.graphql_server.errors import mask
from xzepr.api.graphql_server.limits import ConnectionLimiter
from xzepr.api.graphql_server.liveness import ClientLiveness
from xzepr.api.graphql_server.operations import Call, GraphQLRequest, GraphQLResponse, GraphQLService, Operation
from xzepr.api.graphql_server.sessions import AuthenticatedCredential, ConnectionSession, Sessions
from xzepr.core.errors import Problem

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
_END_TIMEOUT_SECONDS = 2.0  # of sending the last bytes
_RECONNECT_MILLISECONDS = (1000, 5000)  # range of the random delay during shutdown
_COMMENT = b":\n\n"
_COMPLETE = b"event: complete\ndata:\n\n"


class EventStream:
    """The ASGI response to one operation: `next` for each GraphQL response, `complete` at the end, comments in between.

    An operation that is not executed is passed as its response, which has errors. Any later Problem is also sent as a
    `next` with errors, for example when the credential becomes invalid. If a limit is reached, the response is that
    error with its HTTP status.
    """

    def __init__(
        self,
        *,
        service: GraphQLService,
        operation: Operation | GraphQLResponse,
        call: Call,
        credential: AuthenticatedCredential | None,
        sessions: Sessions,
        limiter: ConnectionLimiter,
        heartbeat_seconds: float,
        liveness: ClientLiveness,
    ) -> None:
        self._call = call
        self._credential = credential
        self._sessions = sessions
        self._limiter = limiter
        self._heartbeat_seconds = heartbeat_seconds
        self._last_sent = monotonic()
        self._liveness = liveness
        self._timed_out = False
        self._drain = service.drain
        self._subscription: GraphQLRequest | None = None
        if isinstance(operation, Operation) and operation.is_subscription:
            self._subscription = operation.request
        self._responses = _responses(service, operation, call)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends events until the operation ends, the client disconnects, or its credential becomes invalid."""
        with ExitStack() as resources:
            try:
                resources.enter_context(self._limiter.connection("sse"))
                resources.enter_context(self._limiter.actor_connection(self._call.actor))
                if self._subscription is not None:
                    if self._drain.begun:
                        raise Draining
                    resources.enter_context(self._limiter.subscription(self._call.actor, "sse", self._subscription))
            except Problem as problem:
                return await problem_response(problem)(scope, receive, send)
            session = resources.enter_context(self._sessions.open(self._credential))
            await self._serve(session, receive, send)
        if self._timed_out and drop(scope):
            await _wait_for_disconnect(receive)
        return None

    async def _serve(self, session: ConnectionSession, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        writing = asyncio.create_task(self._write(send))
        others = [asyncio.create_task(self._keep_alive(send)), asyncio.create_task(_wait_for_disconnect(receive))]
        if self._subscription is not None:
            others.append(asyncio.create_task(self._drain.wait()))
        try:
            await asyncio.wait([writing, *others, session.ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writing, *others):
                task.cancel()
            await asyncio.gather(writing, *others, return_exceptions=True)
        if not writing.cancelled() and writing.exception() is None:  # `complete` has been sent
            await self._end(send, b"")
        elif session.ended.done():
            await self._end(send, frame(orjson.dumps({"errors": error_objects(session.ended.result())})) + _COMPLETE)
        elif self._subscription is not None and self._drain.begun:
            await self._end(send, _reconnection_time())

    async def _end(self, send: Send, body: bytes) -> None:
        """Ends the response after `body`, unless the client does not read it in time."""
        try:
            async with asyncio.timeout(_END_TIMEOUT_SECONDS):
                await send({"type": "http.response.body", "body": body, "more_body": False})
        except TimeoutError:
            self._timed_out = True
        except OSError:
            return

    async def _write(self, send: Send) -> None:
        await self._send(send, _COMMENT)  # shows clients and proxies that the stream is open
        try:
            async with aclosing(self._responses) as responses:
                async for response in responses:
                    await self._send(send, frame(response.to_json(), response.cursor))
        except Problem as problem:
            await self._send(send, frame(orjson.dumps({"errors": error_objects(problem)})))
        except Exception as error:
            await self._send(send, frame(orjson.dumps({"errors": [mask(error, self._call.request_id)]})))
        await self._send(send, _COMPLETE)  # not in `_end`, whose timeout is too short for a slow client

    async def _keep_alive(self, send: Send) -> None:
        """Sends a comment after each silence. Returns when the client has read nothing for too long."""
        while not self._liveness.is_gone():
            silent_seconds = monotonic() - self._last_sent
            if silent_seconds < self._heartbeat_seconds:
                await asyncio.sleep(self._heartbeat_seconds - silent_seconds)
            elif self._liveness.has_pending_write:
                await asyncio.sleep(self._heartbeat_seconds)
            else:
                await self._send_heartbeat(send)
        self._timed_out = True

    async def _send_heartbeat(self, send: Send) -> None:
        with suppress(TimeoutError):  # the client does not read; `is_gone` decides how long that may last
            async with asyncio.timeout(self._heartbeat_seconds):
                await self._send(send, _COMMENT)

    async def _send(self, send: Send, body: bytes) -> None:
        self._last_sent = monotonic()
        with suppress(OSError):  # `_wait_for_disconnect` notices a lost connection
            await self._liveness.track_write(
                send({"type": "http.response.body", "body": body, "more_body": True}), len(body)
            )


def _reconnection_time() -> bytes:
    """Returns a random reconnection time, so that clients do not all return at once.

    No `complete` follows, because clients would not reconnect after it.
    """
    return b"retry: %d\n\n" % random.uniform(*_RECONNECT_MILLISECONDS)  # noqa: S311 - not a secret


def frame(data: bytes, cursor: str | None = None) -> bytes:
    """Returns one `next` event. A client that reconnects sends the cursor back as Last-Event-ID."""
    return (b"id: %s\n" % cursor.encode() if cursor else b"") + b"event: next\ndata: %s\n\n" % data


def _responses(
    service: GraphQLService, operation: Operation | GraphQLResponse, call: Call
) -> AsyncGenerator[GraphQLResponse, None]:
    if isinstance(operation, Operation) and operation.is_subscription:
        try:
            return service.stream(operation, call)
        except Problem as problem:
            operation = GraphQLResponse({"errors": error_objects(problem)}, call.request_id)
    return _single_response(service, operation, call)


async def _single_response(
    service: GraphQLService, operation: Operation | GraphQLResponse, call: Call
) -> AsyncGenerator[GraphQLResponse, None]:
    yield operation if isinstance(operation, GraphQLResponse) else await service.run(operation, call)


async def _wait_for_disconnect(receive: Receive) -> None:
    """Waits until the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass
