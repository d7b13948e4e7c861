"""One view's values as of given instants: raw sums first, then what a model reads of them.

The raw values of a key (counts, last times, decayed sums, lists) can be carried on: those as of an instant, handed in
as `before`, and the rows after it give the same as all rows at once. That is what makes a day an increment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import numpy as np
import polars as pl

from kgrec.features.aggregations import Aggregation, Count, DecayedCount, DistinctCount, LastValues, Of, Rate, Recency
from kgrec.features.spans import NEVER, Array, Sight, Span
from kgrec.features.view import FeatureView

_TICK: Final = timedelta(microseconds=1)
_LIST: Final = pl.List(pl.String)
_LARGEST: Final = 2**62
_SMALL: Final = (pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16, pl.UInt32)


@dataclass(frozen=True)
class Before:
    """What is known of each target's key from rows that are no longer at hand.

    raw: the columns of `raw_as_of`, one row per target (null: never seen), as of `at` (microseconds). old: per column
    that is counted by distinct values, which sources' values their keys had already then.
    """

    raw: pl.DataFrame
    at: int
    old: Mapping[str, Array]


def key_codes(frame: pl.DataFrame, key_sets: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], Array]:
    """Return for each set of keys one int64 per row: equal for equal keys, -1 where a key is null.

    A code times the number of rows fits int64.

    >>> codes = key_codes(pl.DataFrame({"a": ["x", "y", "x"], "b": [1, 1, None]}), [("a", "b"), ("b",)])
    >>> codes["a", "b"].tolist(), codes["b",].tolist()
    ([2, 4, -1], [0, 0, -1])
    """
    key_sets = list(dict.fromkeys(key_sets))
    columns = {key: _numbered(frame[key]) for keys in key_sets for key in keys}
    return {keys: _combine([columns[key] for key in keys]) for keys in key_sets}


def _numbered(values: pl.Series) -> Array:
    """Return a number from 1 on for each value, 0 for null: rows and other small whole numbers are their own."""
    if values.dtype in _SMALL and int(values.min() or 0) >= 0:  # type: ignore[arg-type]
        return values.cast(pl.Int64).fill_null(-1).to_numpy() + 1
    return values.rank("dense").cast(pl.Int64).fill_null(0).to_numpy()


def _combine(numbers: Sequence[Array]) -> Array:
    """Number combinations of values (0 = null) from 0 on; -1 where one of them is null."""
    code, known = numbers[0], numbers[0] > 0
    for next_number in numbers[1:]:
        known &= next_number > 0
        fits = _most(code) * _most(next_number) < _LARGEST
        more = next_number if fits else _dense(next_number)
        code = (code if fits else _dense(code)) * _most(more) + more
    code = code if _most(code) * (len(code) + 2) < _LARGEST else _dense(code)
    return np.where(known, code - 1, -1)


def _most(code: Array) -> int:
    return int(code.max(initial=0)) + 1


def _dense(code: Array) -> Array:
    """Return numbers from 1 on in the place of larger ones."""
    found: Array = np.unique(code, return_inverse=True)[1].astype(np.int64) + 1
    return found


def values_as_of(
    view: FeatureView, sight: Sight, source_key: Array, target_key: Array, priors: Mapping[Of, Array],
    before: Before | None = None,
) -> pl.DataFrame:  # fmt: skip
    """Return the view's columns, one row per instant of the sight, in order: Float32, and lists of text.

    source_key, target_key: codes from `key_codes` for sources and instants (-1: no key). priors: the global rates at
    these instants. Where nothing is seen, counts are 0, rates the prior, recency null and lists empty.
    """
    return finished(view, raw_as_of(view, sight, source_key, target_key, before), sight.at, priors)


def raw_as_of(
    view: FeatureView, sight: Sight, source_key: Array, target_key: Array, before: Before | None = None
) -> pl.DataFrame:
    """Return what the view's features are made of: exact counts, last times (null: never), decayed sums, lists."""
    span = Span.find(sight, source_key, target_key, view.lookback)
    columns: dict[str, pl.Series] = {}
    for name, feature in raw_columns(view).items():
        past = before.raw[name] if before is not None else None
        happened = sight.happened(feature.of)
        if name.startswith("labelled "):
            columns[name] = _added(span.count(sight.labelled(feature.of)), past)
        elif isinstance(feature, Count):
            columns[name] = _added(span.count(happened), past)
        elif isinstance(feature, Recency):
            columns[name] = _later(span.last_time(happened), past)
        elif isinstance(feature, DistinctCount):
            value = sight.sources[feature.column].rank("dense").cast(pl.Int64).fill_null(0).to_numpy()
            fresh = _is_new(source_key, value, happened)
            if before is not None:
                fresh &= ~before.old[name]
            columns[name] = _added(span.count(fresh), past)
        elif isinstance(feature, DecayedCount):
            half_life = feature.half_life / _TICK
            sums = span.decayed_sum(happened, half_life)
            if before is not None:
                sums = sums + before.raw[name].fill_null(0.0).to_numpy() * np.exp2((before.at - sight.at) / half_life)
            columns[name] = pl.Series(sums)
        elif isinstance(feature, LastValues):
            columns[name] = _newest(span, sight.sources[feature.column], happened, feature.n, past)
    return pl.DataFrame(columns)


