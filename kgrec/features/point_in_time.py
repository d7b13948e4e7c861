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

from kgrec.columns import ITEM_ROW, PART, ROW_TYPE, TEST, TIME, TIME_TYPE, TRAIN, VALIDATION
from kgrec.features.aggregations import COUNTING, Of, needed_columns
from kgrec.features.declarations import Declaration, check_declarations, node_views, split_declarations
from kgrec.features.derived import compute_derived, in_order
from kgrec.features.keys import categorical_keys, in_utc
from kgrec.features.latest import LatestFeatures, LatestView, request_columns
from kgrec.features.nodes import node_values
from kgrec.features.over_graph import edges_of, values_over_graph
from kgrec.features.spans import Array, Sight
from kgrec.features.view import EVENTS, LABELLED, FeatureView, expand_views
from kgrec.features.windows import key_codes, rate_kinds, unseen_values, values_as_of

_SIGHTS = (((TRAIN,), (TRAIN, VALIDATION)), ((TRAIN, VALIDATION), (TEST,)))
_TARGET, _SOURCE = "__target", "__source"
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True)
class FeatureTables:
    """What `build_features` returns.

    rows: one row per labelled row, in its order: context, side features (`user:...`, `item:...`), `hour` (UTC), and the
    aggregates (Float32; sequences are lists of text). latest: the values per key as of the end, for serving.
    aggregates: their column names. counts: those of them that count (the encoder takes their log). left_out: view or
    feature to why it is not there. views: those that were computed, * keys expanded to columns.
    """

    rows: pl.DataFrame
    latest: LatestFeatures
    aggregates: tuple[str, ...]
    counts: tuple[str, ...]
    left_out: Mapping[str, str]
    views: tuple[FeatureView, ...] = ()


def build_features(
    views: Sequence[Declaration],
    labelled: pl.DataFrame,
    side_users: pl.DataFrame | None = None,
    side_items: pl.DataFrame | None = None,
    *,
    context: Sequence[str] = (),
    events: pl.DataFrame | None = None,
    entities: pl.DataFrame | None = None,
) -> FeatureTables:
    """Return the features of each labelled row, known strictly before it, and their latest values per key.

    views: feature views and derived features. labelled: `user_row`, `item_row`, `part`, and where the data has them
    `time`, `click`, `conversion` and the context columns. side_users: `user_row` and features; side_items: `item_row`
    and features. events: the rows of the source "events", with the same columns. entities: what each item is tied to
    (`over_graph.item_entities`). A view whose key, label or source is not in the data is left out and named in
    `left_out`; without any time only what the graph says of items is there. Raises InputError with every fault of the
    declarations.
    """
    check_declarations(views)
    declared, derived = split_declarations(views)
    labelled, events = in_utc(labelled), None if events is None else in_utc(events)
    rows = request_columns(labelled, side_users, side_items, context)
    frame = pl.concat([labelled.select(pl.exclude(rows.columns)), rows], how="horizontal")
    nodes = node_values(node_views(views), frame[ITEM_ROW], entities)
    if TIME not in frame.columns or frame[TIME].null_count() == frame.height:
        timeless = [one.name for one in declared] + [one.name for one in derived]
        left_out = dict.fromkeys(timeless, "the log has no time") | nodes.left_out
        rows = pl.concat([rows, nodes.rows], how="horizontal")
        return FeatureTables(rows, LatestFeatures(nodes.latest), tuple(nodes.rows.columns), nodes.counts, left_out)
    columns = [name for name in frame.columns if name not in (PART, TIME)]
    choices = categorical_keys(frame, side_users, side_items, context)
    chosen, left_out = expand_views(declared, columns, context, choices)
    chosen, impossible = _drop_impossible(chosen, columns, events, entities)
    frame = _with_events(frame, chosen, events, side_users, side_items)
    needed = {TIME, PART, _SOURCE, ITEM_ROW, *(key for view in chosen for key in view.keys)}.union(
        *(needed_columns(feature) for view in chosen for feature in view.features)
    )
    frame = frame.select(name for name in frame.columns if name in needed)
    world = _World(chosen, frame, key_codes(frame, [view.keys for view in chosen if not view.graph_key]), entities)
    aggregates = pl.concat(world.through_sight(*sight) for sight in _SIGHTS).sort(_TARGET).drop(_TARGET)
    aggregates = pl.concat([aggregates, nodes.rows], how="horizontal")
    made, lacking = in_order(derived, aggregates.columns)
    aggregates = compute_derived(aggregates, made)
    left_out |= (
        impossible
        | nodes.left_out
        | {one.name: f"its inputs {', '.join(one.inputs)} are not all there" for one in lacking}
    )
    return FeatureTables(
        rows=pl.concat([rows, aggregates], how="horizontal"),
        latest=LatestFeatures((*world.latest(), *nodes.latest), tuple(made)),
        aggregates=tuple(aggregates.columns),
        counts=nodes.counts
        + tuple(
            name
            for view in chosen
            for name, feature in zip(view.columns, view.features, strict=True)
            if isinstance(feature, COUNTING)
        ),
        left_out=left_out,
        views=tuple(chosen),
    )


def _drop_impossible(
    views: Sequence[FeatureView], columns: Sequence[str], events: pl.DataFrame | None, entities: pl.DataFrame | None
) -> tuple[list[FeatureView], dict[str, str]]:
    """Leave out the features whose labels or columns the data does not have, and views with none left."""
    kept, left_out = [], {}
    for view in views:
        if view.source.name == EVENTS.name and events is None:
            left_out[view.name] = "there is no table of events"
            continue
        if view.graph_key and edges_of(view, entities) is None:
            left_out[view.name] = f"no item has an entity for the key {view.graph_key}"
            continue
        for name, feature in zip(view.columns, view.features, strict=True):
            missing = sorted(needed_columns(feature) - set(columns))
            if missing:
                left_out[name] = f"the data has no column {', '.join(missing)}"
        features = tuple(feature for feature in view.features if needed_columns(feature) <= set(columns))
        if features:
            kept.append(replace(view, features=features))
    return kept, left_out


