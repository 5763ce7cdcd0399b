"""Pages of long lists: keyset pagination by position, newest first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

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
    """Entries of a list in order, and whether more entries follow."""

    items: Sequence[T]
    has_next: bool


EMPTY_PAGE: Page[Any] = Page((), has_next=False)
