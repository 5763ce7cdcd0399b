"""Clients of a hub that is served: requests, and the stream over a real WebSocket and over server-sent events."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import orjson
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.support.requests import Answer

Json = dict[str, Any]

PATIENCE_SECONDS = 20.0

STREAM = """
subscription ($after: String, $kinds: [StreamKind!], $filter: StreamFilterInput) {
  stream(after: $after, kinds: $kinds, filter: $filter) {
    __typename cursor
    ... on StreamMessage { id kind actor { name } }
    ... on EventRecorded { event { id name payload } }
    ... on GateMessage { transition eventReceiverGroup { id } }
  }
}
"""


@dataclass(frozen=True, slots=True)
class Client:
    """Somebody who has signed in at a hub."""

    url: str
    token: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """The credentials as headers."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    async def __call__(self, query: str, **variables: Any) -> Answer:
        """The answer to a document with these variables."""
        body = orjson.dumps({"query": query, "variables": variables})
        headers = {"Content-Type": "application/json", **self.headers}
        async with httpx2.AsyncClient(timeout=PATIENCE_SECONDS, trust_env=False) as http:
            response = await http.post(f"{self.url}/graphql", content=body, headers=headers)
        return Answer(response.status_code, response.content)

    async def logged_in(self, username: str, password: str) -> "Client":
        """The same with the token of a login."""
        document = "mutation ($input: LoginInput!) { login(input: $input) { token } }"
        answer = await self(document, input={"username": username, "password": password})
        return Client(self.url, answer.data["login"]["token"])

    async def receiver(self, name: str, schema: object = None) -> str:
        """The id of a new receiver, by default for any payload."""
        given = {"name": name, "type": "test", "version": "1", "description": "made by a test"}
        answer = await self(
            "mutation ($input: CreateEventReceiverInput!)"
            "{ createEventReceiver(input: $input) { eventReceiver { id } } }",
            input={**given, "schema": {} if schema is None else schema},
        )
        return answer.data["createEventReceiver"]["eventReceiver"]["id"]

    async def group(self, *receiver_ids: str, name: str = "gate") -> str:
        """The id of a new group."""
        given = {"name": name, "type": "test", "version": "1", "description": "made by a test"}
        answer = await self(
            "mutation ($input: CreateEventReceiverGroupInput!)"
            "{ createEventReceiverGroup(input: $input) { eventReceiverGroup { id } } }",
            input={**given, "eventReceiverIds": receiver_ids},
        )
        return answer.data["createEventReceiverGroup"]["eventReceiverGroup"]["id"]

    @asynccontextmanager
    async def socket(self, **variables: Any) -> AsyncGenerator["Frames"]:
        """What STREAM sends over a WebSocket (graphql-transport-ws); the credentials are in its first message."""
        url = self.url.replace("http://", "ws://") + "/graphql"
        protocols = [Subprotocol("graphql-transport-ws")]
        # No pings of its own: who does not read for a while would not read their answers either, and give up.
        async with connect(url, subprotocols=protocols, proxy=None, ping_interval=None) as socket:

            async def frames() -> AsyncGenerator[Json]:
                async for text in socket:
                    message = json.loads(text)
                    if message["type"] == "ping":
                        await socket.send('{"type":"pong"}')
                        continue
                    assert message["type"] == "next", message
                    yield message["payload"]["data"]["stream"]

            await socket.send(json.dumps({"type": "connection_init", "payload": {"token": self.token}}))
            assert json.loads(await socket.recv()) == {"type": "connection_ack"}
            payload = {"query": STREAM, "variables": variables}
            await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
            async with aclosing(frames()) as source:
                yield Frames(source)

    @asynccontextmanager
    async def events(self, *, last_event_id: str | None = None, **variables: Any) -> AsyncGenerator["Frames"]:
        """What STREAM sends as server-sent events, as `curl -N` gets it. Each frame holds its `id:` as `sse_id`."""
        body = orjson.dumps({"query": STREAM, "variables": variables})
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream", **self.headers}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        async with (
            httpx2.AsyncClient(timeout=PATIENCE_SECONDS, trust_env=False) as http,
            http.stream("POST", f"{self.url}/graphql", content=body, headers=headers) as response,
        ):
            assert response.status_code == 200, await response.aread()

            async def frames() -> AsyncGenerator[Json]:
                sent: dict[str, str] = {}
                async for line in response.aiter_lines():
                    name, _, value = line.partition(": ")
                    if line and name:
                        sent[name] = value
                    elif not line and "event" in sent:
                        assert sent["event"] == "next", sent
                        yield {**json.loads(sent["data"])["data"]["stream"], "sse_id": sent.get("id")}
                        sent = {}

            async with aclosing(frames()) as source:
                yield Frames(source)


class Frames:
    """The frames of a subscription, one after the other; one that does not come in time is a failure."""

    def __init__(self, source: AsyncGenerator[Json]) -> None:
        self._source = source

    async def next(self) -> Json:
        """The next frame."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await anext(self._source)

    async def message(self) -> Json:
        """The next frame that is no checkpoint."""
        while (frame := await self.next())["__typename"] == "Checkpoint":
            pass
        return frame

    async def messages(self, count: int) -> list[Json]:
        """So many messages, checkpoints left out."""
        return [await self.message() for _ in range(count)]
