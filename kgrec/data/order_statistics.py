"""Cutting a log by time without holding its times: instants found by counting, a few passes over the column.

A pass counts rows in bins and never collects more than `at_once` of them. Everything is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import polars as pl

from kgrec.columns import TIME, TIME_TYPE
from kgrec.data.boundaries import Boundaries, SplitConfig, find_boundaries, too_few_times

_BINS: Final = 4096
_AT: Final = "at"


def streamed_boundaries(time: pl.LazyFrame, config: SplitConfig, at_once: int) -> Boundaries:
    """Return what `find_boundaries` returns of the column `time`, with at most `at_once` times in memory.

    Raises InputError when there are too few distinct times.
    """
    rows = int(time.select(pl.len()).collect(engine="streaming").item())
    if rows <= at_once:
        return find_boundaries(time.select(TIME).collect(engine="streaming")[TIME], config)
    times = _Times(time.select(pl.col(TIME).dt.timestamp("us").alias(_AT)).drop_nulls(), at_once)
    dated = times.before(None)
    if isinstance(config.test, datetime):
        test, before = config.test, times.before(_micro(config.test))
    else:
        test, before = _cut(times, dated * (1 - config.test), skipped=2, end=None)
    if isinstance(config.validation, datetime):
        return Boundaries(config.validation, test)
    validation, _ = _cut(times, before - dated * config.validation, skipped=1, end=_micro(test))
    return Boundaries(validation, test)


@dataclass(frozen=True)
class _Times:
    """The times of a log, microseconds, unordered."""

    at: pl.LazyFrame
    at_once: int

    def before(self, instant: int | None) -> int:
        """Return how many rows lie before an instant; all of them where it is None."""
        rows = self.at if instant is None else self.at.filter(pl.col(_AT) < instant)
        return int(rows.select(pl.len()).collect(engine="streaming").item())

    def next_after(self, instant: int | None) -> int | None:
        """Return the first time after an instant, or of all."""
        rows = self.at if instant is None else self.at.filter(pl.col(_AT) > instant)
        found: int | None = rows.select(pl.col(_AT).min()).collect(engine="streaming").item()
        return found

    def last_before(self, instant: int | None) -> int | None:
        """Return the last time before an instant, or of all."""
        rows = self.at if instant is None else self.at.filter(pl.col(_AT) < instant)
        found: int | None = rows.select(pl.col(_AT).max()).collect(engine="streaming").item()
        return found

    def at_place(self, place: int) -> int:
        """Return the time at a place of the sorted times."""
        low, high = self.at.select(low=pl.col(_AT).min(), high=pl.col(_AT).max()).collect(engine="streaming").row(0)
        while True:
            inside = self.at.filter(pl.col(_AT).is_between(low, high))
            width = (high - low) // _BINS + 1
            bins = ((pl.col(_AT) - low) // width).alias("bin")
            counted = inside.group_by(bins).len().collect(engine="streaming").sort("bin")
            reached = counted["len"].cum_sum()
            chosen = int(reached.search_sorted(place, side="right"))
            rows, place = int(counted["len"][chosen]), place - (int(reached[chosen - 1]) if chosen else 0)
            low = low + int(counted["bin"][chosen]) * width
            high = low + width - 1
            if width == 1:
                return int(low)
            if rows <= self.at_once:
                near = self.at.filter(pl.col(_AT).is_between(low, high)).collect(engine="streaming")
                return int(near[_AT].sort()[place])


def _cut(times: _Times, wanted: float, *, skipped: int, end: int | None) -> tuple[datetime, int]:
    """Return the change of time nearest to `wanted` rows (the earlier of two) and how many rows lie before it.

    The first `skipped` distinct times cannot be it, nor any from `end` on.
    """
    first = times.next_after(None)
    for _ in range(skipped):
        first = None if first is None else times.next_after(first)
    last = times.last_before(end)
    if first is None or last is None or first > last:
        raise too_few_times(_distinct(times))
    below = times.at_place(min(max(int(wanted), 0), times.before(None) - 1))
    above = times.next_after(below)
    options = sorted({min(max(one, first), last) for one in (below, below if above is None else above)})
    counted = [(abs(times.before(one) - wanted), one) for one in options]
    chosen = min(counted)[1]
    return _instant(chosen), times.before(chosen)


def _distinct(times: _Times) -> int:
    """Return how many distinct times there are; asked where they are few."""
    return int(times.at.select(pl.col(_AT).n_unique()).collect(engine="streaming").item())


def _micro(instant: datetime) -> int:
    return int(pl.Series([instant], dtype=TIME_TYPE).to_physical()[0])


def _instant(micro: int) -> datetime:
    found: datetime = pl.Series([micro], dtype=pl.Int64).cast(TIME_TYPE)[0]
    return found
