"""What an encoder has to know of a column of train rows, added up a frame at a time: no column is ever held whole."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

FEW_INTEGERS: Final = 50
"""Whole numbers with no more distinct values than these are categories."""
_TEXT: Final = (pl.String, pl.Boolean, pl.Categorical, pl.Enum)
_VALUE, _COUNT = "value", "count"


@dataclass
class Moments:
    """How many values there were, their mean, the sum of squares about it, the smallest and the largest."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = np.inf
    high: float = -np.inf

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """Add values (Chan, Golub and LeVeque 1979): each frame's own mean is exact before they are joined."""
        if not len(values):
            return
        fresh = float(values.mean())
        about = float(np.square(values - fresh).sum())
        total, away = self.count + len(values), fresh - self.mean
        share = len(values) / total
        self.squares += about + away**2 * self.count * share
        self.mean += away * share
        self.count = total
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    @property
    def std(self) -> float:
        """The standard deviation of all of them, not of a sample."""
        return float(np.sqrt(self.squares / self.count))


class Frequencies:
    """How often each value was there; of sequences, each of their members. Given up beyond `most` distinct values."""

    def __init__(self, most: int | None = None) -> None:
        self._most, self._counted, self._fresh, self._given_up = most, list[pl.DataFrame](), 0, False

    def add(self, values: pl.Series) -> None:
        """Count values; null is none."""
        if self._given_up:
            return
        counted = values.alias(_VALUE).drop_nulls().value_counts(name=_COUNT).cast({_COUNT: pl.Int64})
        self._counted.append(counted)
        self._fresh += counted.height
        if self._fresh >= self._counted[0].height:  # so that many values are not gone through for every frame
            self._together()
            self._given_up = self.too_many()

    def too_many(self) -> bool:
        """Say whether there are more distinct values than were asked for."""
        return self._given_up or (self._most is not None and self._together().height > self._most)

    def values(self) -> pl.Series:
        """Return the distinct values as text, the most frequent first; ties by name."""
        counted = self._together().cast({_VALUE: pl.String})
        return counted.sort([_COUNT, _VALUE], descending=[True, False])[_VALUE]

    def _together(self) -> pl.DataFrame:
        if self._fresh:
            self._counted = [pl.concat(self._counted).group_by(_VALUE).agg(pl.col(_COUNT).sum())]
            self._fresh = 0
        return self._counted[0]


class ColumnStatistics:
    """The statistics of one column: `frequencies` where it may be one of categories or sequences, moments of numbers.

    counts: the column is read through log1p whatever its type. What is chosen of a column of whole numbers (categories
    when they are few or the column is context, log1p when none is negative) is known when all rows were added.
    """

    def __init__(self, name: str, dtype: pl.DataType, context: Collection[str], counts: Collection[str]) -> None:
        self.name, self.rows, self.is_sequence = name, 0, dtype == pl.List(pl.String)
        self._whole, self._declared, self._counting = dtype.is_integer(), name in context, name in counts
        self._smallest: int | None = None
        self._named = dtype in _TEXT or self.is_sequence or self._whole
        most = FEW_INTEGERS if self._whole and not self._declared else None
        self.frequencies = Frequencies(most)
        numbered = dtype.is_numeric() and not (self._whole and self._declared)
        self._forms = {form: Moments() for form in (False, True) if numbered and self._may_be(form)}

    def _may_be(self, log: bool) -> bool:
        return log == self._counting or (log and self._whole)

    def add(self, values: pl.Series) -> None:
        """Add the values of more rows."""
        self.rows += len(values)
        if self._whole and (smallest := values.min()) is not None:
            before = self._smallest
            self._smallest = int(smallest) if before is None else min(before, int(smallest))  # type: ignore[arg-type]
        if self._named:
            self.frequencies.add(values.explode() if self.is_sequence else values)
        for log, moments in self._forms.items():
            moments.add(transformed(values, log).drop_nulls().to_numpy())

    @property
    def is_category(self) -> bool:
        """Say whether the column's values are categories."""
        return self._named and not self.is_sequence and not self.frequencies.too_many()

    @property
    def log(self) -> bool:
        """Say whether a number is read through log1p."""
        return self._counting or (self._whole and self._smallest is not None and self._smallest >= 0)

    @property
    def moments(self) -> Moments:
        """The moments of the numbers as they are read; none of a column that has no numbers."""
        return self._forms.get(self.log, Moments())


def transformed(column: pl.Series, log: bool) -> pl.Series:
    """Return numbers as float64, log1p of them where asked (below 0 counts as 0); NaN and infinite become null."""
    values = column.cast(pl.Float64)
    values = values.set(~values.is_finite(), None)
    return values.clip(lower_bound=0).log1p() if log else values