def raw_columns(view: FeatureView) -> dict[str, Aggregation]:
    """Return the names of the raw values behind a view's features, each with the aggregation that makes it.

    A view with a time to live also needs the last time of any row.
    """
    found: dict[str, Aggregation] = {}
    for feature in view.features:
        if isinstance(feature, Rate):
            found[f"happened {feature.of}"] = Count(feature.of)
            found[f"labelled {feature.of}"] = Count(feature.of)
        elif isinstance(feature, Count):
            found[f"happened {feature.of}"] = feature
        elif isinstance(feature, Recency):
            found[f"last {feature.of}"] = feature
        else:
            found[feature.name] = feature
    return found | ({f"last {Of.ROWS}": Recency()} if view.ttl is not None else {})


def finished(view: FeatureView, raw: pl.DataFrame, at: Array, priors: Mapping[Of, Array]) -> pl.DataFrame:
    """Return the view's columns made of raw values as of the instants `at`: smoothed, logged, stale keys unseen."""
    if view.ttl is not None:
        last = raw[f"last {Of.ROWS}"].fill_null(NEVER).to_numpy()
        alive = pl.Series((last != NEVER) & (at - last <= view.ttl // _TICK))
        raw = raw.select(pl.when(alive).then(pl.col(name)).alias(name) for name in raw.columns)
    columns = {}
    for name, feature in zip(view.columns, view.features, strict=True):
        if isinstance(feature, Rate):
            hits, rows = (_counts(raw[f"{word} {feature.of}"]) for word in ("happened", "labelled"))
            columns[name] = pl.Series(_smooth(hits, rows, priors[feature.of], feature.strength), dtype=pl.Float32)
        elif isinstance(feature, Recency):
            last = raw[f"last {feature.of}"].fill_null(NEVER).to_numpy()
            seconds = np.where(last == NEVER, np.nan, (at - np.where(last == NEVER, 0, last)) / 1e6)
            columns[name] = pl.Series(np.log1p(seconds), nan_to_null=True).cast(pl.Float32)
        elif isinstance(feature, LastValues):
            columns[name] = raw[feature.name].fill_null(pl.Series([[]], dtype=_LIST))
        else:
            source = f"happened {feature.of}" if isinstance(feature, Count) else feature.name
            columns[name] = pl.Series(_counts(raw[source])).cast(pl.Float32)
    return pl.DataFrame(columns)


def unseen_values(view: FeatureView, priors: dict[Of, Array]) -> dict[str, Any]:
    """Return what the view says of a key that was never seen, given the global rates at that instant (one target)."""
    values: dict[str, Any] = {}
    for name, feature in zip(view.columns, view.features, strict=True):
        if isinstance(feature, Rate):
            values[name] = float(np.float32(priors[feature.of][0]))
        elif isinstance(feature, LastValues):
            values[name] = []
        else:
            values[name] = None if isinstance(feature, Recency) else 0.0
    return values


def rate_kinds(views: Iterable[FeatureView]) -> list[Of]:
    """Return the kinds whose global rate the views need."""
    return [feature.of for view in views for feature in view.features if isinstance(feature, Rate)]


def _added(counts: Array, past: pl.Series | None) -> pl.Series:
    return pl.Series(counts if past is None else counts + past.fill_null(0).to_numpy())


def _later(times: Array, past: pl.Series | None) -> pl.Series:
    known = times if past is None else np.maximum(times, past.fill_null(NEVER).to_numpy())
    return pl.Series(known).set(pl.Series(known == NEVER), None)


def _newest(span: Span, values: pl.Series, happened: Array, n: int, past: pl.Series | None) -> pl.Series:
    """Return each window's last n known values as lists of text, filled up from the lists of before."""
    text = values.cast(pl.String)
    rows_NK = span.last_rows(happened & text.is_not_null().to_numpy(), n)
    taken = pl.Series(rows_NK.ravel()).set(pl.Series(rows_NK.ravel() < 0), None)
    lists = text.gather(taken).reshape((len(rows_NK), n)).arr.to_list() if len(rows_NK) else pl.Series([], dtype=_LIST)
    lists = lists.list.drop_nulls()
    return lists if past is None else lists.list.concat(past.fill_null(pl.Series([[]], dtype=_LIST))).list.head(n)


def _counts(raw: pl.Series) -> Array:
    counts: Array = raw.fill_null(0).to_numpy().astype(np.float64)
    return counts


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
