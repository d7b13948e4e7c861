"""What a view knows of each key as of an instant, in a form that later rows can be added to.

A day's features need the days before it only through this: counts, last times, decayed sums and lists of each key,
which values it had (for distinct counts), and for a view with a window the last rows themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from kgrec.columns import TIME
from kgrec.features.aggregations import DistinctCount
from kgrec.features.spans import Array, Sight
from kgrec.features.view import FeatureView
from kgrec.features.windows import Before, key_codes, raw_as_of

_VALUE: Final = "__value"
_OLD: Final = "__old"


@dataclass(frozen=True)
class ViewState:
    """A view's raw values per key (`raw`: keys and the columns of `raw_as_of`) as of `at`, microseconds.

    values: per distinct count the pairs of key and value there were. tail: the rows that a window still reaches, of a
    view with one; such a view carries no raw values. None: nothing came before.
    """

    at: int
    raw: pl.DataFrame | None = None
    values: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    tail: pl.DataFrame | None = None

    def save(self, folder: Path, name: str) -> None:
        """Write the tables there are into the folder, each named after the view."""
        if self.raw is not None:
            self.raw.write_parquet(folder / f"{name}.raw.parquet")
        for column, pairs in self.values.items():
            pairs.write_parquet(folder / f"{name}.values.{column}.parquet")
        if self.tail is not None:
            self.tail.write_parquet(folder / f"{name}.tail.parquet")

    @classmethod
    def load(cls, folder: Path, view: FeatureView, at: int) -> ViewState:
        """Read what `save` wrote for a view."""

        def read(part: str) -> pl.DataFrame | None:
            path = folder / f"{view.name}.{part}.parquet"
            return pl.read_parquet(path) if path.exists() else None

        values = {feature.name: read(f"values.{feature.name}") for feature in _distinct(view)}
        return cls(at, read("raw"), {name: pairs for name, pairs in values.items() if pairs is not None}, read("tail"))


def with_tail(view: FeatureView, state: ViewState, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that the view's windows may reach: those of the day, after the tail of the days before."""
    return rows if view.lookback is None or state.tail is None else pl.concat([state.tail, rows], how="vertical")


def before(view: FeatureView, state: ViewState, targets: pl.DataFrame, sources: pl.DataFrame) -> Before | None:
    """Return what the state says of the targets' keys, and which values of the sources their keys had already.

    None for a view with a window, whose rows are all at hand, and where nothing came before.
    """
    if view.lookback is not None or state.raw is None:
        return None
    keys = list(view.keys)
    raw = targets.select(keys).join(state.raw, on=keys, how="left", maintain_order="left").drop(keys)
    old = {}
    for feature in _distinct(view):
        pairs = state.values[feature.name].with_columns(pl.lit(True).alias(_OLD))
        asked = sources.select(*keys, pl.col(feature.column).cast(pl.String).alias(_VALUE))
        found = asked.join(pairs, on=[*keys, _VALUE], how="left", maintain_order="left")
        old[feature.name] = found[_OLD].fill_null(False).to_numpy()
    return Before(raw, state.at, old)


def carry_on(view: FeatureView, state: ViewState, rows: pl.DataFrame, until: int) -> ViewState:
    """Return the state as of `until`, microseconds, after a day's rows (sorted by time, none without one)."""
    if view.lookback is not None:
        reach = until - view.lookback.total_seconds() * 1e6
        tail = with_tail(view, state, rows)
        return ViewState(until, tail=tail.filter(pl.col(TIME).to_physical() >= reach))
    keys = list(view.keys)
    known = [rows.select(keys).drop_nulls()] + ([state.raw.select(keys)] if state.raw is not None else [])
    every = pl.concat(known).unique().sort(keys)
    raw = _raw_at(view, state, rows, every, until)
    values = {}
    for feature in _distinct(view):
        happened = Sight(rows, np.zeros(0, np.int64)).happened(feature.of)
        pairs = rows.filter(pl.Series(happened, dtype=pl.Boolean)).select(
            *keys, pl.col(feature.column).cast(pl.String).alias(_VALUE)
        )
        parts = [pairs.drop_nulls(), *([state.values[feature.name]] if state.raw is not None else [])]
        values[feature.name] = pl.concat(parts).unique().sort(*keys, _VALUE)
    return ViewState(until, pl.concat([every, raw], how="horizontal"), values)


def _raw_at(view: FeatureView, state: ViewState, rows: pl.DataFrame, targets: pl.DataFrame, until: int) -> pl.DataFrame:
    source, target = codes_of(view, rows, targets)
    sight = Sight(rows, np.full(targets.height, until, np.int64))
    return raw_as_of(view, sight, source, target, before(view, state, targets, rows))


def codes_of(view: FeatureView, sources: pl.DataFrame, targets: pl.DataFrame) -> tuple[Array, Array]:
    """Return the codes of the view's keys of sources and targets, equal for equal keys."""
    keys = list(view.keys)
    both = pl.concat([sources.select(keys), targets.select(keys)])
    codes = key_codes(both, [view.keys])[view.keys]
    return codes[: sources.height], codes[sources.height :]


def _distinct(view: FeatureView) -> list[DistinctCount]:
    return [feature for feature in view.features if isinstance(feature, DistinctCount)]
