"""Baselines for the hub: minimal hand-written endpoints, served in the same way.

`python -m tests.bench.baselines insert|recorder PORT DATABASE_URL RECEIVER_ID` serves one of them.
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
from xzepr.server.loops import serving_loops
from xzepr.settings import Settings

Endpoint = Callable[[Request], Awaitable[Response]]


async def _serve(endpoint: Endpoint, port: int) -> None:
    app = Starlette(routes=[Route("/events", endpoint, methods=["POST"])])
    config = uvicorn.Config(app, port=port, lifespan="off", log_config=None, access_log=False, server_header=False)
    await uvicorn.Server(config).serve()


async def insert(port: int, url: str, receiver_id: str) -> None:
    """Serves one durable INSERT per request, on a pool of ten connections."""
    async with AsyncConnectionPool(url, min_size=10, max_size=10, kwargs={"autocommit": True}) as pool:
        async with pool.connection() as connection:
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS plain (id text PRIMARY KEY, name text, version text, release text,"
                " platform_id text, package text, description text, payload json, success boolean, receiver_id text)"
            )

        async def create(request: Request) -> Response:
            input: dict[str, Any] = orjson.loads(await request.body())
            id = new_id()
            async with pool.connection() as connection:
                await connection.execute(
                    "INSERT INTO plain VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                    (
                        id,
                        input["name"],
                        input["version"],
                        input["release"],
                        input["platformId"],
                        input["package"],
                        input["description"],
                        orjson.dumps(input["payload"]).decode(),
                        input["success"],
                        receiver_id,
                    ),
                )
            return Response(orjson.dumps({"id": id}), media_type="application/json")

        await _serve(create, port)


async def recorder(port: int, url: str, receiver_id: str) -> None:
    """Serves the hub's recorder without GraphQL, credentials and middleware."""
    async with Hub.open(Settings(), url, key_pair()) as hub, serving_loops(hub):

        async def create(request: Request) -> Response:
            input: dict[str, Any] = orjson.loads(await request.body())
            new = NewEvent(
                name=input["name"],
                version=input["version"],
                release=input["release"],
                platform_id=input["platformId"],
                package=input["package"],
                description=input["description"],
                payload=input["payload"],
                success=input["success"],
                receiver_id=receiver_id,
            )
            recorded = await hub.recorder.record(SYSTEM, new)
            return Response(orjson.dumps({"id": recorded.event.id}), media_type="application/json")

        await _serve(create, port)


def main() -> None:
    """Serves the baseline that is named on the command line."""
    name, port, url, receiver_id = sys.argv[1:]
    baseline = {"insert": insert, "recorder": recorder}[name]
    asyncio.Runner(loop_factory=uvloop.new_event_loop).run(baseline(int(port), url, receiver_id))


if __name__ == "__main__":
    main()
