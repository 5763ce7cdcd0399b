"""A page of a longer list, and how to ask for one: keysets over positions, newest first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from xzepr.core.errors import InvalidInput

MAX_PAGE_SIZE = 100

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Ask for `first` entries older than the position `after` (None: from the newest)."""

    first: int = 50
    after: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.first <= MAX_PAGE_SIZE:
            raise InvalidInput.one("first", f"first must be between 1 and {MAX_PAGE_SIZE}")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some entries in order, and whether more follow."""

    items: Sequence[T]
    has_next: bool


EMPTY_PAGE: Page[Any] = Page((), has_next=False)
"""The page of an empty list."""
