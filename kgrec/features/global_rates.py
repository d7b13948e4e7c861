"""The rate of all rows as of any instant: sums after each distinct instant of the log, counted a slice at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from kgrec.columns import CLICK, CONVERSION, PART, TIME
from kgrec.features.aggregations import Of
from kgrec.features.feature_log import SIGHTINGS
from kgrec.features.spans import Array, happened_of, labelled_of

_ALL = len(SIGHTINGS)  # the number of one who may see everything


@dataclass(frozen=True)
class GlobalRates:
    """Of one source, per kind: how many rows had happened and were labelled before each instant, by who may see them.

    instants: distinct and ascending, microseconds. sums: a number longer, the first is 0. Costs 8 bytes an instant and
    16 more for each kind.
    """

    instants: Array
    sums: Mapping[tuple[int, Of, str], Array]
    totals: Mapping[Of, tuple[int, int]]

    @classmethod
    def of(cls, frames: Iterable[pl.DataFrame], kinds: Sequence[Of]) -> GlobalRates:
        """Count frames of rows with `time` (null: not counted), `part` and labels; no instant is in two of them."""
        kinds = sorted(set(kinds))
        if not kinds:
            return cls(np.zeros(0, np.int64), {}, {})
        marks = {(kind, word): mark(kind) for kind in kinds for word, mark in (("h", happened_of), ("l", labelled_of))}
        asked: dict[tuple[int, Of, str], pl.Expr] = {
            (n, *name): (pl.col(PART).is_in(one.sources) & mark).sum().alias(f"{n} {name[0]} {name[1]}")
            for n, one in enumerate(SIGHTINGS)
            for name, mark in marks.items()
        }
        asked |= {
            (_ALL, *name): (pl.col(TIME).is_not_null() & mark).sum().alias(f"{_ALL} {name[0]} {name[1]}")
            for name, mark in marks.items()
        }
        counted = []
        for frame in frames:
            dated = frame.drop_nulls(TIME).select(pl.col(TIME).to_physical(), PART, *_labels(frame))
            counted.append(dated.group_by(TIME).agg(asked.values()).sort(TIME))
        table = pl.concat(counted).sort(TIME)
        sums_of = {name: _summed(table[expression.meta.output_name()]) for name, expression in asked.items()}
        totals = {kind: (int(sums_of[_ALL, kind, "h"][-1]), int(sums_of[_ALL, kind, "l"][-1])) for kind in kinds}
        return cls(table[TIME].to_numpy(), sums_of, totals)

    def as_of(self, sighting: int, at: Array) -> dict[Of, Array]:
        """Return per kind the rate of what may be seen strictly before each instant: (positives + 1) / (rows + 2)."""
        place = np.searchsorted(self.instants, at)
        return {
            kind: (self.sums[sighting, kind, "h"][place] + 1.0) / (self.sums[sighting, kind, "l"][place] + 2.0)
            for kind in self.totals
        }

    def at_end(self, count: int = 1) -> dict[Of, Array]:
        """Return per kind the rate of all rows, so many times."""
        return {kind: np.full(count, (hits + 1) / (rows + 2)) for kind, (hits, rows) in self.totals.items()}


def _labels(frame: pl.DataFrame) -> list[str]:
    return [name for name in (CLICK, CONVERSION) if name in frame.columns]


def _summed(counts: pl.Series) -> Array:
    sums = np.concatenate([[0], np.cumsum(counts.to_numpy().astype(np.int64))])
    return sums.astype(np.uint32) if sums[-1] < 2**32 else sums
