"""Counters and histograms that cost a dictionary access, and are passed on to Prometheus's own later.

Prometheus's `inc` takes a lock, and with several processes it also writes to a mapped file. Here the sums are plain
numbers, and `flush` adds what is new. The sums only grow, so each may be changed in one thread while another flushes.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from prometheus_client import Counter, Histogram

Labels = tuple[str | int, ...]


class PlainCounter:
    """The sums of a counter by its labels."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self.sums: defaultdict[Labels, int] = defaultdict(int)
        """Add to these."""
        self._flushed: dict[Labels, int] = {}

    def flush(self) -> None:
        """Adds to the counter what was counted since the last flush."""
        for labels, total in list(self.sums.items()):
            flushed = self._flushed.get(labels)
            if flushed != total:
                self._counter.labels(*labels).inc(total - (flushed or 0))
                self._flushed[labels] = total


class BucketHistogram(Histogram):
    """Prometheus's histogram, to which many observations can be added at once."""

    def add(self, counts: Sequence[int], total: float) -> None:
        """Adds numbers of observations by bucket, and the total of their values."""
        untyped: Any = self
        for bucket, count in zip(untyped._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        untyped._sum.inc(total)


class _Series:
    """The observations with the same labels."""

    __slots__ = ("counts", "flushed_counts", "flushed_total", "total")

    def __init__(self, buckets: int) -> None:
        self.counts, self.flushed_counts = [0] * buckets, [0] * buckets
        self.total = self.flushed_total = 0.0


class PlainHistogram:
    """The observations of a histogram by its labels."""

    def __init__(self, histogram: BucketHistogram, bounds: Sequence[float]) -> None:
        """`bounds` are the upper bounds of the histogram's buckets but the last, which has none."""
        self._histogram = histogram
        self._bounds = bounds
        self._series: dict[Labels, _Series] = {}

    def observe(self, labels: Labels, value: float) -> None:
        """Counts a value in its bucket."""
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = _Series(len(self._bounds) + 1)
        series.counts[bisect_left(self._bounds, value)] += 1
        series.total += value

    def flush(self) -> None:
        """Adds to the histogram what was observed since the last flush."""
        for labels, series in list(self._series.items()):
            counts, total = list(series.counts), series.total
            if counts != series.flushed_counts:
                histogram = self._histogram.labels(*labels) if labels else self._histogram
                histogram.add(
                    [new - old for new, old in zip(counts, series.flushed_counts, strict=True)],
                    total - series.flushed_total,
                )
                series.flushed_counts, series.flushed_total = counts, total
