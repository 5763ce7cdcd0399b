"""A bare `websockets` server that broadcasts texts to all subscribers: `python -m tests.bench.broadcast PORT`.

It speaks as much of graphql-transport-ws as a subscriber of the hub needs, so that both serve the same clients.
"""

import asyncio
import sys

import orjson
import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.typing import Subprotocol

_PROTOCOLS = [Subprotocol("graphql-transport-ws")]


async def _serve(port: int) -> None:
    subscribers = set[ServerConnection]()

    async def handle(connection: ServerConnection) -> None:
        async for text in connection:
            message = orjson.loads(text)
            if message["type"] == "connection_init":
                await connection.send('{"type":"connection_ack"}')
            elif message["type"] == "subscribe":
                subscribers.add(connection)
            elif message["type"] == "broadcast":
                for _ in range(message["count"]):
                    broadcast(subscribers, message["frame"])
                    await asyncio.sleep(0)
        subscribers.discard(connection)

    async with serve(
        handle, "127.0.0.1", port, subprotocols=_PROTOCOLS, compression=None, ping_interval=None, max_size=None
    ) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.Runner(loop_factory=uvloop.new_event_loop).run(_serve(int(sys.argv[1])))
