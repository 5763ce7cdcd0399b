"""Hand-written endpoints beside the hub: Starlette, psycopg and orjson, a function for each case, without GraphQL.

`python -m tests.bench.hand single|group PORT DATABASE_URL` serves one of two variants. `single` executes one statement
for each request and builds the response in Python. `group` lets PostgreSQL build the JSON, and writes all events that
wait in one statement. Both check no credentials, validate nothing and publish nothing.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, LiteralString

import orjson
import uvicorn
import uvloop
from psycopg import AsyncConnection
from psycopg.adapt import Loader
from psycopg.rows import dict_row, tuple_row
from psycopg.types.json import Json, set_json_dumps, set_json_loads
from psycopg_pool import AsyncConnectionPool
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from xzepr.core.ids import new_id

CONNECTIONS = 16
Variables = Mapping[str, Any]
Answer = Callable[[Variables], Awaitable[Response]]
Pool = AsyncConnectionPool[AsyncConnection[Any]]
Waiting = tuple[tuple[Any, ...], "asyncio.Future[None]"]

# Filled from a hub's tables. PostgreSQL omits the last zeros of a fraction, but all responses shall have the same size.
TABLES: LiteralString = """
CREATE SCHEMA hand;
CREATE TABLE hand.receivers (id text COLLATE "C" PRIMARY KEY, name text NOT NULL, type text NOT NULL,
                             version text NOT NULL);
CREATE TABLE hand.events (id text COLLATE "C" PRIMARY KEY, name text NOT NULL, version text NOT NULL,
    release text NOT NULL, platform_id text NOT NULL, package text NOT NULL, description text NOT NULL,
    payload json NOT NULL, success boolean NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
    receiver_id text COLLATE "C" NOT NULL);
INSERT INTO hand.receivers SELECT id, name, type, version FROM receivers;
INSERT INTO hand.events SELECT id, name, version, release, platform_id, package, description, payload, success,
                               date_trunc('second', created_at), receiver_id FROM events;
