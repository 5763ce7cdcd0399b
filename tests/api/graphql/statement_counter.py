"""A database that records the SQL statements of its readers."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from psycopg import AsyncCursor
from psycopg.rows import TupleRow

from xzepr.hub import Hub
from xzepr.infra.db import Connection, Database
from xzepr.settings import DatabaseSettings


class CountedDatabase(Database):
    """Reads like any other database and records each statement."""

    def __init__(self, url: str) -> None:
        super().__init__(url, DatabaseSettings(), name="counted")
        self.statements: list[str] = []

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[Connection]:
        """Yields a connection whose cursors record what they execute."""
        statements = self.statements

        class Counting(AsyncCursor[TupleRow]):
            async def execute(self, query: Any, *args: Any, **options: Any) -> Any:
                statements.append(str(query))
                return await super().execute(query, *args, **options)

        async with super().read() as connection:
            ordinary, connection.cursor_factory = connection.cursor_factory, Counting
            try:
                yield connection
            finally:
                connection.cursor_factory = ordinary

    def rewired(self, hub: Hub) -> Hub:
        """Returns the hub with this database in every service that GraphQL reads."""
        receivers = replace(hub.receivers, db=self)
        return replace(
            hub,
            receivers=receivers,
            groups=replace(hub.groups, db=self, receivers=receivers),
            events=replace(hub.events, db=self),
            stream=replace(hub.stream, db=self),
        )
