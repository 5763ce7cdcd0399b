"""GraphQL over server-sent events, one operation to a response.

Distinct connections mode of https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md, with `id:` for resuming.
"""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing, suppress
from time import monotonic

import orjson
from starlette.types import Receive, Scope, Send

from xzepr.api.errors import Draining, error_objects, problem_response
from xzepr.api.graphql_server.errors import mask
from xzepr.api.graphql_server.limits import ConnectionLimiter
from xzepr.api.graphql_server.liveness import ClientLiveness
from xzepr.api.graphql_server.operations import Call, GraphQLResponse, GraphQLService, Operation
from xzepr.api.graphql_server.sessions import AuthenticatedCredential, ConnectionSession, Sessions
from xzepr.api.middleware import drop
from xzepr.core.errors import Problem

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
_END_TIMEOUT_SECONDS = 2.0
_RECONNECT_MILLISECONDS = (1000, 5000)
_COMMENT = b":\n\n"
_COMPLETE = b"event: complete\ndata:\n\n"


class EventStream:
    """The response to one operation: `next` for each answer, `complete` at the end, a comment in every silence.

    Raises a Problem when it is made if the variables do not fit. When there is no place for it, it is that refusal.
    Once it has begun, a Problem is a `next` with errors; that the credential holds no longer is one, too.
    """

    def __init__(
        self,
        service: GraphQLService,
        operation: Operation,
        call: Call,
        credential: AuthenticatedCredential | None,
        *,
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
        self._is_subscription = operation.is_subscription
        self._request = operation.request
        if operation.is_subscription:
            self._responses = service.stream(operation, call)
        else:
            self._responses = _single_response(service, operation, call)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write until the operation ends, the client has gone, or its credential holds no longer."""
        with ExitStack() as held:
            try:
                held.enter_context(self._limiter.connection("sse"))
                held.enter_context(self._limiter.actor_connection(self._call.actor))
                if self._is_subscription:
                    if self._drain.begun:
                        raise Draining
                    held.enter_context(self._limiter.subscription(self._call.actor, "sse", self._request))
            except Problem as problem:
                return await problem_response(problem)(scope, receive, send)
            session = held.enter_context(self._sessions.open(self._credential))
            await self._serve(session, receive, send)
        if self._timed_out and drop(scope):
            await _wait_for_disconnect(receive)
        return None

    async def _serve(self, session: ConnectionSession, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        writing = asyncio.create_task(self._write(send))
        others = [asyncio.create_task(self._keep_alive(send)), asyncio.create_task(_wait_for_disconnect(receive))]
        if self._is_subscription:
            others.append(asyncio.create_task(self._drain.wait()))
        try:
            await asyncio.wait([writing, *others, session.ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writing, *others):
                task.cancel()
            await asyncio.gather(writing, *others, return_exceptions=True)
        if not writing.cancelled() and writing.exception() is None:
            await self._end(send, b"")
        elif session.ended.done():
            await self._end(send, frame(orjson.dumps({"errors": error_objects(session.ended.result())})) + _COMPLETE)
        elif self._is_subscription and self._drain.begun:
            await self._end(send, _reconnection_time())

    async def _end(self, send: Send, last: bytes) -> None:
        try:
            async with asyncio.timeout(_END_TIMEOUT_SECONDS):
                await send({"type": "http.response.body", "body": last, "more_body": False})
        except TimeoutError:  # who reads nothing is not waited for
            self._timed_out = True
        except OSError:
            return

    async def _write(self, send: Send) -> None:
        await self._send(send, _COMMENT)  # so that clients and proxies see that the stream is open
        try:
            async with aclosing(self._responses) as answers:
                async for answer in answers:
                    await self._send(send, frame(answer.to_json(), answer.cursor))
        except Problem as problem:
            await self._send(send, frame(orjson.dumps({"errors": error_objects(problem)})))
        except Exception as error:
            await self._send(send, frame(orjson.dumps({"errors": [mask(error, self._call.request_id)]})))
        await self._send(send, _COMPLETE)  # once there is room for it: an answer may take its time over a slow link

    async def _keep_alive(self, send: Send) -> None:
        """Fills silences; returns when the client has read nothing for too long."""
        while not self._liveness.is_gone():
            silence = monotonic() - self._last_sent
            if silence < self._heartbeat_seconds:
                await asyncio.sleep(self._heartbeat_seconds - silence)
            elif self._liveness.has_pending_write:
                await asyncio.sleep(self._heartbeat_seconds)
            else:
                await self._send_heartbeat(send)
        self._timed_out = True

    async def _send_heartbeat(self, send: Send) -> None:
        with suppress(TimeoutError):  # who reads nothing is not sent more
            async with asyncio.timeout(self._heartbeat_seconds):
                await self._send(send, _COMMENT)

    async def _send(self, send: Send, body: bytes) -> None:
        self._last_sent = monotonic()
        with suppress(OSError):  # who has gone is noticed by `_gone`
            await self._liveness.track_write(
                send({"type": "http.response.body", "body": body, "more_body": True}), len(body)
            )


def _reconnection_time() -> bytes:
    """When an EventSource connects again: not all of them at once. No `complete`, after which nobody would."""
    return b"retry: %d\n\n" % random.uniform(*_RECONNECT_MILLISECONDS)  # noqa: S311 - not a secret


def frame(data: bytes, cursor: str | None = None) -> bytes:
    """One `next` event; with a cursor the client sends it as Last-Event-ID when it comes back."""
    return (b"id: %s\n" % cursor.encode() if cursor else b"") + b"event: next\ndata: %s\n\n" % data


async def _single_response(
    service: GraphQLService, operation: Operation, call: Call
) -> AsyncGenerator[GraphQLResponse, None]:
    yield await service.run(operation, call)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
