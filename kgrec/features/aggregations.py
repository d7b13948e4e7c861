"""The aggregations that a feature view may declare: what is counted, and what is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeAlias

from kgrec.columns import CLICK, CONVERSION


class Of(StrEnum):
    """What is counted. A row with no label (null) is counted under ROWS alone."""

    ROWS = "rows"
    CLICK = "click"
    CONVERSION = "conversion"
    CONVERSION_GIVEN_CLICK = "conversion given click"


_LABELS: Final[dict[Of, frozenset[str]]] = {
    Of.ROWS: frozenset(),
    Of.CLICK: frozenset({CLICK}),
    Of.CONVERSION: frozenset({CONVERSION}),
    Of.CONVERSION_GIVEN_CLICK: frozenset({CLICK, CONVERSION}),
}


def _word(of: Of) -> str:
    return of.replace(" ", "_")


@dataclass(frozen=True)
class Count:
    """How many rows of this kind; a conversion given click is a clicked row that converted."""

    of: Of = Of.ROWS

    @property
    def name(self) -> str:
        """The feature's column name within its view."""
        return f"{_word(self.of)}_count"


@dataclass(frozen=True)
class DecayedCount:
    """The sum over rows of this kind of 2^(-age / half_life): 1 for a row just now, 1/2 for one a half-life old.

    All time only: what decays needs no window.
    """

    half_life: timedelta
    of: Of = Of.ROWS

    @property
    def name(self) -> str:
        """The feature's column name within its view, the half-life in seconds."""
        return f"{_word(self.of)}_decayed_{self.half_life.total_seconds():g}s"


@dataclass(frozen=True)
class Rate:
    """(positives + strength * prior) / (rows + strength), in (0, 1): the share smoothed towards the global rate.

    prior: the rate over all rows visible at that instant, itself (positives + 1) / (rows + 2). Only rows that have the
    label count; for a conversion given click, only clicked rows that have it.
    """

    of: Of
    strength: float = 20.0

    @property
    def name(self) -> str:
        """The feature's column name within its view."""
        return f"{_word(self.of)}_rate"


@dataclass(frozen=True)
class Recency:
    """log1p of the seconds since the last such row within the window; null when there is none."""

    of: Of = Of.ROWS

    @property
    def name(self) -> str:
        """The feature's column name within its view."""
        return f"{_word(self.of)}_recency"


@dataclass(frozen=True)
class DistinctCount:
    """How many distinct values of `column` the rows of this kind have. All time only: windows do not subtract."""

    column: str
    of: Of = Of.ROWS

    @property
    def name(self) -> str:
        """The feature's column name within its view."""
        return f"{_word(self.of)}_distinct_{self.column.replace(':', '_')}"


@dataclass(frozen=True)
class LastValues:
    """The values of `column`, as text, in the last `n` rows of this kind that have one, newest first; [] for none.

    Rows of one instant stand in the order of the log.
    """

    column: str
    n: int = 10
    of: Of = Of.ROWS

    @property
    def name(self) -> str:
        """The feature's column name within its view."""
        return f"{_word(self.of)}_last_{self.n}_{self.column.replace(':', '_')}"


Aggregation: TypeAlias = Count | DecayedCount | Rate | Recency | DistinctCount | LastValues

AGGREGATIONS: Final[Mapping[str, type[Aggregation]]] = MappingProxyType(
    {
        "count": Count,
        "decayed count": DecayedCount,
        "rate": Rate,
        "recency": Recency,
        "distinct count": DistinctCount,
        "last values": LastValues,
    }
)
"""Every kind of aggregation by its word: what the contract suite and the catalogue go through."""

COUNTING: Final = (Count, DecayedCount, DistinctCount)
"""Those that count: never negative, skewed, 0 for an unseen key."""

ALL_TIME_ONLY: Final = (DecayedCount, DistinctCount)
"""Those that no window may cut."""


def needed_columns(feature: Aggregation) -> set[str]:
    """Return the columns without which the aggregation cannot be computed."""
    return set(_LABELS[feature.of]) | ({feature.column} if isinstance(feature, DistinctCount | LastValues) else set())


def kind_of(feature: Aggregation) -> str:
    """Return the word of a feature's aggregation.

    >>> kind_of(Rate(Of.CLICK))
    'rate'
    """
    return next(word for word, member in AGGREGATIONS.items() if isinstance(feature, member))
