"""What a checker says is wrong, and the question that is asked of everybody who reads the stream."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise

Finding = tuple[str, str]
"""What kind of failure it is (LOST, REPEATED, ORDER, GATE, REFUSED, OTHER), and in words."""
LOST, REPEATED, ORDER, GATE, REFUSED, OTHER = "lost", "repeated", "order", "gate", "refused", "other"


def each_once(who: str, got: list[int], wanted: Iterable[int]) -> Iterator[Finding]:
    """Whether somebody got exactly these positions, each once and in order."""
    counted, expected = Counter(got), set(wanted)
    yield from ((LOST, f"{who} lacks position {position}") for position in sorted(expected - counted.keys()))
    for position, count in counted.items():
        if position not in expected:
            yield OTHER, f"{who} has position {position}, which is not for it"
        elif count > 1:
            yield REPEATED, f"{who} has position {position} {count} times"
    for before, after in pairwise(got):
        if after < before:
            yield ORDER, f"{who} has {after} after {before}"