"""
_FIELDS: LiteralString = """id, name, version, release, platform_id AS "platformId", package, description, payload,
    success, created_at AS "occurredAt", receiver_id AS "eventReceiverId" """
_NEWEST: LiteralString = f"SELECT {_FIELDS} FROM hand.events ORDER BY id DESC LIMIT 50"
_ONE: LiteralString = f"SELECT {_FIELDS} FROM hand.events WHERE id = %s"
_RECEIVERS: LiteralString = "SELECT id, name, type, version FROM hand.receivers WHERE id = ANY(%s)"
_COLUMNS: LiteralString = "id, name, version, release, platform_id, package, description, payload, success, receiver_id"
_INSERT: LiteralString = f"INSERT INTO hand.events ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
_INSERT_ALL: LiteralString = f"""INSERT INTO hand.events ({_COLUMNS}) SELECT * FROM unnest(%s::text[], %s::text[],
    %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::json[], %s::boolean[], %s::text[])"""
_EDGES: LiteralString = """json_build_object('data', json_build_object('events', json_build_object('edges',
    json_agg(json_build_object('node', node) ORDER BY node.id DESC))))"""
_LIST_JSON: LiteralString = f"SELECT {_EDGES} FROM ({_NEWEST}) AS node"
_RECEIVERS_JSON: LiteralString = f"""SELECT {_EDGES} FROM (
    SELECT newest.*, json_build_object('id', r.id, 'name', r.name, 'type', r.type, 'version', r.version)
        AS "eventReceiver"
    FROM ({_NEWEST}) AS newest JOIN hand.receivers AS r ON r.id = newest."eventReceiverId") AS node"""
_ONE_JSON: LiteralString = f"""SELECT json_build_object('data', json_build_object('event',
    (SELECT row_to_json(node) FROM ({_ONE}) AS node)))"""


def _response(data: object) -> Response:
    return Response(orjson.dumps({"data": data}), media_type="application/json")


def _created(id: str) -> Response:
    return _response({"createEvent": {"event": {"id": id}}})


async def _typename(_: Variables) -> Response:
    return _response({"__typename": "Query"})


def _values(input: Variables) -> tuple[Any, ...]:
    texts = (input["name"], input["version"], input["release"], input["platformId"], input["package"])
    return (new_id(), *texts, input["description"], input["payload"], input["success"], input["eventReceiverId"])


@dataclass(frozen=True, slots=True)
class Single:
    """Executes one statement for each request, and two for a list with receivers."""

    pool: Pool

    async def _rows(self, statement: LiteralString, *parameters: object) -> list[dict[str, Any]]:
        async with self.pool.connection() as connection:
            return await (await connection.cursor(row_factory=dict_row).execute(statement, parameters)).fetchall()

    async def newest(self, _: Variables) -> Response:
        """Returns the newest events."""
        return _response({"events": {"edges": [{"node": row} for row in await self._rows(_NEWEST)]}})

    async def newest_with_receiver(self, _: Variables) -> Response:
        """Returns the newest events with their receivers."""
        rows = await self._rows(_NEWEST)
        found = await self._rows(_RECEIVERS, list({row["eventReceiverId"] for row in rows}))
        receivers = {receiver["id"]: receiver for receiver in found}
        nodes = [{"node": row | {"eventReceiver": receivers[row["eventReceiverId"]]}} for row in rows]
        return _response({"events": {"edges": nodes}})

    async def one(self, variables: Variables) -> Response:
        """Returns an event by its id."""
        rows = await self._rows(_ONE, variables["id"])
        return _response({"event": rows[0] if rows else None})

    async def create(self, variables: Variables) -> Response:
        """Writes an event."""
        values = _values(variables["input"])
        async with self.pool.connection() as connection:
            await connection.execute(_INSERT, (*values[:7], Json(values[7]), *values[8:]))
        return _created(values[0])


class _Unparsed(Loader):
    """Returns JSON as the bytes that PostgreSQL sends."""

    def load(self, data: Any) -> bytes:
        return bytes(data)


async def _leave_json_unparsed(connection: AsyncConnection[Any]) -> None:
    connection.adapters.register_loader("json", _Unparsed)


@dataclass(frozen=True, slots=True)
class Group:
    """Returns JSON as PostgreSQL builds it, and writes the waiting events in groups."""

    pool: Pool
    _waiting: list[Waiting] = field(default_factory=list[Waiting])
    _some: asyncio.Event = field(default_factory=asyncio.Event)

    async def _json(self, statement: LiteralString, *parameters: object) -> Response:
        async with self.pool.connection() as connection:
            cursor = await connection.cursor(row_factory=tuple_row).execute(statement, parameters)
            row = await cursor.fetchone()
        assert row is not None
        return Response(row[0], media_type="application/json")

    async def newest(self, _: Variables) -> Response:
        """Returns the newest events."""
        return await self._json(_LIST_JSON)

    async def newest_with_receiver(self, _: Variables) -> Response:
        """Returns the newest events with their receivers."""
        return await self._json(_RECEIVERS_JSON)

    async def one(self, variables: Variables) -> Response:
        """Returns an event by its id."""
        return await self._json(_ONE_JSON, variables["id"])

    async def create(self, variables: Variables) -> Response:
        """Queues an event and waits until it is written."""
        values = _values(variables["input"])
        written = asyncio.get_running_loop().create_future()
        self._waiting.append(((*values[:7], orjson.dumps(values[7]).decode(), *values[8:]), written))
        self._some.set()
        await written
        return _created(values[0])

    async def write(self) -> None:
        """Writes whatever has been queued during the last statement, again and again."""
        async with self.pool.connection() as connection:
            while await self._some.wait():
                self._some.clear()
                group = self._waiting.copy()
                self._waiting.clear()
                await connection.execute(
                    _INSERT_ALL, [list(column) for column in zip(*(row for row, _ in group), strict=True)]
                )
                for _, written in group:
                    if not written.done():
                        written.set_result(None)


async def serve(variant: str, port: int, url: str) -> None:
    """Serves a variant until a signal ends it."""
    set_json_loads(orjson.loads)
    set_json_dumps(orjson.dumps)
    configure = _leave_json_unparsed if variant == "group" else None
    async with Pool(
        url, min_size=CONNECTIONS, max_size=CONNECTIONS, configure=configure, kwargs={"autocommit": True}
    ) as pool:
        await pool.wait()
        endpoints = Group(pool) if variant == "group" else Single(pool)
        writer = asyncio.create_task(endpoints.write()) if isinstance(endpoints, Group) else None
        answers: dict[str, Answer] = {
            "typename": _typename,
            "list": endpoints.newest,
            "list_receiver": endpoints.newest_with_receiver,
            "event": endpoints.one,
            "create": endpoints.create,
        }

        async def answer(request: Request) -> Response:
            body = orjson.loads(await request.body())
            return await answers[body["operationName"]](body.get("variables") or {})

        app = Starlette(routes=[Route("/graphql", answer, methods=["POST"])])
        config = uvicorn.Config(app, port=port, http="httptools", lifespan="off", log_config=None, access_log=False)
        await uvicorn.Server(config).serve()
        if writer is not None:
            writer.cancel()


def main() -> None:
    """Serves the variant that is named on the command line."""
    variant, port, url = sys.argv[1:]
    asyncio.Runner(loop_factory=uvloop.new_event_loop).run(serve(variant, int(port), url))


if __name__ == "__main__":
    main()
