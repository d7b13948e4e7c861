"""Features of labelled rows as they were known before each row, and as they are now for serving.

Who sees what. A row of train sees the train rows strictly before it. A row of validation sees all of train, a row of
test all of train and validation, never a row of its own part: features are frozen at the last retraining, exactly as a
served model reads them. Reading labels within the test part would score a system that retrains after every click.
So the instant as of which a validation or test row is described is its own time or the end of what it may see (just
after the last such row), whichever comes first; windows and recency count back from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import polars as pl

from kgrec.columns import ITEM_ROW, PART, TEST, TIME, TIME_TYPE, TRAIN, USER_ROW, VALIDATION
from kgrec.features.latest import LatestFeatures, LatestView, request_columns
from kgrec.features.view import Count, DistinctCount, FeatureView, Of, Rate, check_views, expand_views
from kgrec.features.windows import Array, Sight, key_codes, needed_columns, unseen_values, values_as_of

_SIGHTS = (((TRAIN,), (TRAIN, VALIDATION)), ((TRAIN, VALIDATION), (TEST,)))
_TARGET = "__target"
KeyCodes = Mapping[tuple[str, ...], Array]
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True)
class FeatureTables:
    """What `build_features` returns.

    rows: one row per labelled row, in its order: context, side features (`user:...`, `item:...`), `hour` (UTC), and the
    aggregates (Float32). latest: the values per key as of the end, for serving. aggregates: their column names.
    counts: those of them that count (the encoder takes their log). left_out: view or feature to why it is not there.
    """

    rows: pl.DataFrame
    latest: LatestFeatures
    aggregates: tuple[str, ...]
    counts: tuple[str, ...]
    left_out: Mapping[str, str]


def build_features(
    views: Sequence[FeatureView],
    labelled: pl.DataFrame,
    side_users: pl.DataFrame | None = None,
    side_items: pl.DataFrame | None = None,
    *,
    context: Sequence[str] = (),
) -> FeatureTables:
    """Return the features of each labelled row, known strictly before it, and their latest values per key.

    labelled: `user_row`, `item_row`, `part`, and where the data has them `time`, `click`, `conversion` and the context
    columns. side_users: `user_row` and features; side_items: `item_row` and features. A view whose key or label is not
    in the data is left out and named in `left_out`; without any time there are no aggregates at all. Raises InputError
    when two views share a name.
    """
    check_views(views)
    rows = request_columns(labelled, side_users, side_items, context)
    frame = pl.concat([labelled.select(pl.exclude(rows.columns)), rows], how="horizontal")
    if TIME not in frame.columns or frame[TIME].null_count() == frame.height:
        left_out = dict.fromkeys((view.name for view in views), "the log has no time")
        return FeatureTables(rows, LatestFeatures(()), (), (), left_out)
    columns = [name for name in frame.columns if name not in (PART, TIME)]
    choices = categorical_keys(frame, side_users, side_items, context)
    chosen, left_out = expand_views(views, columns, context, choices)
    chosen, unlabelled = _drop_impossible(chosen, columns)
    needed = {TIME, PART, *(key for view in chosen for key in view.keys)}.union(
        *(needed_columns(feature) for view in chosen for feature in view.features)
    )
    frame = frame.select(sorted(needed))
    codes = key_codes(frame, [view.keys for view in chosen])
    sights = [_through_sight(chosen, frame, codes, sources, targets) for sources, targets in _SIGHTS]
    aggregates = pl.concat(sights).sort(_TARGET).drop(_TARGET)
    return FeatureTables(
        rows=pl.concat([rows, aggregates], how="horizontal"),
        latest=_latest(chosen, frame, codes),
        aggregates=tuple(aggregates.columns),
        counts=tuple(
            name
            for view in chosen
            for name, feature in zip(view.columns, view.features, strict=True)
            if isinstance(feature, Count | DistinctCount)
        ),
        left_out={**left_out, **unlabelled},
    )


def categorical_keys(
    frame: pl.DataFrame, side_users: pl.DataFrame | None, side_items: pl.DataFrame | None, context: Sequence[str]
) -> list[str]:
    """Return the columns that `*` keys stand for: text, whole-number or boolean, two values or more, and repeated.

    A side feature counts when two users (items) share a value; a context column when values repeat twice on average.
    """
    found = []
    for prefix, table, row in (("user:", side_users, USER_ROW), ("item:", side_items, ITEM_ROW)):
        for column in table.drop(row) if table is not None else ():
            if _is_discrete(column.dtype) and 2 <= column.drop_nulls().n_unique() < column.count():
                found.append(f"{prefix}{column.name}")
    for name in context:
        if _is_discrete(frame[name].dtype) and 2 <= frame[name].drop_nulls().n_unique() <= frame[name].count() / 2:
            found.append(name)
    return found


def _is_discrete(dtype: pl.DataType) -> bool:
    return dtype.is_integer() or dtype in (pl.String, pl.Boolean, pl.Categorical, pl.Enum)


def _drop_impossible(views: Sequence[FeatureView], columns: Sequence[str]) -> tuple[list[FeatureView], dict[str, str]]:
    """Leave out the features whose labels or columns the data does not have, and views with none left."""
    kept, left_out = [], {}
    for view in views:
        for name, feature in zip(view.columns, view.features, strict=True):
            missing = sorted(needed_columns(feature) - set(columns))
            if missing:
                left_out[name] = f"the data has no column {', '.join(missing)}"
        features = tuple(feature for feature in view.features if needed_columns(feature) <= set(columns))
        if features:
            kept.append(replace(view, features=features))
    return kept, left_out


def _through_sight(
    views: Sequence[FeatureView], frame: pl.DataFrame, codes: KeyCodes, sources: Sequence[str], targets: Sequence[str]
) -> pl.DataFrame:
    """Return `__target` and every view's columns for the rows of the parts `targets`, which see the parts `sources`."""
    numbered = frame.with_row_index(_TARGET)
    visible = numbered.filter(pl.col(PART).is_in(sources)).drop_nulls(TIME).sort(TIME, maintain_order=True)
    asked = numbered.select(_TARGET, TIME, PART).filter(pl.col(PART).is_in(targets))
    end = visible[TIME].max()
    frozen = pl.min_horizontal(TIME, pl.lit(end, dtype=TIME_TYPE) + _TICK)
    at = pl.when(pl.col(PART) == TRAIN).then(TIME).otherwise(frozen)
    at = pl.when(pl.col(TIME).is_null()).then(pl.lit(frame[TIME].min(), dtype=TIME_TYPE)).otherwise(at)
    # an undated row is described as of before everything
    asked = asked.select(_TARGET, at.cast(TIME_TYPE).alias(TIME))
    sight = Sight(visible, asked[TIME].to_physical().to_numpy())
    source_rows, target_rows = visible[_TARGET].to_numpy(), asked[_TARGET].to_numpy()
    priors = sight.global_rates(_rate_kinds(views))
    found = [
        values_as_of(view, sight, codes[view.keys][source_rows], codes[view.keys][target_rows], priors)
        for view in views
    ]
    return pl.concat([asked.select(_TARGET), *found], how="horizontal")


def _rate_kinds(views: Sequence[FeatureView]) -> list[Of]:
    return [feature.of for view in views for feature in view.features if isinstance(feature, Rate)]


def _latest(views: Sequence[FeatureView], frame: pl.DataFrame, codes: KeyCodes) -> LatestFeatures:
    """Return every view's value per key as of just after the last row of all."""
    sources = frame.with_row_index(_TARGET).drop_nulls(TIME).sort(TIME, maintain_order=True)
    rows = sources[_TARGET].to_numpy()
    end = np.asarray(sources[TIME].to_physical().to_numpy()[-1:] + 1)
    priors = Sight(sources, end).global_rates(_rate_kinds(views))
    found = []
    for view in views:
        source_key = codes[view.keys][rows]
        target_key, example = np.unique(source_key, return_index=True)
        example, target_key = example[target_key >= 0], target_key[target_key >= 0]
        sight = Sight(sources, np.repeat(end, len(target_key)))
        values = values_as_of(view, sight, source_key, target_key, priors)
        table = pl.concat([sources[example].select(view.keys), values], how="horizontal").sort(view.keys)
        found.append(LatestView(view.name, view.keys, table, unseen_values(view, priors)))
    return LatestFeatures(tuple(found))
