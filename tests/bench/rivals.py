"""What the hub is measured against: hand-written endpoints that do the least, served as the hub is.

`python -m tests.bench.rivals insert|recorder PORT DATABASE_URL RECEIVER_ID` serves one of them.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import uvicorn
import uvloop
from psycopg_pool import AsyncConnectionPool
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.support.accounts import key_pair
from xzepr.core.actor import SYSTEM
from xzepr.core.ids import new_id
from xzepr.features.events.model import NewEvent
from xzepr.hub import Hub
from xzepr.processes import running
from xzepr.settings import Settings

Endpoint = Callable[[Request], Awaitable[Response]]


async def _serve(endpoint: Endpoint, port: int) -> None:
    app = Starlette(routes=[Route("/events", endpoint, methods=["POST"])])
    config = uvicorn.Config(app, port=port, lifespan="off", log_config=None, access_log=False, server_header=False)
    await uvicorn.Server(config).serve()


async def insert(port: int, url: str, receiver_id: str) -> None:
    """One durable INSERT a request, on a pool of ten connections."""
    async with AsyncConnectionPool(url, min_size=10, max_size=10, kwargs={"autocommit": True}) as pool:
        async with pool.connection() as connection:
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS plain (id text PRIMARY KEY, name text, version text, release text,"
                " platform_id text, package text, description text, payload json, success boolean, receiver_id text)"
            )

        async def create(request: Request) -> Response:
            said: dict[str, Any] = orjson.loads(await request.body())
            id = new_id()
            async with pool.connection() as connection:
                await connection.execute(
                    "INSERT INTO plain VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                    (
                        id,
                        said["name"],
                        said["version"],
                        said["release"],
                        said["platformId"],
                        said["package"],
                        said["description"],
                        orjson.dumps(said["payload"]).decode(),
                        said["success"],
                        receiver_id,
                    ),
                )
            return Response(orjson.dumps({"id": id}), media_type="application/json")

        await _serve(create, port)


async def recorder(port: int, url: str, receiver_id: str) -> None:
    """The hub's own recorder behind an endpoint that does nothing else: no GraphQL, no credentials, no middleware."""
    async with Hub.open(Settings(), url, key_pair()) as hub, running(hub):

        async def create(request: Request) -> Response:
            said: dict[str, Any] = orjson.loads(await request.body())
            new = NewEvent(
                name=said["name"],
                version=said["version"],
                release=said["release"],
                platform_id=said["platformId"],
                package=said["package"],
                description=said["description"],
                payload=said["payload"],
                success=said["success"],
                receiver_id=receiver_id,
            )
            recorded = await hub.recorder.record(SYSTEM, new)
            return Response(orjson.dumps({"id": recorded.event.id}), media_type="application/json")

        await _serve(create, port)


def main() -> None:
    """Serves the rival that the command line names."""
    name, port, url, receiver_id = sys.argv[1:]
    rival = {"insert": insert, "recorder": recorder}[name]
    asyncio.Runner(loop_factory=uvloop.new_event_loop).run(rival(int(port), url, receiver_id))


if __name__ == "__main__":
    main()
