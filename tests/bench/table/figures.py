"""Measurements, and the statistics of their rounds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Measurement:
    """The figures of one server in one case and one round."""

    case: str
    server: str
    round: int
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Side:
    """A figure of a server in a case."""

    case: str
    server: str
    figure: str

    def rounds(self, measurements: Iterable[Measurement]) -> dict[int, float]:
        """Returns the figure of each round."""
        return {
            each.round: each.figures[self.figure]
            for each in measurements
            if (each.case, each.server) == (self.case, self.server) and self.figure in each.figures
        }


@dataclass(frozen=True, slots=True)
class Summary:
    """The median of some rounds, and their spread."""

    median: float
    low: float
    high: float

    def overlaps(self, other: "Summary") -> bool:
        """Returns whether the two spreads have a value in common."""
        return self.low <= other.high and other.low <= self.high


def summary(values: Sequence[float]) -> Summary:
    """Returns the median and the spread of at least one value."""
    return Summary(median(values), min(values), max(values))


def ratio(numerators: Mapping[int, float], denominators: Mapping[int, float]) -> Summary:
    """Returns the ratio of the medians, with the least and greatest ratio within one round."""
    paired = [value / denominators[round] for round, value in numerators.items() if round in denominators]
    middle = median(numerators.values()) / median(denominators.values())
    return Summary(middle, min([middle, *paired]), max([middle, *paired]))
