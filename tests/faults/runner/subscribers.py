"""Subscribers over WebSocket and server-sent events that resume after their last cursor.

Shares no code with the hub.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from random import Random

import orjson
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from tests.faults.runner.ledger import EVERYTHING, Json, ReceivedMessage, StreamFilter, SubscriberRecord, position_of
from tests.faults.runner.plain_http import event_stream

FOLLOW = """
subscription ($after: String, $kinds: [StreamKind!], $filter: StreamFilterInput) {
  stream(after: $after, kinds: $kinds, filter: $filter) {
    __typename cursor
    ... on StreamMessage { id kind }
    ... on EventRecorded { event { id } }
    ... on GateMessage { event { id } }
  }
}
"""
RETRYABLE = frozenset({"OVERLOADED", "UNAVAILABLE", "TIMEOUT"})


class RejectedError(Exception):
    """The hub returned an error after which a subscription cannot resume."""


class Subscriber:
    """Follows the stream after a cursor at a random server until it is cancelled. Reconnects after every disconnect.

    If `reconnecting`, it also disconnects by itself every few seconds.
    """

    def __init__(
        self,
        name: str,
        transport: str,
        ports: Sequence[int],
        secret: str,
        after: str,
        *,
        reconnecting: bool,
        seed: int = 0,
        filter: StreamFilter = EVERYTHING,
    ) -> None:
        """`transport` is "websocket" or "sse"."""
        self.record = SubscriberRecord(name, position_of(after), filter=filter)
        self.cursor = after
        self._frames = self._websocket if transport == "websocket" else self._sse
        self._ports = ports
        self._secret = secret
        self.reconnecting = reconnecting
        self._random = Random(f"{name}-{seed}")

    @property
    def reached(self) -> int:
        """The position up to which it has received every message."""
        return position_of(self.cursor)

    async def run(self) -> None:
        """Connects, receives and reconnects until it is cancelled or gets a fatal error."""
        while True:
            seconds = self._random.uniform(0.5, 4.0) if self.reconnecting else None
            try:
                async with asyncio.timeout(seconds):
                    await self._receive()
                self.record.count_retry("closed by the hub")
            except TimeoutError:  # its own time to reconnect, or a silent hub
                self.record.count_retry("closed by the subscriber")
            except (OSError, EOFError, ValueError, WebSocketException) as error:
                self.record.count_retry(f"{type(error).__name__}: {error}"[:120])
            except RejectedError as error:
                self.record.fatal_error = str(error)
                return
            await asyncio.sleep(self._random.uniform(0.05, 0.5))

    async def _receive(self) -> None:
        port = self._random.choice(self._ports)
        if self.reached > self.record.last:
            self.record.resumed_from_checkpoint += 1
        async with aclosing(self._frames(port)) as frames:
            async for frame in frames:
                self._store(frame)

    def _store(self, payload: Json) -> None:
        if errors := payload.get("errors"):
            codes = {error.get("extensions", {}).get("code") for error in errors}
            if codes <= RETRYABLE:
                raise OSError(f"the hub returned {codes}")
            raise RejectedError(json.dumps(errors))
        frame = payload["data"]["stream"]
        self.cursor = frame["cursor"]
        if frame["__typename"] == "Checkpoint":
            self.record.checkpoints.append((len(self.record.received), self.cursor))
            return
        event = frame.get("event")
        self.record.received.append(
            ReceivedMessage(
                position_of(frame["cursor"]), frame["id"], frame["kind"], None if event is None else event["id"]
            )
        )

    async def _websocket(self, port: int) -> AsyncGenerator[Json]:
        """Subscribes over graphql-transport-ws: https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md."""
        async with connect(
            f"ws://127.0.0.1:{port}/graphql",
            subprotocols=[Subprotocol("graphql-transport-ws")],
            proxy=None,
            compression=None,  # saves processor time: two cores run everything
            open_timeout=10,
            close_timeout=1,
            max_queue=64,
        ) as socket:
            await socket.send(json.dumps({"type": "connection_init", "payload": {"token": self._secret}}))
            async for text in socket:
                message = orjson.loads(text)
                match message["type"]:
                    case "connection_ack":
                        self.record.connections += 1
                        payload = {
                            "query": FOLLOW,
                            "variables": {"after": self.cursor, **self.record.filter.variables},
                        }
                        await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
                    case "ping":
                        await socket.send(json.dumps({"type": "pong"}))
                    case "next":
                        yield message["payload"]
                    case "error":
                        yield {"errors": message["payload"]}
                    case _:  # complete: the subscription has ended
                        return

    async def _sse(self, port: int) -> AsyncGenerator[Json]:
        """Subscribes over GraphQL over SSE (distinct connections) and resumes with Last-Event-ID, as an EventSource."""
        body = json.dumps({"query": FOLLOW, "variables": self.record.filter.variables}).encode()
        headers = f"Authorization: Bearer {self._secret}\r\nLast-Event-ID: {self.cursor}\r\n"
        async with event_stream(port, body, headers) as events:
            self.record.connections += 1
            async for event in events:
                if event.get("event") == "complete":
                    return
                if event.get("event") == "next":
                    yield orjson.loads(event["data"])


# The name and filter of each subscriber. Groups change so rarely that their subscriber resumes from checkpoints.
_BEHAVIOURS = {
    "permanent": EVERYTHING,
    "reconnecting": EVERYTHING,
    "reconnecting too": EVERYTHING,
    "reconnecting, failures only": StreamFilter(success=False),
    "reconnecting, groups only": StreamFilter(kinds=("group.updated",)),
}


def create_subscribers(ports: Sequence[int], secret: str, after: str, seed: int) -> list[Subscriber]:
    """Creates, for each transport, one permanent and four reconnecting subscribers, two of them with a filter."""
    return [
        Subscriber(
            f"{transport} {behaviour}",
            transport,
            ports,
            secret,
            after,
            reconnecting=behaviour != "permanent",
            seed=seed,
            filter=filter,
        )
        for transport in ("websocket", "sse")
        for behaviour, filter in _BEHAVIOURS.items()
    ]
