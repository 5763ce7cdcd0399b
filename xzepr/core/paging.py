"""Pages of long lists: keyset pagination by position, newest first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from xzepr.core.errors import InvalidInput

MAX_PAGE_SIZE = 100

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Requests up to `first` entries older than the position `after`, or the newest ones if `after` is None."""

    first: int = 50
    after: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.first <= MAX_PAGE_SIZE:
            raise InvalidInput.one("first", f"first must be between 1 and {MAX_PAGE_SIZE}")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Entries of a list in order, and whether more entries may follow."""

    items: Sequence[T]
    has_next: bool
    reached: int | None = None
    """The position after which the next page begins. None if that is the position of the last entry."""


def page_of(items: Sequence[T], first: int, reached: int | None) -> Page[T]:
    """Returns a page of the first entries of a read for at least one more than that.

    `reached` is the position at which the read stopped early, before it had found them all. None if it did not.
    """
    if len(items) > first:
        return Page(items[:first], has_next=True)
    return Page(items, has_next=reached is not None, reached=reached)
