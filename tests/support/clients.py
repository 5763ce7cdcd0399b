"""Clients of a served hub: requests, and the stream over a real WebSocket or server-sent events."""

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

from tests.support.requests import Response

Json = dict[str, Any]

TIMEOUT_SECONDS = 20.0

STREAM = """
subscription ($after: String, $kinds: [StreamKind!], $filter: StreamFilterInput) {
  stream(after: $after, kinds: $kinds, filter: $filter) {
    __typename cursor
    ... on StreamMessage { id kind actor { name } }
    ... on EventRecorded { event { id name payload } }
    ... on GateMessage { transition eventReceiverGroupId }
  }
}
"""


@dataclass(frozen=True, slots=True)
class Client:
    """A client of a hub with a token; without one, an anonymous client."""

    url: str
    token: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """The headers with the token."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    async def __call__(self, query: str, **variables: Any) -> Response:
        """Executes a document with these variables."""
        body = orjson.dumps({"query": query, "variables": variables})
        headers = {"Content-Type": "application/json", **self.headers}
        async with httpx2.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False) as http:
            response = await http.post(f"{self.url}/graphql", content=body, headers=headers)
        return Response(response.status_code, response.content)

    async def logged_in(self, username: str, password: str) -> "Client":
        """Logs in and returns a client with the new token."""
        document = "mutation ($input: LoginInput!) { login(input: $input) { token } }"
        response = await self(document, input={"username": username, "password": password})
        return Client(self.url, response.data["login"]["token"])

    async def receiver(self, name: str, schema: object = None) -> str:
        """Creates a receiver and returns its id. Its default schema accepts every payload."""
        fields = {"name": name, "type": "test", "version": "1", "description": "made by a test"}
        response = await self(
            "mutation ($input: CreateEventReceiverInput!)"
            "{ createEventReceiver(input: $input) { eventReceiver { id } } }",
            input={**fields, "schema": {} if schema is None else schema},
        )
        return response.data["createEventReceiver"]["eventReceiver"]["id"]

    async def group(self, *receiver_ids: str, name: str = "gate") -> str:
        """Creates a group and returns its id."""
        fields = {"name": name, "type": "test", "version": "1", "description": "made by a test"}
        response = await self(
            "mutation ($input: CreateEventReceiverGroupInput!)"
            "{ createEventReceiverGroup(input: $input) { eventReceiverGroup { id } } }",
            input={**fields, "eventReceiverIds": receiver_ids},
        )
        return response.data["createEventReceiverGroup"]["eventReceiverGroup"]["id"]

    @asynccontextmanager
    async def socket(self, **variables: Any) -> AsyncGenerator["Frames"]:
        """Subscribes with STREAM over a WebSocket (graphql-transport-ws). The token is in the first message."""
        url = self.url.replace("http://", "ws://") + "/graphql"
        protocols = [Subprotocol("graphql-transport-ws")]
        # No client pings: a client that does not read would miss the pongs and close the connection.
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
        """Subscribes with STREAM over server-sent events, as `curl -N` does. Each frame has its `id:` as `sse_id`."""
        body = orjson.dumps({"query": STREAM, "variables": variables})
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream", **self.headers}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        async with (
            httpx2.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False) as http,
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
    """The frames of a subscription. Fails if a frame does not arrive in time."""

    def __init__(self, source: AsyncGenerator[Json]) -> None:
        self._source = source

    async def next(self) -> Json:
        """Returns the next frame."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await anext(self._source)

    async def message(self) -> Json:
        """Returns the next frame that is no checkpoint."""
        while (frame := await self.next())["__typename"] == "Checkpoint":
            pass
        return frame

    async def messages(self, count: int) -> list[Json]:
        """Returns the next `count` messages without checkpoints."""
        return [await self.message() for _ in range(count)]
