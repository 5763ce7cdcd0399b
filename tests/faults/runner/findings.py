"""Findings of the checker, and the check that every reader of the stream must pass."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise

Finding = tuple[str, str]  # one of the kinds below, and a description
LOST, REPEATED, ORDER, GATE, REJECTED, OTHER = "lost", "repeated", "order", "gate", "rejected", "other"


def exactly_once(reader: str, received: list[int], expected: Iterable[int]) -> Iterator[Finding]:
    """Checks that a reader received exactly these positions, each once and in order."""
    counts, positions = Counter(received), set(expected)
    yield from ((LOST, f"{reader} lacks position {position}") for position in sorted(positions - counts.keys()))
    for position, count in counts.items():
        if position not in positions:
            yield OTHER, f"{reader} has position {position}, which it must not get"
        elif count > 1:
            yield REPEATED, f"{reader} has position {position} {count} times"
    for before, after in pairwise(received):
        if after < before:
            yield ORDER, f"{reader} has {after} after {before}"
