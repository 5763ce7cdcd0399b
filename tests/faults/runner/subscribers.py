"""Subscribers over WebSocket and server-sent events that come back with their last cursor; no code of the hub's."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from random import Random

import orjson
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from tests.faults.runner.ledger import EVERYTHING, Attendance, Json, Seen, Wish, position_of
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
TRY_AGAIN = frozenset({"OVERLOADED", "UNAVAILABLE", "TIMEOUT"})


class RefusedError(Exception):
    """The hub answered that this subscription can never go on."""


class Subscriber:
    """Follows the stream after a cursor until it is cancelled, at one server or another. `restless` ones drop their
    connection every few seconds; all come back when it is lost."""

    def __init__(
        self,
        name: str,
        transport: str,
        ports: Sequence[int],
        secret: str,
        after: str,
        *,
        restless: bool,
        seed: int = 0,
        wish: Wish = EVERYTHING,
    ) -> None:
        """`transport` is "websocket" or "sse"."""
        self.attendance = Attendance(name, position_of(after), wish=wish)
        self.cursor = after
        self._frames = self._websocket if transport == "websocket" else self._sse
        self._ports = ports
        self._secret = secret
        self.restless = restless
        self._random = Random(f"{name}-{seed}")

    @property
    def reached(self) -> int:
        """The position that it has seen everything up to."""
        return position_of(self.cursor)

    async def run(self) -> None:
        """Attaches, listens, drops and comes back until cancelled, or refused for good."""
        while True:
            stay = self._random.uniform(0.5, 4.0) if self.restless else None
            try:
                async with asyncio.timeout(stay):
                    await self._listen()
                self.attendance.trouble("ended by the hub")
            except TimeoutError:  # its own wish, or a hub that said nothing
                self.attendance.trouble("dropped")
            except (OSError, EOFError, ValueError, WebSocketException) as error:
                self.attendance.trouble(f"{type(error).__name__}: {error}"[:120])
            except RefusedError as error:
                self.attendance.refusal = str(error)
                return
            await asyncio.sleep(self._random.uniform(0.05, 0.5))

    async def _listen(self) -> None:
        port = self._random.choice(self._ports)
        if self.reached > self.attendance.last:
            self.attendance.from_checkpoints += 1
        async with aclosing(self._frames(port)) as frames:
            async for frame in frames:
                self._note(frame)

    def _note(self, payload: Json) -> None:
        if errors := payload.get("errors"):
            codes = {error.get("extensions", {}).get("code") for error in errors}
            if codes <= TRY_AGAIN:
                raise OSError(f"the hub says {codes}")
            raise RefusedError(json.dumps(errors))
        frame = payload["data"]["stream"]
        self.cursor = frame["cursor"]
        if frame["__typename"] == "Checkpoint":
            self.attendance.checkpoints.append((len(self.attendance.seen), self.cursor))
            return
        event = frame.get("event")
        self.attendance.seen.append(
            Seen(position_of(frame["cursor"]), frame["id"], frame["kind"], None if event is None else event["id"])
        )

    async def _websocket(self, port: int) -> AsyncGenerator[Json]:
        """graphql-transport-ws, as https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md has it."""
        async with connect(
            f"ws://127.0.0.1:{port}/graphql",
            subprotocols=[Subprotocol("graphql-transport-ws")],
            proxy=None,
            compression=None,  # two cores serve everything here
            open_timeout=10,
            close_timeout=1,
            max_queue=64,
        ) as socket:
            await socket.send(json.dumps({"type": "connection_init", "payload": {"token": self._secret}}))
            async for text in socket:
                message = orjson.loads(text)
                match message["type"]:
                    case "connection_ack":
                        self.attendance.attached += 1
                        payload = {
                            "query": FOLLOW,
                            "variables": {"after": self.cursor, **self.attendance.wish.variables},
                        }
                        await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
                    case "ping":
                        await socket.send(json.dumps({"type": "pong"}))
                    case "next":
                        yield message["payload"]
                    case "error":
                        yield {"errors": message["payload"]}
                    case _:  # complete: the hub has no more
                        return

    async def _sse(self, port: int) -> AsyncGenerator[Json]:
        """GraphQL over SSE, distinct connections; it comes back as an EventSource does, with Last-Event-ID."""
        body = json.dumps({"query": FOLLOW, "variables": self.attendance.wish.variables}).encode()
        headers = f"Authorization: Bearer {self._secret}\r\nLast-Event-ID: {self.cursor}\r\n"
        async with event_stream(port, body, headers) as events:
            self.attendance.attached += 1
            async for event in events:
                if event.get("event") == "complete":
                    return
                if event.get("event") == "next":
                    yield orjson.loads(event["data"])


_MANNERS = {
    "staying": EVERYTHING,
    "restless": EVERYTHING,
    "restless too": EVERYTHING,
    "restless, of failures": Wish(success=False),
    "restless, of groups": Wish(kinds=("group.updated",)),
}
"""What each of an audience wishes for. Groups change so seldom that whoever follows them keeps checkpoints' cursors."""


def audience(ports: Sequence[int], secret: str, after: str, seed: int) -> list[Subscriber]:
    """Of each transport one that stays and four that are restless, of which two have a filter."""
    return [
        Subscriber(
            f"{transport} {manner}",
            transport,
            ports,
            secret,
            after,
            restless=manner != "staying",
            seed=seed,
            wish=wish,
        )
        for transport in ("websocket", "sse")
        for manner, wish in _MANNERS.items()
    ]
