"""What a feature is, declared and validated: a view names its key, its aggregations and how far back it looks.

Only declarations live here; `kgrec.features.point_in_time` computes them. A view may be keyed by `user_row`,
`item_row`, a context column (by its name), a side feature (`item:author_id`, `user:country`), or several of these. The
keys `item:*`, `user:*` and `context:*` stand for each categorical column of that kind: one view per column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

from kgrec.columns import ITEM_ROW, USER_ROW
from kgrec.errors import InputError, Problem

EACH_ITEM_FEATURE = "item:*"
EACH_USER_FEATURE = "user:*"
EACH_CONTEXT = "context:*"
WILDCARDS = (EACH_ITEM_FEATURE, EACH_USER_FEATURE, EACH_CONTEXT)


class Of(StrEnum):
    """What is counted. A row with no label (null) is counted under ROWS alone."""

    ROWS = "rows"
    CLICK = "click"
    CONVERSION = "conversion"
    CONVERSION_GIVEN_CLICK = "conversion given click"


@dataclass(frozen=True)
class Count:
    """How many rows of this kind; a conversion given click is a clicked row that converted."""

    of: Of = Of.ROWS

    @property
    def name(self) -> str:
        """The feature's column name within its view."""
        return f"{self.of.replace(' ', '_')}_count"


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
        return f"{self.of.replace(' ', '_')}_rate"


@dataclass(frozen=True)
class Recency:
    """log1p of the seconds since the last such row within the window; null when there is none."""

    of: Of = Of.ROWS

    @property
    def name(self) -> str:
        """The feature's column name within its view."""
        return f"{self.of.replace(' ', '_')}_recency"


@dataclass(frozen=True)
class DistinctCount:
    """How many distinct values of `column` the rows of this kind have. All time only: windows do not subtract."""

    column: str
    of: Of = Of.ROWS

    @property
    def name(self) -> str:
        """The feature's column name within its view."""
        return f"{self.of.replace(' ', '_')}_distinct_{self.column.replace(':', '_')}"


Aggregation = Count | Rate | Recency | DistinctCount


@dataclass(frozen=True)
class FeatureView:
    """A named group of features with one key and one window, and who answers for it.

    lookback: only rows in [time - lookback, time) count; None means all time before. Raises InputError, all problems
    together, when the declaration makes no sense.

    >>> view = FeatureView("item", ("item_row",), (Rate(Of.CLICK),), None, "Is the item liked?", "recommendation")
    >>> view.columns
    ('item__click_rate',)
    """

    name: str
    keys: tuple[str, ...]
    features: tuple[Aggregation, ...]
    lookback: timedelta | None
    description: str
    owner: str

    def __post_init__(self) -> None:
        problems = [Problem(f"feature view {self.name!r}", what, remedy) for what, remedy in self._faults()]
        if problems:
            raise InputError(problems)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of this view's columns, `view__feature`."""
        return tuple(f"{self.name}__{feature.name}" for feature in self.features)

    def _faults(self) -> list[tuple[str, str]]:
        names = [feature.name for feature in self.features]
        rates = [feature for feature in self.features if isinstance(feature, Rate)]
        faults = [
            (not self.name.isidentifier(), "the name is no plain word", "use letters, digits and _ only"),
            (not self.keys, "it has no key", "key it by user_row, item_row, a context column or a side feature"),
            (len(set(self.keys)) < len(self.keys), f"a key stands twice: {self.keys}", "name each key once"),
            (not all(map(_is_key, self.keys)), f"unknown kind of key in {self.keys}", "see kgrec.features.view"),
            (sum(key in WILDCARDS for key in self.keys) > 1, "more than one * key", "use one * key in a view"),
            (not self.features, "it has no features", "give at least one aggregation"),
            (len(set(names)) < len(names), f"a feature stands twice: {names}", "declare each feature once"),
            (
                self.lookback is not None and self.lookback <= timedelta(0),
                f"the window {self.lookback} is not positive",
                "give a positive lookback, or None for all time",
            ),
            (any(rate.of is Of.ROWS for rate in rates), "a rate of rows is always 1", "give the rate of a label"),
            (any(rate.strength < 0 for rate in rates), "a negative strength", "give a strength of 0 rows or more"),
            (
                self.lookback is not None and any(isinstance(f, DistinctCount) for f in self.features),
                "a distinct count over a window",
                "set lookback = None, or leave the distinct count out",
            ),
        ]
        return [(what, remedy) for wrong, what, remedy in faults if wrong]


def _is_key(key: str) -> bool:
    prefix, colon, column = key.partition(":")
    return bool(key) and (not colon or (prefix in ("user", "item") and bool(column)) or key in WILDCARDS)


def check_views(views: Sequence[FeatureView]) -> None:
    """Raise InputError when two views share a name or write the same column."""
    names = [view.name for view in views]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        remedy = "rename all but one of them"
        raise InputError([Problem(f"feature view {name!r}", "declared twice", remedy) for name in twice])


def expand_views(
    views: Sequence[FeatureView], columns: Sequence[str], context: Sequence[str], categorical: Sequence[str]
) -> tuple[list[FeatureView], dict[str, str]]:
    """Return the views that the data allows, * keys expanded to columns, and why each other one is left out.

    columns: all column names there are. context: the context columns. categorical: those columns that can be keys.
    """
    check_views(views)
    found, left_out = [], {}
    known = {*columns, USER_ROW, ITEM_ROW}
    for view in views:
        star = next((key for key in view.keys if key in WILDCARDS), None)
        if star is None:
            options = [view]
        else:
            choices = _matches(star, context, categorical)
            options = [_with_key(view, star, column) for column in choices if column not in view.keys]
            if not options:
                left_out[view.name] = f"the data has no categorical column for the key {star}"
        for option in options:
            missing = [key for key in option.keys if key not in known]
            if missing:
                left_out[option.name] = f"the data has no column {', '.join(missing)}"
            else:
                found.append(option)
    check_views(found)
    return found, left_out


def _matches(star: str, context: Sequence[str], categorical: Sequence[str]) -> list[str]:
    if star == EACH_CONTEXT:
        return [column for column in categorical if column in context]
    return [column for column in categorical if column.startswith(star.removesuffix("*"))]


def _with_key(view: FeatureView, star: str, column: str) -> FeatureView:
    keys = tuple(column if key == star else key for key in view.keys)
    word = "".join(letter if letter.isalnum() else "_" for letter in column.partition(":")[2] or column)
    return replace(view, name=f"{view.name}_{word}", keys=keys)
