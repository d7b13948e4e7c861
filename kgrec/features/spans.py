"""Which earlier rows belong to which question: windows as two positions in rows sorted by key and time.

Sources are sorted by key and time and their 0/1 marks summed up once. The rows of a key in [start, instant) then lie
between two positions that a binary search finds, and each count is the difference of two sums: exact, with no join to
reorder rows. A row at the very instant is never counted, so rows of equal time do not see each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from kgrec.columns import CLICK, CONVERSION, TIME
from kgrec.features.aggregations import Of

Array = npt.NDArray[Any]
NEVER: Final = np.iinfo(np.int64).min
"""The time of what did not happen."""
_BITS: Final = 63  # of a number that is not negative


@dataclass(frozen=True)
class Sight:
    """The rows that may be seen and the instants (`at`, microseconds) as of which they are asked about.

    sources: `time` (no null, sorted), labels, and the columns whose values are gathered.
    """

    sources: pl.DataFrame
    at: Array
    instants: Array = field(init=False)
    source_rank: Array = field(init=False)
    marks: dict[tuple[str, Of], Array] = field(init=False, default_factory=dict)
    ranks: dict[timedelta, Array] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        times = self.sources[TIME].to_physical().to_numpy()
        changes = np.concatenate([np.ones(min(1, len(times)), np.bool_), times[1:] != times[:-1]])
        object.__setattr__(self, "instants", times[changes])
        object.__setattr__(self, "source_rank", np.cumsum(changes, dtype=_whole(len(times))) - 1)

    def asked_rank(self, ago: timedelta = timedelta(0)) -> Array:
        """Return how many distinct instants of the sources lie before each instant of `at`, or so long ago."""
        if ago not in self.ranks:
            rank = np.searchsorted(self.instants, self.at - ago // timedelta(microseconds=1))
            self.ranks[ago] = rank.astype(_whole(len(self.instants)))
        return self.ranks[ago]

    def happened(self, kind: Of) -> Array:
        """Say of each source whether it is of this kind; a missing label says no."""
        return self._mark("happened", kind, happened_of(kind))

    def labelled(self, kind: Of) -> Array:
        """Say of each source whether it could have been of this kind."""
        return self._mark("labelled", kind, labelled_of(kind))

    def _mark(self, name: str, kind: Of, mark: pl.Expr) -> Array:
        if (name, kind) not in self.marks:
            marks = self.sources.select(pl.repeat(True, pl.len()) & mark).to_series()
            self.marks[name, kind] = marks.to_numpy().astype(np.bool_)
        return self.marks[name, kind]

    def global_rates(self, kinds: Iterable[Of], totals: Mapping[Of, tuple[int, int]] | None = None) -> dict[Of, Array]:
        """Return per kind the rate over all sources strictly before each instant: (positives + 1) / (rows + 2).

        totals: positives and rows that came before all sources.
        """
        everything = np.zeros(self.sources.height, np.int64), np.zeros(len(self.at), np.int64)
        span = Span.find(self, *everything, None)
        rates = {}
        for kind in sorted(set(kinds)):
            happened, labelled = (totals or {}).get(kind, (0, 0))
            rates[kind] = (span.count(self.happened(kind)) + happened + 1) / (
                span.count(self.labelled(kind)) + labelled + 2
            )
        return rates


def happened_of(kind: Of) -> pl.Expr:
    """Say of each row whether it is of this kind; a missing label says no."""
    if kind is Of.ROWS:
        return pl.lit(True)
    if kind is Of.CONVERSION_GIVEN_CLICK:
        return (pl.col(CLICK) & pl.col(CONVERSION)).fill_null(False)
    return pl.col(CLICK if kind is Of.CLICK else CONVERSION).fill_null(False)


def labelled_of(kind: Of) -> pl.Expr:
    """Say of each row whether it could have been of this kind: the label is there, and the click where one is given."""
    if kind is Of.ROWS:
        return pl.lit(True)
    if kind is Of.CONVERSION_GIVEN_CLICK:
        return pl.col(CLICK).fill_null(False) & pl.col(CONVERSION).is_not_null()
    return pl.col(CLICK if kind is Of.CLICK else CONVERSION).is_not_null()


def by_key(key: Array) -> Array:
    """Return the stable order of rows by their key (int64, -1 or more): of equal keys the earlier row comes first.

    Key and position make one number, and plain sorting of numbers is many times faster than of positions.

    >>> by_key(np.array([2, -1, 2, 0])).tolist()
    [1, 3, 0, 2]
    """
    bits = len(key).bit_length()
    if int(key.max(initial=0)) + 1 >= 1 << (_BITS - bits):
        order: Array = np.argsort(key, kind="stable")
        return order
    packed = ((key + 1) << bits) | np.arange(len(key))
    packed.sort()
    return packed & ((1 << bits) - 1)


@dataclass(frozen=True)
class Span:
    """The positions [first, stop) of each instant's rows among the sources, put in `order` of key and time.

    asked: the order of the instants, by key, in which first and stop are. What is near is looked at one after the
    other, so that seconds grow as the rows do; what the methods return is in the order of the sight.
    """

    sight: Sight
    source_key: Array
    order: Array
    asked: Array
    first: Array
    stop: Array

    @classmethod
    def find(cls, sight: Sight, source_key: Array, target_key: Array, lookback: timedelta | None) -> Span:
        """Place each window; an instant without a key has an empty one."""
        step, order, asked = len(sight.instants) + 1, by_key(source_key), by_key(target_key)
        place = source_key[order] * step + sight.source_rank[order]
        key = target_key[asked] * step
        stop = np.searchsorted(place, key + sight.asked_rank()[asked])
        start = key if lookback is None else key + sight.asked_rank(lookback)[asked]
        return cls(sight, source_key, order, asked, np.where(key < 0, stop, np.searchsorted(place, start)), stop)

    def count(self, mark: Array) -> Array:
        """Return how many rows of each window have the mark, int64."""
        sums: Array = np.zeros(len(mark) + 1, _whole(len(mark)))
        np.cumsum(mark[self.order], out=sums[1:])
        return self._in_order(sums[self.stop] - sums[self.first]).astype(np.int64)

    def last_time(self, mark: Array) -> Array:
        """Return the time (microseconds) of each window's last marked row; NEVER when there is none."""
        places = np.where(mark[self.order], np.arange(len(mark)), -1)
        last = np.concatenate([[-1], np.maximum.accumulate(places)])[self.stop]
        times = np.concatenate([self._times(), [0]])
        return self._in_order(np.where(last >= self.first, times[last], NEVER))

    def last_rows(self, mark: Array, n: int) -> Array:
        """Return the indices of each window's last n marked sources, newest first, -1 beyond; shape (instants, n)."""
        marked, behind = self._marked(mark)
        nth_NK = np.maximum(behind[:, None] - 1 - np.arange(n), -1)
        there_NK = (nth_NK >= 0) & (np.concatenate([marked, [-1]])[nth_NK] >= self.first[:, None])
        return self._in_order(np.where(there_NK, np.concatenate([self.order[marked], [-1]])[nth_NK], -1))

    def decayed_sum(self, mark: Array, half_life_us: float) -> Array:
        """Return the sum over each window's marked rows of 2^(-age / half life). The window must reach all time back.

        Each row's own sum adds up its predecessors of the same key, 1, 2, 4, ... rows at a time: no power of the whole
        length of the log is ever taken, and later rows change no bit of an earlier sum.
        """
        marked, behind = self._marked(mark)
        times, key = self._times()[marked], self.source_key[self.order[marked]]
        begins = np.searchsorted(key, key)  # sorted by key
        sums, longest = np.ones(len(marked)), int((np.arange(len(marked)) - begins).max(initial=-1)) + 1
        reach = 1
        while reach < longest:
            rows = np.flatnonzero(np.arange(len(marked)) - reach >= begins)
            added = sums[rows - reach] * np.exp2((times[rows - reach] - times[rows]) / half_life_us)
            sums[rows] += added
            reach *= 2
        last = behind - 1
        there = (last >= 0) & (np.concatenate([marked, [-1]])[last] >= self.first)
        ages = self.sight.at[self.asked] - np.concatenate([times, [0]])[last]
        found = np.concatenate([sums, [0.0]])[last] * np.exp2(-np.where(there, ages, 0) / half_life_us)
        return self._in_order(np.where(there, found, 0.0))

    def _in_order(self, found: Array) -> Array:
        back = np.empty_like(found)
        back[self.asked] = found
        return back

    def _times(self) -> Array:
        times: Array = self.sight.instants[self.sight.source_rank[self.order]]
        return times

    def _marked(self, mark: Array) -> tuple[Array, Array]:
        """Return the positions of the marked rows, and per window how many of them lie before its end."""
        ordered = mark[self.order]
        return np.flatnonzero(ordered), np.concatenate([[0], np.cumsum(ordered)])[self.stop]


def _whole(most: int) -> type[np.signedinteger[Any]]:
    """Return the smallest type of numbers up to `most` that pays: what is looked up at random stays in the cache."""
    return np.int32 if most < 2**31 else np.int64
