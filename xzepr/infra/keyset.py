"""Bounded reads of long lists in the order of positions, newest first, with any combination of conditions.

A read follows one index in the order of that index. Its cost does not depend on the length of the list, on the depth of
the page, or on PostgreSQL's statistics. Conditions that the index does not contain are checked row by row, on a limited
number of rows: then the read stops and says where.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString

from xzepr.infra.db import Connection

MAX_POSITION = 2**63 - 1

_Texts = Mapping[LiteralString, LiteralString]


@dataclass(frozen=True, slots=True)
class Listing:
    """A table with a column `position`, and the conditions that a list of its rows can have, by name."""

    table: LiteralString
    row: LiteralString
    """The alias of the table in all expressions."""
    indexed: _Texts
    """Columns that are compared for equality and have an index on (column, position)."""
    checked: _Texts
    """Conditions that are checked row by row."""
    starts: _Texts = field(default_factory=dict[LiteralString, LiteralString])
    """Conditions that are met from a position on: expressions for this position."""
    ends: _Texts = field(default_factory=dict[LiteralString, LiteralString])
    """Conditions that are met before a position: expressions for this position."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows that a read found, newest first."""

    rows: Sequence[tuple[Any, ...]]
    reached: int | None
    """The position that the read had reached when it stopped early. None if it did not stop early."""


async def read(
    connection: Connection,
    listing: Listing,
    columns: LiteralString,
    conditions: Mapping[str, object],
    *,
    before: int | None,
    limit: int,
) -> Rows:
    """Returns up to `limit` rows before a position that meet all conditions that are not None.

    Without a position, these are the newest rows. `columns` contain the position, and none before it is null. `limit`
    is at most 101.
    """
    values = {name: value for name, value in conditions.items() if value is not None}
    statements = _Statements(listing, columns, frozenset(values))
    values |= {"before": MAX_POSITION if before is None else before, "limit": limit}
    followed = await _followed(connection, statements, values)
    checks = statements.checks(followed)
    cursor = connection.cursor(binary=True)
    if not checks:
        await cursor.execute(statements.page(followed), values)
        return Rows(await cursor.fetchall(), None)
    rows = await (await cursor.execute(statements.scan(followed, checks), values)).fetchall()
    return Rows([row[1:] for row in rows if row[1] is not None], rows[0][0])


async def _followed(
    connection: Connection, statements: "_Statements", values: Mapping[str, object]
) -> LiteralString | None:
    """Returns the indexed condition that the fewest rows meet, as far as the newest 200 rows of each tell.

    None if there is no such condition, and the read follows the positions.
    """
    indexed = statements.indexed()
    if len(indexed) < 2:
        return indexed[0] if indexed else None
    oldest = await (await connection.execute(statements.samples(indexed), values)).fetchone()
    assert oldest is not None, "a SELECT of subqueries has one row"
    return min(zip(indexed, oldest, strict=True), key=lambda pair: pair[1] or 0)[0]


@dataclass(frozen=True, slots=True)
class _Statements:
    """The statements for a combination of conditions, composed of literal texts.

    An index is chosen by comparing its entries, `(name, position) < (x, y)`, and by sorting by both columns. With
    `name = x`, PostgreSQL might follow the positions instead, and discard any number of rows that have other names.
    """

    listing: Listing
    columns: LiteralString
    names: frozenset[str]

    def indexed(self) -> list[LiteralString]:
        """Returns the conditions that have an index."""
        return [name for name in self.listing.indexed if name in self.names]

    def checks(self, followed: LiteralString | None) -> list[LiteralString]:
        """Returns the conditions that the followed index does not contain."""
        listing = self.listing
        equal: list[LiteralString] = [
            f"{listing.row}.{listing.indexed[name]} = %({name})s" for name in self.indexed() if name != followed
        ]
        return equal + [text for name, text in listing.checked.items() if name in self.names]

    def samples(self, indexed: Sequence[LiteralString]) -> LiteralString:
        """Returns the query for the position of the 200th row that meets each condition; null if fewer rows do."""
        rows: list[LiteralString] = [
            f"(SELECT {self.listing.row}.position {self._following(name, self._end)} OFFSET 199 LIMIT 1)"
            for name in indexed
        ]
        return "SELECT " + ", ".join(rows)

    def page(self, followed: LiteralString | None) -> LiteralString:
        """Returns the query for the rows of the followed index.

        The planner takes a limit that is a parameter for a tenth of the table, so there is a constant one, too.
        """
        return f"""
            SELECT {self.columns} FROM (SELECT * {self._following(followed, self._end)} LIMIT 101) AS {self.listing.row}
            LIMIT %(limit)s
        """

    def scan(self, followed: LiteralString | None, checks: Sequence[LiteralString]) -> LiteralString:
        """Returns the query for those rows of the followed index that pass the checks, read in chunks.

        The first column of each row is the position at which the read stopped early, or null.
        """
        table, row = self.listing.table, self.listing.row
        return f"""
            WITH RECURSIVE scan (chunks, reached, found, matches) AS (
                SELECT 0, {self._end}, ARRAY[]::bigint[], 0
                UNION ALL
                SELECT scan.chunks + 1, chunk.reached, chunk.found, scan.matches + cardinality(chunk.found)
                FROM scan CROSS JOIN LATERAL (
                    SELECT min({row}.position) AS reached,
                           coalesce(array_agg({row}.position) FILTER (WHERE {" AND ".join(checks)}), ARRAY[]::bigint[])
                               AS found
                    FROM (SELECT * {self._following(followed, "scan.reached")} LIMIT 100) AS {row}
                ) AS chunk
                WHERE scan.chunks < 200 AND scan.matches < %(limit)s AND chunk.reached IS NOT NULL
            ), page AS (
                SELECT {self.columns}
                FROM (SELECT unnest(scan.found) AS position FROM scan) AS match
                CROSS JOIN LATERAL (SELECT * FROM {table} WHERE {table}.position = match.position LIMIT 1) AS {row}
                ORDER BY {row}.position DESC LIMIT %(limit)s
            )
            SELECT (SELECT reached FROM scan WHERE chunks = 200 AND matches < %(limit)s), page.*
            FROM (VALUES (true)) AS one LEFT JOIN page ON true
            ORDER BY page.position DESC
        """

    @property
    def _end(self) -> LiteralString:
        ends: list[LiteralString] = [text for name, text in self.listing.ends.items() if name in self.names]
        return "least(" + ", ".join(["%(before)s::bigint", *ends]) + ")"

    def _following(self, followed: LiteralString | None, end: LiteralString) -> LiteralString:
        """Returns the clauses from FROM to ORDER BY that read an index, before the position `end`."""
        table, row = self.listing.table, self.listing.row
        starts: list[LiteralString] = [text for name, text in self.listing.starts.items() if name in self.names]
        start = ", ".join(["0", *starts])
        if followed is None:
            return f"""
                FROM {table} AS {row} WHERE {row}.position < {end} AND {row}.position >= greatest({start})
                ORDER BY {row}.position DESC
            """
        column = f"{row}.{self.listing.indexed[followed]}"
        return f"""
            FROM {table} AS {row}
            WHERE ({column}, {row}.position) < (%({followed})s, {end})
              AND ({column}, {row}.position) >= (%({followed})s, greatest({start}))
            ORDER BY {column} DESC, {row}.position DESC
        """
