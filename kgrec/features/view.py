"""What a feature is, declared and validated: a view names its key, its aggregations and how far back it looks.

Only declarations live here; `kgrec.features.point_in_time` computes them. A view may be keyed by `user_row`,
`item_row`, a context column (by its name), a side feature (`item:author_id`, `user:country`), or several of these. The
keys `item:*`, `user:*` and `context:*` stand for each categorical column of that kind: one view per column. The key
`graph:RELATION` (or `graph:*`, any relation) stands for all entities that the row's item is tied to: a view over it
says how items that share an entity with this one are received.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from kgrec.columns import CLICK, CONVERSION, ITEM_ROW, TIME, USER_ROW
from kgrec.errors import InputError, Problem
from kgrec.features.aggregations import (
    ALL_TIME_ONLY,
    Aggregation,
    Count,
    DecayedCount,
    DistinctCount,
    LastValues,
    Of,
    Rate,
    Recency,
)

__all__ = [
    "EVENTS", "LABELLED", "SOURCES", "Aggregation", "Count", "DecayedCount", "DistinctCount", "FeatureView",
    "LastValues", "Of", "Rate", "Recency", "Source", "check_views", "expand_views",
]  # fmt: skip

EACH_ITEM_FEATURE = "item:*"
EACH_USER_FEATURE = "user:*"
EACH_CONTEXT = "context:*"
WILDCARDS = (EACH_ITEM_FEATURE, EACH_USER_FEATURE, EACH_CONTEXT)
GRAPH = "graph:"


@dataclass(frozen=True)
class Source:
    """A table of rows that views aggregate. time: the column that says when a row could be known.

    columns: those it always or often has; context and side features come on top.
    """

    name: str
    columns: tuple[str, ...]
    time: str | None
    description: str


_COLUMNS = (USER_ROW, ITEM_ROW, CLICK, CONVERSION)
LABELLED = Source("labelled", _COLUMNS, TIME, "What was shown (or, without impressions, clicked) and what came of it")
EVENTS = Source("events", _COLUMNS, TIME, "What people did: every click and conversion, shown by the service or not")
SOURCES = {source.name: source for source in (LABELLED, EVENTS)}


@dataclass(frozen=True)
class FeatureView:
    """A named group of features with one key and one window, and who answers for it.

    lookback: only rows in [time - lookback, time) count; None means all time before. ttl: a key whose last row is older
    than this reads as if it was never seen; None means never. Raises InputError, all problems together, when the
    declaration makes no sense.

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
    ttl: timedelta | None = None
    source: Source = LABELLED

    def __post_init__(self) -> None:
        problems = [Problem(f"feature view {self.name!r}", what, remedy) for what, remedy in self._faults()]
        if problems:
            raise InputError(problems)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of this view's columns, `view__feature`."""
        return tuple(f"{self.name}__{feature.name}" for feature in self.features)

    @property
    def graph_key(self) -> str | None:
        """The key `graph:...` of a view over the graph, else None."""
        return next((key for key in self.keys if key.startswith(GRAPH)), None)

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
            (_not_positive(self.lookback), f"the window {self.lookback} is not positive",
             "give a positive lookback, or None for all time"),
            (_not_positive(self.ttl), f"the time to live {self.ttl} is not positive",
             "give a positive ttl, or None for no end"),
            (self.source.time is None, f"its source {self.source.name!r} has no time",
             "name the source's time column: without it nobody knows what was known when"),
            (any(rate.of is Of.ROWS for rate in rates), "a rate of rows is always 1", "give the rate of a label"),
            (any(rate.strength < 0 for rate in rates), "a negative strength", "give a strength of 0 rows or more"),
            (any(isinstance(f, LastValues) and f.n < 1 for f in self.features), "a sequence of no values",
             "give n of 1 or more"),
            (any(isinstance(f, DecayedCount) and _not_positive(f.half_life) for f in self.features),
             "a half-life that is not positive", "give a positive half_life"),
            (self.lookback is not None and any(isinstance(f, ALL_TIME_ONLY) for f in self.features),
             "a distinct or decayed count over a window", "set lookback = None, or leave that count out"),
            (self.graph_key is not None and len(self.keys) > 1, "a graph key beside another key",
             "key a view over the graph by graph:RELATION alone"),
            (self.graph_key is not None and any(isinstance(f, DistinctCount | LastValues) for f in self.features),
             "values gathered over the graph", "give counts, rates or recency over a graph key"),
        ]  # fmt: skip
        return [(what, remedy) for wrong, what, remedy in faults if wrong]


def _not_positive(length: timedelta | None) -> bool:
    return length is not None and length <= timedelta(0)


def _is_key(key: str) -> bool:
    prefix, colon, column = key.partition(":")
    return bool(key) and (
        not colon or (prefix in ("user", "item", "graph") and bool(column)) or key in WILDCARDS
    )  # fmt: skip


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
            missing = [key for key in option.keys if key not in known and not key.startswith(GRAPH)]
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
