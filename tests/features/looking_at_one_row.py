"""The slow and obvious oracle: look at one row alone, pick by hand what it may see, and count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from math import log1p
from statistics import fmean
from typing import Any

import polars as pl

from kgrec.columns import PART_TYPE, TIME_TYPE
from kgrec.features.aggregations import (
    Aggregation,
    Count,
    DecayedCount,
    DistinctCount,
    LastValues,
    Of,
    Rate,
    Recency,
)
from kgrec.features.view import FeatureView

START = datetime(2024, 1, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)
SEES = {"train": ("train",), "validation": ("train",), "test": ("train", "validation")}
SCHEMA = {
    "user_row": pl.Int32, "item_row": pl.Int32, "tab": pl.Int64, "time": TIME_TYPE, "click": pl.Boolean,
    "conversion": pl.Boolean, "part": PART_TYPE,
}  # fmt: skip
Row = dict[str, Any]


def as_frame(world: Sequence[Row]) -> pl.DataFrame:
    return pl.DataFrame([{key: row[key] for key in SCHEMA} for row in world], schema=SCHEMA, orient="row")


def happened(row: Row, of: Of) -> bool:
    if of is Of.ROWS:
        return True
    if of is Of.CONVERSION_GIVEN_CLICK:
        return row["click"] is True and row["conversion"] is True
    return row[of.value] is True


def labelled(row: Row, of: Of) -> bool:
    if of is Of.ROWS:
        return True
    if of is Of.CONVERSION_GIVEN_CLICK:
        return row["click"] is True and row["conversion"] is not None
    return row[of.value] is not None


def seen_by(world: Sequence[Row], sources: Sequence[Row], row: Row) -> tuple[datetime, list[Row]]:
    """Return as of when the row is described and which sources it may see. world: all rows of all sources."""
    if row["time"] is None:
        return START, []
    at = row["time"]
    if row["part"] != "train":
        ends = [other["time"] for other in world if other["part"] in SEES[row["part"]] and other["time"] is not None]
        at = min([at, *([max(ends) + TICK] if ends else [])])
    allowed = [other for other in sources if other["part"] in SEES[row["part"]] and other["time"] is not None]
    return at, [other for other in allowed if other["time"] < at]


def slowly(world: Sequence[Row], sources: Sequence[Row], row: Row, view: FeatureView) -> list[Any]:
    """Return the view's values for one row of plain keys."""
    at, before = seen_by(world, sources, row)
    if any(row[key] is None for key in view.keys):
        return gathered(view, [], before, at)
    return gathered(view, [o for o in before if all(o[key] == row[key] for key in view.keys)], before, at)


def slowly_over_graph(
    world: Sequence[Row], sources: Sequence[Row], row: Row, view: FeatureView, tied: dict[int, set[str]]
) -> list[Any]:
    """Return the view's values for one row, its item's entities one after the other. tied: item to entities."""
    at, before = seen_by(world, sources, row)
    found = [
        gathered(view, [other for other in before if entity in tied.get(other["item_row"], ())], before, at)
        for entity in sorted(tied.get(row["item_row"], ()))
    ]
    if not found:
        return gathered(view, [], before, at)
    known: Callable[[int], list[float]] = lambda n: [values[n] for values in found if values[n] is not None]  # noqa: E731
    return [
        min(known(n), default=None) if isinstance(feature, Recency) else fmean(known(n))
        for n, feature in enumerate(view.features)
    ]


def gathered(view: FeatureView, keyed: list[Row], before: list[Row], at: datetime) -> list[Any]:
    inside = [other for other in keyed if view.lookback is None or other["time"] >= at - view.lookback]
    last = max((other["time"] for other in inside), default=None)
    if view.ttl is not None and last is not None and at - last > view.ttl:
        inside = []
    return [one(feature, inside, before, at) for feature in view.features]


def one(feature: Aggregation, rows: list[Row], before: list[Row], at: datetime) -> Any:
    hits = [other for other in rows if happened(other, feature.of)]
    if isinstance(feature, Count):
        return len(hits)
    if isinstance(feature, DecayedCount):
        return sum(0.5 ** ((at - other["time"]) / feature.half_life) for other in hits)
    if isinstance(feature, DistinctCount):
        return len({other[feature.column] for other in hits} - {None})
    if isinstance(feature, Recency):
        last = max((other["time"] for other in hits), default=None)
        return None if last is None else log1p((at - last).total_seconds())
    if isinstance(feature, LastValues):
        known = [other for other in hits if other[feature.column] is not None]
        return [str(other[feature.column]) for other in sorted(known, key=lambda o: o["time"])[::-1][: feature.n]]
    assert isinstance(feature, Rate)
    every = [other for other in before if labelled(other, feature.of)]
    prior = (sum(happened(other, feature.of) for other in every) + 1) / (len(every) + 2)
    base = sum(labelled(other, feature.of) for other in rows)
    return (len(hits) + feature.strength * prior) / (base + feature.strength)
