"""Connections that explain their statements: the plans of PostgreSQL, and the rows and buffers that they read."""

import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from psycopg import AsyncConnection, AsyncCursor, sql
from psycopg.rows import TupleRow, tuple_row

from xzepr.infra.session import PLANNER

Node = dict[str, Any]
_PLACEHOLDER = re.compile(r"%\((\w+)\)[sbt]")
PLANS = ("force_generic_plan", "force_custom_plan")
_FEW = 300
_ONE_ROW_TABLES = {"hub", "catalog"}


@dataclass(slots=True)
class Cost:
    """The cost of the statements of one read."""

    plans: list[Node] = field(default_factory=list[Node])

    def nodes(self) -> Iterator[Node]:
        """Yields every node of every plan."""
        pending = list(self.plans)
        while pending:
            node = pending.pop()
            pending += node.get("Plans", ())
            yield node

    @property
    def buffers(self) -> int:
        """Pages that were read, in memory or not."""
        return sum(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] for plan in self.plans)

    @property
    def rows(self) -> int:
        """Rows of tables that were read, including those that were discarded."""
        return round(sum(_rows(node) for node in self.nodes() if "Relation Name" in node))

    @property
    def indexes(self) -> set[str]:
        """The indexes that were read."""
        return {node["Index Name"] for node in self.nodes() if "Index Name" in node and node["Actual Loops"]}

    @property
    def flaws(self) -> list[str]:
        """Parts of plans that read a whole table, or sort many rows.

        An empty partition may be read as a whole.
        """
        return [
            f"{node['Node Type']} {node.get('Relation Name', '')}: {node['Actual Rows']} rows"
            for node in self.nodes()
            if (node["Node Type"] == "Seq Scan" and _rows(node) and node["Relation Name"] not in _ONE_ROW_TABLES)
            or (node["Node Type"].startswith(("Bitmap", "Sort", "Incremental Sort")) and node["Actual Rows"] > _FEW)
        ]


def _rows(node: Node) -> float:
    return (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]


class ExplainingCursor(AsyncCursor[Any]):
    """A cursor that explains each statement as a prepared one before it executes it."""

    async def execute(self, query: Any, params: Any = None, **_: Any) -> "ExplainingCursor":
        """Executes a statement and adds its plan to the connection's cost."""
        connection = self.connection
        assert isinstance(connection, ExplainedConnection)
        await super().execute(query, params, prepare=True)
        connection.cost.plans.append(await connection.explain(str(query), params))
        return await super().execute(query, params, prepare=True)


class ExplainedConnection(AsyncConnection[TupleRow]):
    """A connection whose cursors explain their statements."""

    cost: Cost

    async def explain(self, query: str, params: Any) -> Node:
        """Returns the plan of the statement that was prepared last, which is this one."""
        cursor = AsyncCursor(self, row_factory=tuple_row)
        await cursor.execute("SELECT name FROM pg_prepared_statements ORDER BY prepare_time DESC LIMIT 1")
        row = await cursor.fetchone()
        assert row is not None, "the statement was prepared"
        values = sql.SQL(", ").join(sql.Literal(value) for value in _values(query, params))
        await cursor.execute(
            sql.SQL("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) EXECUTE {}{}").format(
                sql.Identifier(row[0]), sql.SQL("({})").format(values) if params else sql.SQL("")
            )
        )
        row = await cursor.fetchone()
        assert row is not None, "EXPLAIN returns a row"
        return row[0][0]["Plan"]


def _values(query: str, params: Mapping[str, object] | Sequence[object] | None) -> list[object]:
    """Returns the parameters in the order in which psycopg numbers them."""
    if isinstance(params, Mapping):
        return [params[name] for name in dict.fromkeys(_PLACEHOLDER.findall(query))]
    return list(params or ())


@asynccontextmanager
async def explained(url: str, plans: str) -> AsyncGenerator[ExplainedConnection]:
    """Opens a connection that explains its statements. `plans` is one of PLANS."""
    parameters = {"plan_cache_mode": plans, "timezone": "UTC", **PLANNER}
    options = " ".join(f"-c {name}={value}" for name, value in parameters.items())
    async with await ExplainedConnection.connect(url, autocommit=True, options=options) as connection:
        connection.cost = Cost()
        connection.cursor_factory = ExplainingCursor
        yield connection
