"""One view's values as of given instants: prefix sums over rows sorted by (key, time), read at two positions.

Sources are sorted by key and time and their 0/1 marks summed up once. The rows of a key in [start, instant) then lie
between two positions that a binary search finds, and each count is the difference of two sums: exact, with no join to
reorder rows. A row at the very instant is never counted, so rows of equal time do not see each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from kgrec.columns import CLICK, CONVERSION, TIME
from kgrec.features.view import Aggregation, Count, DistinctCount, FeatureView, Of, Rate, Recency

_LABELS: dict[Of, set[str]] = {
    Of.ROWS: set(), Of.CLICK: {CLICK}, Of.CONVERSION: {CONVERSION}, Of.CONVERSION_GIVEN_CLICK: {CLICK, CONVERSION},
}  # fmt: skip
Array = npt.NDArray[Any]


def needed_columns(feature: Aggregation) -> set[str]:
    """Return the columns without which the aggregation cannot be computed."""
    return _LABELS[feature.of] | ({feature.column} if isinstance(feature, DistinctCount) else set())


def key_codes(frame: pl.DataFrame, key_sets: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], Array]:
    """Return for each set of keys one int64 per row: equal for equal keys, -1 where a key is null.

    >>> key_codes(pl.DataFrame({"a": ["x", "y", "x"], "b": [1, 1, None]}), [("a", "b")])[("a", "b")].tolist()
    [0, 1, -1]
    """
    key_sets = list(dict.fromkeys(key_sets))
    names = sorted({key for keys in key_sets for key in keys})
    ranks = frame.select(pl.col(name).rank("dense").cast(pl.Int64).fill_null(0) for name in names)
    columns = {name: ranks[name].to_numpy() for name in names}
    return {keys: _combine([columns[key] for key in keys]) for keys in key_sets}


def _combine(ranks: Sequence[Array]) -> Array:
    """Number the distinct combinations of ranks (0 = null) from 0; -1 where one of them is null."""
    code, known = np.zeros(len(ranks[0]), np.int64), np.ones(len(ranks[0]), np.bool_)
    for rank in ranks:
        known &= rank > 0
        code = np.unique(code * (rank.max(initial=0) + 1) + rank, return_inverse=True)[1].astype(np.int64)
    code[known] = np.unique(code[known], return_inverse=True)[1]
    return np.where(known, code, -1)


@dataclass(frozen=True)
class Sight:
    """The rows that may be seen and the instants (`at`, microseconds) as of which they are asked about.

    sources: `time` (no null, sorted), labels, and the columns that distinct counts need.
    """

    sources: pl.DataFrame
    at: Array
    instants: Array = field(init=False)
    source_rank: Array = field(init=False)
    marks: dict[tuple[str, Of], Array] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        times = self.sources[TIME].to_physical().to_numpy()
        changes = np.concatenate([np.ones(min(1, len(times)), np.bool_), times[1:] != times[:-1]])
        object.__setattr__(self, "instants", times[changes])
        object.__setattr__(self, "source_rank", np.searchsorted(self.instants, times))

    def happened(self, kind: Of) -> Array:
        """Say of each source whether it is of this kind; a missing label says no."""
        return self._mark("happened", kind, _happened(kind))

    def labelled(self, kind: Of) -> Array:
        """Say of each source whether it could have been of this kind."""
        return self._mark("labelled", kind, _labelled(kind))

    def _mark(self, name: str, kind: Of, mark: pl.Expr) -> Array:
        if (name, kind) not in self.marks:
            marks = self.sources.select(pl.repeat(True, pl.len()) & mark).to_series()
            self.marks[name, kind] = marks.to_numpy().astype(np.bool_)
        return self.marks[name, kind]

    def global_rates(self, kinds: Iterable[Of]) -> dict[Of, Array]:
        """Return per kind the rate over all sources strictly before each instant: (positives + 1) / (rows + 2)."""
        everything = np.zeros(self.sources.height, np.int64), np.zeros(len(self.at), np.int64)
        span = _Span.find(self, *everything, None)
        return {
            kind: (span.count(self.happened(kind)) + 1) / (span.count(self.labelled(kind)) + 2)
            for kind in sorted(set(kinds))
        }


def values_as_of(
    view: FeatureView, sight: Sight, source_key: Array, target_key: Array, priors: Mapping[Of, Array]
) -> pl.DataFrame:
    """Return the view's Float32 columns, one row per instant of the sight, in order.

    source_key, target_key: codes from `key_codes` for sources and instants (-1: no key). priors: the global rates at
    these instants. Where nothing is seen, counts are 0, rates the prior and recency null.
    """
    span = _Span.find(sight, source_key, target_key, view.lookback)
    columns = {}
    for name, feature in zip(view.columns, view.features, strict=True):
        happened = sight.happened(feature.of)
        if isinstance(feature, Recency):
            columns[name] = pl.Series(np.log1p(span.seconds_since_last(happened)), nan_to_null=True)
        elif isinstance(feature, DistinctCount):
            value = sight.sources[feature.column].rank("dense").cast(pl.Int64).fill_null(0).to_numpy()
            columns[name] = pl.Series(span.count(_is_new(source_key, value, happened)))
        elif isinstance(feature, Count):
            columns[name] = pl.Series(span.count(happened))
        else:
            hits, rows = span.count(happened), span.count(sight.labelled(feature.of))
            columns[name] = pl.Series(_smooth(hits, rows, priors[feature.of], feature.strength))
    return pl.DataFrame(columns).cast(pl.Float32)


def unseen_values(view: FeatureView, priors: dict[Of, Array]) -> dict[str, float | None]:
    """Return what the view says of a key that was never seen, given the global rates at that instant (one target)."""
    values: dict[str, float | None] = {}
    for name, feature in zip(view.columns, view.features, strict=True):
        if isinstance(feature, Rate):
            values[name] = float(np.float32(priors[feature.of][0]))
        else:
            values[name] = None if isinstance(feature, Recency) else 0.0
    return values


def _is_new(key: Array, value: Array, happened: Array) -> Array:
    """Say of each source (in time order) whether its key did not have this value before among rows that happened."""
    rows = np.flatnonzero(happened & (key >= 0) & (value > 0))
    new = np.zeros(len(key), np.bool_)
    new[rows[np.unique(key[rows] * (value.max(initial=0) + 1) + value[rows], return_index=True)[1]]] = True
    return new


def _smooth(hits: Array, rows: Array, prior: Array, strength: float) -> Array:
    total = rows + strength
    smoothed: Array = np.where(total > 0, (hits + strength * prior) / np.where(total > 0, total, 1), prior)
    return smoothed


def _happened(kind: Of) -> pl.Expr:
    """Say of each row whether it is of this kind; a missing label says no."""
    if kind is Of.ROWS:
        return pl.lit(True)
    if kind is Of.CONVERSION_GIVEN_CLICK:
        return (pl.col(CLICK) & pl.col(CONVERSION)).fill_null(False)
    return pl.col(CLICK if kind is Of.CLICK else CONVERSION).fill_null(False)


def _labelled(kind: Of) -> pl.Expr:
    """Say of each row whether it could have been of this kind: the label is there, and the click where one is given."""
    if kind is Of.ROWS:
        return pl.lit(True)
    if kind is Of.CONVERSION_GIVEN_CLICK:
        return pl.col(CLICK).fill_null(False) & pl.col(CONVERSION).is_not_null()
    return pl.col(CLICK if kind is Of.CLICK else CONVERSION).is_not_null()


@dataclass(frozen=True)
class _Span:
    """For each instant the positions [first, stop) of its rows among the sources, put in `order` of key and time."""

    sight: Sight
    order: Array
    first: Array
    stop: Array

    @classmethod
    def find(cls, sight: Sight, source_key: Array, target_key: Array, lookback: timedelta | None) -> _Span:
        """Place each window; an instant without a key has an empty one."""
        step = len(sight.instants) + 1
        place = source_key * step + sight.source_rank
        order = np.argsort(place, kind="stable")
        place, key = place[order], target_key * step
        stop = np.searchsorted(place, key + np.searchsorted(sight.instants, sight.at))
        if lookback is not None:
            key = key + np.searchsorted(sight.instants, sight.at - lookback // timedelta(microseconds=1))
        first = np.where(target_key < 0, stop, np.searchsorted(place, key))
        return cls(sight, order, first, stop)

    def count(self, mark: Array) -> Array:
        """Return how many rows of each window have the mark, as float64 (exact)."""
        sums = np.concatenate([[0], np.cumsum(mark[self.order])])
        counts: Array = sums[self.stop] - sums[self.first]
        return counts.astype(np.float64)

    def seconds_since_last(self, mark: Array) -> Array:
        """Return the seconds from each window's last marked row to the instant; NaN when there is none."""
        places = np.where(mark[self.order], np.arange(len(mark)), -1)
        last = np.concatenate([[-1], np.maximum.accumulate(places)])[self.stop]
        times = np.concatenate([self.sight.instants[self.sight.source_rank[self.order]], [0]])
        return np.where(last >= self.first, (self.sight.at - times[last]) / 1e6, np.nan)
