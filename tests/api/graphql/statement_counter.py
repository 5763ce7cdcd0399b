"""A database that records the SQL statements of its readers."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from psycopg import AsyncCursor
from psycopg.rows import TupleRow

from xzepr.features.events.cache import EventCache
from xzepr.features.events.service import Events
from xzepr.features.groups.service import Groups
from xzepr.features.receivers.service import Receivers
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
        """Returns the hub with this database in every service that GraphQL reads, none of which has read anything."""
        settings = hub.settings
        stream = replace(hub.stream, db=self)
        receivers = Receivers(self, stream, settings.events)
        return replace(
            hub,
            receivers=receivers,
            groups=Groups(
                db=self, stream=stream, receivers=receivers, limits=settings.groups, text_limits=settings.events
            ),
            events=Events(self, settings.events, EventCache(hub.feed)),
            stream=stream,
        )
