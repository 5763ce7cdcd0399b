"""Relay connections over pages: the cursor of an edge is the position of its node."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import strawberry

from xzepr.core import paging
from xzepr.core.errors import InvalidInput

T = TypeVar("T")


@strawberry.type(description="Where a page begins and ends.")
class PageInfo:
    """Relay's PageInfo; pages are read forwards only."""

    has_next_page: bool
    has_previous_page: bool
    start_cursor: str | None
    end_cursor: str | None


@strawberry.type
class Edge(Generic[T]):
    """A node in its list."""

    cursor: str
    node: T


@strawberry.type
class Connection(Generic[T]):
    """A page of a list, newest first."""

    edges: list[Edge[T]]
    nodes: list[T]
    page_info: PageInfo


def page_request(first: int, after: str | None) -> paging.PageRequest:
    """What a connection's arguments ask for; raises InvalidInput."""
    if after is None:
        return paging.PageRequest(first)
    if not (after.isascii() and after.isdigit() and len(after) <= 18):
        raise InvalidInput.one("after", f"{after[:40]!r} is not the cursor of a list")
    return paging.PageRequest(first, int(after))


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """A page as GraphQL shows it."""

    edges: list[Edge[T]]
    nodes: list[T]
    page_info: PageInfo


def to_connection(page: paging.Page[T], position: Callable[[T], int], asked: paging.PageRequest) -> Listed[T]:
    """The connection of a page whose entries have these positions."""
    edges = [Edge(cursor=str(position(item)), node=item) for item in page.items]
    info = PageInfo(
        has_next_page=page.has_next,
        has_previous_page=asked.after is not None,
        start_cursor=edges[0].cursor if edges else None,
        end_cursor=edges[-1].cursor if edges else None,
    )
    return Listed(edges, list(page.items), info)
