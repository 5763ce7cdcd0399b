"""A query of 1,000 rows with 10 fields in process, compared with a comprehension that returns the same bytes."""

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from statistics import median

import orjson
import strawberry
from strawberry.schema.config import StrawberryConfig

from tests.bench.load import LoadError
from tests.bench.session import Session
from xzepr.api.graphql.scalars import JSON, SCALARS
from xzepr.api.graphql_server.documents import DocumentLimits, Documents
from xzepr.api.graphql_server.operations import Call, GraphQLRequest, GraphQLService
from xzepr.api.graphql_server.plans.execution import core_schema
from xzepr.api.graphql_server.plans.resolvers import install
from xzepr.core.actor import SYSTEM, Actor

ROWS = 1000
_REPEATS = 30  # of each side in one round
_QUERY = "{ rows { id name version release platform payload success count createdAt owner } }"
_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC


@strawberry.type
class Row:
    """A row with a field of each kind that an event has."""

    id: strawberry.ID
    name: str
    version: str
    release: str
    platform: str
    payload: JSON
    success: bool
    count: int
    created_at: datetime
    owner: str | None


def _row(number: int) -> Row:
    payload = JSON({"suite": "unit", "passed": number, "labels": ["ci", "main"]})
    created_at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    return Row(
        id=strawberry.ID(f"{number:026d}"),
        name="checkout",
        version=f"1.{number}",
        release="2026.11",
        platform="linux-amd64",
        payload=payload,
        success=number % 2 == 0,
        count=number,
        created_at=created_at,
        owner=None if number % 3 else "ada",
    )


_HELD = [_row(number) for number in range(ROWS)]


@strawberry.type
class Query:
    """All queries."""

    @strawberry.field
    @staticmethod
    def rows() -> list[Row]:
        """Rows that are in memory already."""
        return _HELD


async def _authenticate(_: str) -> Actor:
    return SYSTEM


def _new_context(actor: Actor, request_id: str, extensions: Mapping[str, object], last_event_id: str | None) -> object:
    return actor


def service() -> GraphQLService:
    """Returns the hub's GraphQL server with a schema of one type, prepared as the hub prepares its own."""
    schema = core_schema(strawberry.Schema(Query, config=StrawberryConfig(scalar_map=SCALARS)))
    install(schema)
    documents = Documents(schema, DocumentLimits(), 10)
    return GraphQLService(schema=schema, documents=documents, authenticate=_authenticate, new_context=_new_context)


def measure(session: Session) -> None:
    """Measures both sides in each round. Raises LoadError if their responses differ."""
    asyncio.run(_measure(session, service()))


async def _measure(session: Session, graphql: GraphQLService) -> None:
    served = await _serve(graphql)
    if served != comprehended():
        raise LoadError(f"the responses differ: {served[:300]!r} and {comprehended()[:300]!r}")
    for round in session.rounds:
        session.record("execution", "hub", round, {"ms": await _served_milliseconds(graphql)})
        session.record("execution", "comprehension", round, {"ms": _comprehended_milliseconds()})


async def _serve(graphql: GraphQLService) -> bytes:
    operation = graphql.prepare(GraphQLRequest(_QUERY), SYSTEM)
    response = await graphql.run(operation, Call(SYSTEM, "bench"))
    return response.to_json()


def comprehended() -> bytes:
    """Returns the response as a hand-written handler would build it."""
    rows = [
        {
            "id": row.id,
            "name": row.name,
            "version": row.version,
            "release": row.release,
            "platform": row.platform,
            "payload": row.payload,
            "success": row.success,
            "count": row.count,
            "createdAt": row.created_at,
            "owner": row.owner,
        }
        for row in _HELD
    ]
    return orjson.dumps({"data": {"rows": rows}}, option=_OPTIONS)


# Processor time, which other processes do not change. Both loops are the same, so that only the measured call differs.
async def _served_milliseconds(graphql: GraphQLService) -> float:
    times: list[float] = []
    for _ in range(_REPEATS):
        began = time.process_time()
        await _serve(graphql)
        times.append(time.process_time() - began)
    return median(times) * 1000


def _comprehended_milliseconds() -> float:
    times: list[float] = []
    for _ in range(_REPEATS):
        began = time.process_time()
        comprehended()
        times.append(time.process_time() - began)
    return median(times) * 1000
