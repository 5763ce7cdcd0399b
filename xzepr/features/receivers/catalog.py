"""The catalog, which is all receivers and groups: its token, and what this process keeps of it.

Every change of a receiver or a group renews the token in the same transaction. So what was read under a token is what
the database holds as long as that token is the current one, and a read needs the token alone if its values are kept.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Generic, TypeVar

from xzepr.core.lru_cache import LRUCache
from xzepr.features.receivers import store
from xzepr.infra.concurrency import SharedRead
from xzepr.infra.db import Connection, Database, hang_up_after

_TOKEN_TIMEOUT_SECONDS = 5.0  # for a statement that reads one row; longer means a silent connection
_MAX_ENTRIES = 50_000  # of one part; usually the size is the limit

V = TypeVar("V")


class Catalog:
    """Reads the catalog's token, with one statement for all callers of the process at that moment."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self._tokens = SharedRead[None, str](self._read_token)

    async def token(self) -> str:
        """Returns a token that was the current one at some time after this call."""
        return await self._tokens.read(None)

    async def _read_token(self, _: None) -> str:
        async with self.db.read() as connection:
            with hang_up_after(connection, _TOKEN_TIMEOUT_SECONDS):
                return await store.catalog_token(connection)


class CatalogPart(Generic[V]):
    """Keeps values of the catalog by id, and reads the others.

    A read returns everything that was committed before it began, by any process. A value stays the same object while
    it is kept, which is at most until the token changes.
    """

    def __init__(
        self,
        catalog: Catalog,
        read: Callable[[Connection, Sequence[str]], Awaitable[tuple[str, dict[str, V]]]],
        *,
        max_bytes: int,
        size_of: Callable[[V], int],
    ) -> None:
        """`read` returns the token and the values that exist, as one statement has read them."""
        self._catalog = catalog
        self._read = read
        self._reads = SharedRead[frozenset[str], tuple[str, dict[str, V]]](self._read_and_keep)
        self._token: str | None = None
        self._values = LRUCache[str, V](_MAX_ENTRIES, max_size=max_bytes, size_of=size_of)

    async def by_ids(self, ids: Collection[str]) -> dict[str, V]:
        """Returns the values with these ids, by id. Unknown ids are left out."""
        if not ids:
            return {}
        kept_under, kept = self._token, self._kept(ids)
        if missing := frozenset(ids).difference(kept):
            token, values = await self._reads.read(missing)
        else:
            token, values = await self._catalog.token(), {}
        if kept and token != kept_under:
            _, values = await self._reads.read(frozenset(ids))
            return dict(values)
        return {**kept, **values}

    def keep(self, token: str, values: dict[str, V]) -> dict[str, V]:
        """Keeps values that were read under a token, and returns them; those that are kept already, as kept."""
        if token != self._token:
            self._token = token
            self._values.clear()
        kept = self._kept(values)
        for id, value in values.items():
            if id not in kept:
                self._values.put(id, value)
        return {**values, **kept}

    def _kept(self, ids: Collection[str]) -> dict[str, V]:
        return {id: value for id in ids if (value := self._values.get(id)) is not None}

    async def _read_and_keep(self, ids: frozenset[str]) -> tuple[str, dict[str, V]]:
        db = self._catalog.db
        async with db.read() as connection:
            with hang_up_after(connection, db.max_transaction_seconds):
                token, values = await self._read(connection, list(ids))
        return token, self.keep(token, values)
