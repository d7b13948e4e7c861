"""How a log is taken apart so that no more than some rows are held: by ranges of users or items, and by time.

Rows of different keys do not see each other. A view keyed by a user (or an item) is computed a range of users at a
time; any other view goes through time, a slice after the other, and what it knows of its keys is carried on.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from kgrec.columns import ITEM_ROW, TIME, USER_ROW
from kgrec.features.aggregations import DecayedCount
from kgrec.features.feature_log import FeatureLog, Span, as_time
from kgrec.features.spans import NEVER, Array
from kgrec.features.view import FeatureView

BYTES_OF_A_ROW: Final = 500
"""Of a row whose features are computed: its columns, its keys, sorted copies of them, counts."""
MOST_AT_ONCE: Final = 1 << 20
"""Rows that are held at once however much memory there is: of more, what is looked up leaves the cache."""
MOST_TOGETHER: Final = 1 << 18
"""Rows that are looked at together where a log is taken apart: arrays of more are given back to the system when they
are freed, and mapped anew, page by page."""
_BINS: Final = 4096


@dataclass(frozen=True)
class Share:
    """Rows that are looked at together: those whose `column` lies in [low, high), or all rows (None).

    unknown: rows without a value of the column are among them.
    """

    column: str | None = None
    low: int = 0
    high: int = 0
    unknown: bool = False

    @property
    def chosen(self) -> pl.Expr | None:
        """Say of each row whether it is one of them; None for all."""
        if self.column is None:
            return None
        inside = pl.col(self.column).is_between(self.low, self.high, closed="left")
        return inside.fill_null(self.unknown)


@dataclass(frozen=True)
class Slice:
    """The instants [low, high) in microseconds."""

    low: int
    high: int

    @property
    def chosen(self) -> pl.Expr:
        """Say of each row whether its time is one of them."""
        return pl.col(TIME).is_between(as_time(self.low), as_time(self.high), closed="left")


def place_among(parts: Sequence[Share] | Sequence[Slice]) -> pl.Expr:
    """Return the number of the part that a row is in, null where it is in none; parts are ascending, as made here."""
    known = [one for one in parts if isinstance(one, Slice) or not one.unknown]
    unknown = len(known) if len(known) < len(parts) else None
    lows, highs = np.array([one.low for one in known]), np.array([one.high for one in known])
    column = next((one.column for one in parts if isinstance(one, Share)), TIME)

    def found(values: pl.Series) -> pl.Series:
        value = values.to_physical().cast(pl.Int64).fill_null(NEVER).to_numpy()
        place = np.searchsorted(lows, value, side="right") - 1
        inside = (place >= 0) & (value < highs[place]) if len(known) else np.zeros(len(value), np.bool_)
        places = pl.Series(place, dtype=pl.Int64).set(pl.Series(~inside), None)
        return places if unknown is None else places.set(values.is_null(), unknown)

    return pl.col(column or TIME).map_batches(found, return_dtype=pl.Int64, is_elementwise=True)


def partition_of(view: FeatureView) -> str | None:
    """Return the key by whose ranges a view's rows can be taken apart, None where it has none."""
    if view.graph_key:
        return None
    return next((key for key in view.keys if key in (USER_ROW, ITEM_ROW)), None)


def carries_on(view: FeatureView) -> bool:
    """Say whether what a view knows of a key, added to later rows, gives the bits that all rows at once give.

    A decayed sum is rounded where it is cut; a view over the graph is a mean over entities.
    """
    return not view.graph_key and not any(isinstance(feature, DecayedCount) for feature in view.features)


def shares_of(log: FeatureLog, column: str, at_once: int) -> list[Share]:
    """Return ranges of a column's values, ascending, of at most so many rows; more where one value has more."""
    counted = log.counted(column)
    known = counted.drop_nulls()
    values = known[column].to_numpy().astype(np.int64)
    bounds = packed(known["len"].to_numpy(), at_once)
    shares = [
        Share(column, int(values[first]), int(values[last - 1]) + 1) for first, last in itertools.pairwise(bounds)
    ]
    return shares if known.height == counted.height else [*shares, Share(column, 0, 0, unknown=True)]


def slices_of(log: FeatureLog, span: Span, at_once: int) -> list[Slice]:
    """Return spans of time, one after the other, of at most so many rows; more where one bin of 4096 has more."""
    if span.first is None or span.last is None:
        return []
    width = max(1, -(-(span.last + 1 - span.first) // _BINS))
    place = ((pl.col(TIME).to_physical() - span.first) // width).alias("bin")
    sources = [one.select(place) for one in (log.labelled, log.events) if one is not None]
    counted = pl.concat(sources).drop_nulls().group_by("bin").len().collect(engine="streaming")
    counts = np.zeros(_BINS, np.int64)
    counts[counted["bin"].to_numpy()] = counted["len"].to_numpy()
    lows = [span.first + width * bound for bound in packed(counts, at_once)]
    return [Slice(low, high) for low, high in zip(lows, [*lows[1:-1], span.last + 2], strict=False)]


def packed(counts: Sequence[int] | Array, at_once: int) -> list[int]:
    """Return the bounds of groups of neighbours whose counts sum up to at most `at_once`; one alone may have more.

    >>> packed([3, 3, 3, 9, 1], 6)
    [0, 2, 3, 4, 5]
    """
    sums, bounds = np.concatenate([[0], np.cumsum(counts)]), [0]
    while bounds[-1] < len(counts):
        fits = int(np.searchsorted(sums, sums[bounds[-1]] + at_once, "right")) - 1
        bounds.append(max(fits, bounds[-1] + 1))
    return bounds
