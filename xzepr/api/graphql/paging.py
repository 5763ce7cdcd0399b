"""Connections of the Relay pagination specification. The cursor of an edge is the position of its node."""

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import strawberry

from xzepr.api.graphql_server.plans.resolvers import ITSELF
from xzepr.core import paging
from xzepr.core.errors import InvalidInput

T = TypeVar("T")
P = TypeVar("P", bound="Positioned")


@strawberry.type(description="The cursors of a page's first and last entries, and whether more pages exist.")
class PageInfo:
    """The PageInfo of the Relay specification. Pages are read forwards only."""

    has_next_page: bool
    has_previous_page: bool
    start_cursor: str | None
    end_cursor: str | None


class Positioned(Protocol):
    """An entry of a list, which is sorted by position."""

    @property
    def position(self) -> int:
        """The position in the stream at which the entry was created."""
        ...


def _cursor(root: strawberry.Parent[Positioned]) -> str:
    return str(root.position)


@strawberry.type
class Edge(Generic[T]):
    """A node of a list, and its cursor. Resolved from the node."""

    cursor: str = strawberry.field(resolver=_cursor)
    node: T = strawberry.field(metadata=ITSELF)


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


@dataclass(frozen=True, slots=True)
class ConnectionData(Generic[P]):
    """The data that a Connection is resolved from. Only what a document selects is computed."""

    page: paging.Page[P]
    request: paging.PageRequest

    @property
    def edges(self) -> list[P]:
        """The entries, from which edges are resolved."""
        return list(self.page.items)

    @property
    def nodes(self) -> list[P]:
        """The entries."""
        return list(self.page.items)

    @property
    def page_info(self) -> PageInfo:
        """The cursors of the first and last entry, and whether there are more pages."""
        items, end = self.page.items, self.page.reached
        if end is None and items:
            end = items[-1].position
        return PageInfo(
            has_next_page=self.page.has_next,
            has_previous_page=self.request.after is not None,
            start_cursor=str(items[0].position) if items else None,
            end_cursor=None if end is None else str(end),
        )


def to_connection(page: paging.Page[P], request: paging.PageRequest) -> ConnectionData[P]:
    """Returns the connection for a page."""
    return ConnectionData(page, request)