def _with_events(
    frame: pl.DataFrame, views: Sequence[FeatureView], events: pl.DataFrame | None, side_users: pl.DataFrame | None,
    side_items: pl.DataFrame | None,
) -> pl.DataFrame:  # fmt: skip
    """Return the labelled rows and, below them, the events where a view reads them; `__source` tells them apart."""
    frame = frame.with_columns(pl.lit(LABELLED.name).alias(_SOURCE))
    if events is None or not any(view.source.name == EVENTS.name for view in views):
        return frame
    beside = request_columns(events, side_users, side_items, ())
    events = pl.concat([events.select(pl.exclude(beside.columns)), beside], how="horizontal")
    events = events.select(name for name in events.columns if name in frame.columns)
    return pl.concat([frame, events.with_columns(pl.lit(EVENTS.name).alias(_SOURCE))], how="diagonal")


@dataclass(frozen=True)
class _World:
    """The chosen views, all rows of all sources, and each row's code of every set of keys."""

    views: Sequence[FeatureView]
    frame: pl.DataFrame
    codes: Mapping[tuple[str, ...], Array]
    entities: pl.DataFrame | None

    def through_sight(self, sources: Sequence[str], targets: Sequence[str]) -> pl.DataFrame:
        """Return `__target` and every view's columns for the labelled rows of `targets`, which see `sources`."""
        visible = self._dated(pl.col(PART).is_in(sources))
        asked = self.frame.with_row_index(_TARGET).filter(
            pl.col(PART).is_in(targets) & (pl.col(_SOURCE) == LABELLED.name)
        )
        end = visible[TIME].max()
        frozen = pl.min_horizontal(TIME, pl.lit(end, dtype=TIME_TYPE) + _TICK)
        at = pl.when(pl.col(PART) == TRAIN).then(TIME).otherwise(frozen)
        at = pl.when(pl.col(TIME).is_null()).then(pl.lit(self.frame[TIME].min(), dtype=TIME_TYPE)).otherwise(at)
        # an undated row is described as of before everything
        instants = asked.select(at.cast(TIME_TYPE)).to_series().to_physical().to_numpy()
        sights = _sights(self.views, visible, instants)
        rows = asked[_TARGET].to_numpy()
        found = [self._values(view, *sights[view.source.name], rows) for view in self.views]
        return pl.concat([asked.select(_TARGET), *found], how="horizontal")

    def latest(self) -> list[LatestView]:
        """Return every view's value per key as of just after the last row of all."""
        dated = self._dated(pl.lit(True))
        end = np.asarray(dated[TIME].to_physical().to_numpy()[-1:] + 1)
        at_end = _sights(self.views, dated, end)
        found = []
        for view in self.views:
            sources = at_end[view.source.name][0].sources
            keys = (ITEM_ROW,) if view.graph_key else view.keys
            targets = self._tied_items(view) if view.graph_key else self._examples(view, sources)
            sight, priors = _sights([view], dated, np.repeat(end, len(targets)))[view.source.name]
            named = targets.to_frame() if isinstance(targets, pl.Series) else self.frame[targets].select(keys)
            table = pl.concat([named, self._values(view, sight, priors, targets)], how="horizontal").sort(keys)
            unseen = unseen_values(view, at_end[view.source.name][1])
            found.append(LatestView(view.name, keys, table, unseen))
        return found

    def _dated(self, chosen: pl.Expr) -> pl.DataFrame:
        return self.frame.with_row_index(_TARGET).filter(chosen).drop_nulls(TIME).sort(TIME, maintain_order=True)

    def _examples(self, view: FeatureView, sources: pl.DataFrame) -> Array:
        """Return one row of the frame for each key that the view has values of."""
        rows = sources[_TARGET].to_numpy().astype(np.int64)
        keys, example = np.unique(self.codes[view.keys][rows], return_index=True)
        return np.asarray(rows[example[keys >= 0]])

    def _tied_items(self, view: FeatureView) -> pl.Series:
        edges = edges_of(view, self.entities)
        return pl.Series(ITEM_ROW, [], dtype=ROW_TYPE) if edges is None else edges[ITEM_ROW].unique().sort()

    def _values(
        self, view: FeatureView, sight: Sight, priors: Mapping[Of, Array], targets: Array | pl.Series
    ) -> pl.DataFrame:
        """Return the view's values for rows of the frame, or for items."""
        edges = edges_of(view, self.entities)
        if edges is not None:
            items = targets if isinstance(targets, pl.Series) else self.frame[ITEM_ROW][targets]
            return values_over_graph(view, sight, sight.sources[ITEM_ROW], items, edges, priors)
        codes, rows = self.codes[view.keys], sight.sources[_TARGET].to_numpy()
        return values_as_of(view, sight, codes[rows], codes[targets], priors)


def _sights(views: Sequence[FeatureView], visible: pl.DataFrame, at: Array) -> dict[str, tuple[Sight, dict[Of, Array]]]:
    """Return per source that a view reads what may be seen of it, and its global rates at these instants."""
    found = {}
    for name in dict.fromkeys(view.source.name for view in views):
        sight = Sight(visible.filter(pl.col(_SOURCE) == name), at)
        found[name] = sight, sight.global_rates(rate_kinds(view for view in views if view.source.name == name))
    return found
