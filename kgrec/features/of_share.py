"""The views' values for the rows of a share, all of them at once, and per key as of the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from kgrec.columns import ITEM_ROW, PART, ROW_TYPE, TIME
from kgrec.features.aggregations import Of, needed_columns
from kgrec.features.feature_log import ROW, SIGHTINGS, SOURCE, FeatureLog, Span
from kgrec.features.global_rates import GlobalRates
from kgrec.features.over_graph import edges_of, values_over_graph
from kgrec.features.shares import Slice
from kgrec.features.spans import Array, Sight, by_key
from kgrec.features.view import LABELLED, FeatureView
from kgrec.features.windows import key_codes, values_as_of
from kgrec.graph.merging import run_starts

_PLACE = "__place"
_AT = "__at"


@dataclass(frozen=True)
class World:
    """The log, when it is, the rates of all its rows by source, and what each item is tied to in the graph.

    slices: spans of time that make it up, each with the log of its rows; none where all rows fit at once.
    """

    log: FeatureLog
    span: Span
    rates: Mapping[str, GlobalRates]
    entities: pl.DataFrame | None = None
    slices: Sequence[tuple[Slice, FeatureLog]] = ()

    @property
    def end(self) -> int:
        """The instant just after the last row of all, microseconds."""
        return (self.span.last or 0) + 1


def columns_read(views: Sequence[FeatureView]) -> set[str]:
    """Return the columns that the views are computed from."""
    found = {TIME, PART, *(key for view in views for key in view.keys)}
    found |= {ITEM_ROW for view in views if view.graph_key}
    return found.union(*(needed_columns(feature) for view in views for feature in view.features))


@dataclass(frozen=True)
class ShareOfViews:
    """Some views over the rows of a share (`log`), which hold every row of any key that one of them has."""

    world: World
    views: Sequence[FeatureView]
    log: FeatureLog

    @cached_property
    def frame(self) -> pl.DataFrame:
        """The rows of all sources."""
        return self.log.read(columns_read(self.views))

    @cached_property
    def _codes(self) -> Mapping[tuple[str, ...], Array]:
        return key_codes(self.frame, [view.keys for view in self.views if not view.graph_key])

    def rows(self) -> pl.DataFrame:
        """Return `__row` and every view's columns for the labelled rows of the share."""
        return pl.concat(self._through(number) for number in range(len(SIGHTINGS)))

    def _through(self, number: int) -> pl.DataFrame:
        sighting = SIGHTINGS[number]
        visible = self._dated(pl.col(PART).is_in(sighting.sources))
        asked = self._of(LABELLED.name, self.frame.with_row_index(_PLACE)).filter(pl.col(PART).is_in(sighting.targets))
        at = asked.select(self.world.span.asked_at(number).alias(_AT))[_AT].to_numpy()
        rates = {name: found.as_of(number, at) for name, found in self.world.rates.items()}
        names = dict.fromkeys(view.source.name for view in self.views)
        sights = {name: Sight(self._of(name, visible), at) for name in names}
        places = asked[_PLACE].to_numpy()
        found = [self._values(view, sights[view.source.name], rates[view.source.name], places) for view in self.views]
        return pl.concat([asked.select(ROW), *found], how="horizontal")

    def latest(self, view: FeatureView) -> pl.DataFrame:
        """Return a view's value per key of the share as of just after the last row of all, sorted by key."""
        dated = self._of(view.source.name, self._dated(None))
        keys = (ITEM_ROW,) if view.graph_key else view.keys
        targets = self._tied_items(view) if view.graph_key else self._examples(view, dated)
        sight = Sight(dated, np.full(len(targets), self.world.end))
        rates = self.world.rates[view.source.name].at_end(len(targets))
        named = targets.to_frame() if isinstance(targets, pl.Series) else self.frame[targets].select(keys)
        return pl.concat([named, self._values(view, sight, rates, targets)], how="horizontal").sort(keys)

    def _of(self, source: str, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of one source; all of them where there is but one."""
        return rows if self.log.events is None else rows.filter(pl.col(SOURCE) == source)

    def _dated(self, chosen: pl.Expr | None) -> pl.DataFrame:
        rows = self.frame.with_row_index(_PLACE)
        rows = (rows if chosen is None else rows.filter(chosen)).drop_nulls(TIME)
        return rows if rows[TIME].is_sorted() else rows.sort(TIME, maintain_order=True)

    def _examples(self, view: FeatureView, sources: pl.DataFrame) -> Array:
        """Return one row of the frame for each key that the view has values of."""
        rows = sources[_PLACE].to_numpy().astype(np.int64)
        keys = self._codes[view.keys][rows]
        order = by_key(keys)
        firsts = order[run_starts(keys[order])]
        return np.asarray(rows[firsts[keys[firsts] >= 0]])

    def _tied_items(self, view: FeatureView) -> pl.Series:
        edges = edges_of(view, self.world.entities)
        return pl.Series(ITEM_ROW, [], dtype=ROW_TYPE) if edges is None else edges[ITEM_ROW].unique().sort()

    def _values(
        self, view: FeatureView, sight: Sight, rates: Mapping[Of, Array], targets: Array | pl.Series
    ) -> pl.DataFrame:
        """Return the view's values for rows of the frame, or for items."""
        edges = edges_of(view, self.world.entities)
        if edges is not None:
            items = targets if isinstance(targets, pl.Series) else self.frame[ITEM_ROW][targets]
            return values_over_graph(view, sight, sight.sources[ITEM_ROW], items, edges, rates)
        codes, rows = self._codes[view.keys], sight.sources[_PLACE].to_numpy()
        return values_as_of(view, sight, codes[rows], codes[targets], rates)
