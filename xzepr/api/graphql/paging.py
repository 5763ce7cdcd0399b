"""Connections of the Relay pagination specification. The cursor of an edge is the position of its node."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

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


@dataclass(frozen=True, slots=True)
class ConnectionData(Generic[T]):
    """The data that a Connection is resolved from."""

    edges: list[Edge[T]]
    nodes: list[T]
    page_info: PageInfo


def to_connection(page: paging.Page[T], position: Callable[[T], int], request: paging.PageRequest) -> ConnectionData[T]:
    """Returns the connection for a page; `position` returns the position of an entry."""
    edges = [Edge(cursor=str(position(item)), node=item) for item in page.items]
    info = PageInfo(
        has_next_page=page.has_next,
        has_previous_page=request.after is not None,
        start_cursor=edges[0].cursor if edges else None,
        end_cursor=edges[-1].cursor if edges else None,
    )
    return ConnectionData(edges, list(page.items), info)
