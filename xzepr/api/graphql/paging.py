"""Connections of the Relay pagination specification. The cursor of an edge is the position of its node."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import strawberry

from xzepr.core import paging
from xzepr.core.errors import InvalidInput

T = TypeVar("T")


@strawberry.type(description="The cursors of a page's first and last entries, and whether more pages exist.")
class PageInfo:
    """The PageInfo of the Relay specification. Pages are read forwards only."""

    has_next_page: bool
    has_previous_page: bool
    start_cursor: str | None
    end_cursor: str | None


@strawberry.type
class Edge(Generic[T]):
    """A node of a list, and its cursor."""

    cursor: str
    node: T


@strawberry.type
class Connection(Generic[T]):
    """A page of a list, newest first."""

    edges: list[Edge[T]]
    nodes: list[T]
    page_info: PageInfo


def page_request(first: int, after: str | None) -> paging.PageRequest:
    """Returns the page request for the arguments of a connection. Raises InvalidInput."""
    if after is None:
        return paging.PageRequest(first)
    if not (after.isascii() and after.isdigit() and len(after) <= 18):
        raise InvalidInput.one("after", f"{after[:40]!r} is not a list cursor")
    return paging.PageRequest(first, int(after))


class EdgeData(NamedTuple):
    """The data that an Edge is resolved from."""

    node: object
    position: int

    @property
    def cursor(self) -> str:
        """The position as a cursor."""
        return str(self.position)


@dataclass(frozen=True, slots=True)
class ConnectionData(Generic[T]):
    """The data that a Connection is resolved from. Only what a document selects is computed."""

    page: paging.Page[T]
    position: Callable[[T], int]
    """Returns the position of an entry."""
    request: paging.PageRequest

    @property
    def edges(self) -> list[EdgeData]:
        """The entries with their cursors."""
        position = self.position
        return [EdgeData(item, position(item)) for item in self.page.items]

    @property
    def nodes(self) -> list[T]:
        """The entries."""
        return list(self.page.items)

    @property
    def page_info(self) -> PageInfo:
        """The cursors of the first and last entry, and whether there are more pages."""
        items, end = self.page.items, self.page.reached
        if end is None and items:
            end = self.position(items[-1])
        return PageInfo(
            has_next_page=self.page.has_next,
            has_previous_page=self.request.after is not None,
            start_cursor=str(self.position(items[0])) if items else None,
            end_cursor=None if end is None else str(end),
        )


def to_connection(page: paging.Page[T], position: Callable[[T], int], request: paging.PageRequest) -> ConnectionData[T]:
    """Returns the connection for a page; `position` returns the position of an entry."""
    return ConnectionData(page, position, request)
