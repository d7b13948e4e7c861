"""Features of a log of any length: computed a share of the rows at a time, given back in pieces of the rows' order."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from kgrec.columns import ITEM_ROW, PART, TIME, USER_ROW
from kgrec.features.aggregations import COUNTING, needed_columns
from kgrec.features.declarations import Declaration, check_declarations, node_views, split_declarations
from kgrec.features.derived import Derived, compute_derived, in_order
from kgrec.features.feature_log import FeatureLog
from kgrec.features.global_rates import GlobalRates
from kgrec.features.keys import categorical_keys
from kgrec.features.latest import LatestParts
from kgrec.features.log_parts import parts_of
from kgrec.features.nodes import NodeValues, node_values
from kgrec.features.of_share import ShareOfViews, World, columns_read
from kgrec.features.over_graph import edges_of
from kgrec.features.pieces import PIECE, Pieces, kept
from kgrec.features.shares import MOST_TOGETHER, Share, carries_on, partition_of, shares_of, slices_of
from kgrec.features.through_time import SlicesOfView
from kgrec.features.view import EVENTS, FeatureView, expand_views
from kgrec.features.windows import rate_kinds, unseen_values


@dataclass(frozen=True)
class FeaturePieces:
    """What `FeatureTables` has, its rows in pieces and its latest values in parts."""

    log: FeatureLog
    rows: int
    computed: tuple[Pieces, ...]
    nodes: NodeValues
    latest: tuple[LatestParts, ...]
    derived: tuple[Derived, ...]
    columns: tuple[str, ...]
    counts: tuple[str, ...]
    left_out: Mapping[str, str]
    views: tuple[FeatureView, ...] = ()

    @property
    def aggregates(self) -> tuple[str, ...]:
        """The names of the columns beside those of the request."""
        nodes = [name for view in self.nodes.latest for name in view.unseen]
        return (*self.columns, *nodes, *(one.name for one in self.derived))

    def pieces(self) -> Iterator[pl.DataFrame]:
        """Yield the columns of PIECE labelled rows after the other, in their order."""
        for start in range(0, max(self.rows, 1), PIECE):
            labelled = self.log.piece(start, PIECE)
            found = [one.piece(start) for one in self.computed]
            aggregates = pl.concat(found, how="horizontal").select(self.columns) if found else pl.DataFrame()
            aggregates = pl.concat([aggregates, self.nodes.rows(labelled[ITEM_ROW])], how="horizontal")
            aggregates = compute_derived(aggregates, self.derived)
            yield pl.concat([self.log.beside(labelled), aggregates], how="horizontal")


def features_in_pieces(
    views: Sequence[Declaration], log: FeatureLog, entities: pl.DataFrame | None = None, *,
    at_once: int | None = None, folder: Path | None = None,
) -> FeaturePieces:  # fmt: skip
    """Compute the features of `build_features` while no more than `at_once` rows are held; no bit depends on it.

    folder: takes what is computed until it is read; None keeps it in memory. Always held are the rows of one user or
    item, of a view over the graph, of a decayed count keyed by neither, and the values per key of any other view
    whose first key is neither.
    """
    check_declarations(views)
    declared, derived = split_declarations(views)
    nodes = node_values(node_views(views), entities)
    latest = tuple(LatestParts(one.name, one.keys, (one.table.lazy(),), one.unseen) for one in nodes.latest)
    dated = log.labelled.select(pl.col(TIME).count()).collect().item() if TIME in log.schema else 0
    if not dated:
        rows = log.labelled.select(pl.len()).collect().item()
        timeless = [one.name for one in declared] + [one.name for one in derived]
        left_out = dict.fromkeys(timeless, "the log has no time") | nodes.left_out
        return FeaturePieces(log, rows, (), nodes, latest, (), (), nodes.counts, left_out)
    columns = [name for name in log.schema if name not in (PART, TIME)]
    choices = categorical_keys(log.labelled, log.side_users, log.side_items, log.context)
    chosen, left_out = expand_views(declared, columns, log.context, choices)
    chosen, impossible = _drop_impossible(chosen, columns, log.events is not None, entities)
    if not any(view.source.name == EVENTS.name for view in chosen):
        log = replace(log, events=None)
    world = _world(log, chosen, entities, at_once, folder)
    computed, of_views = Computing(world, at_once, folder).run(chosen)
    names = tuple(column for view in chosen for column in view.columns)
    of_nodes = [name for view in nodes.latest for name in view.unseen]
    made, lacking = in_order(derived, [*names, *of_nodes])
    left_out |= impossible | nodes.left_out
    left_out |= {one.name: f"its inputs {', '.join(one.inputs)} are not all there" for one in lacking}
    counting = tuple(
        name
        for view in chosen
        for name, feature in zip(view.columns, view.features, strict=True)
        if isinstance(feature, COUNTING)
    )
    return FeaturePieces(
        log, world.span.labelled, computed, nodes, (*of_views, *latest), tuple(made), names, nodes.counts + counting,
        left_out, tuple(chosen),
    )  # fmt: skip


def _world(
    log: FeatureLog, views: Sequence[FeatureView], entities: pl.DataFrame | None, at_once: int | None,
    folder: Path | None,
) -> World:  # fmt: skip
    """Count when the rows are and what became of all of them by any instant."""
    span = log.span()
    whole = at_once is None or span.rows <= at_once
    slices = [] if whole else slices_of(log, span, min(at_once or 1, MOST_TOGETHER))
    counted = {view.source.name: _counted(views, view.source.name) for view in views}
    needed = columns_read([view for view in views if _goes_through_time(view)]).union(*counted.values())
    logs = [log] if whole else parts_of(log, needed, slices, None if folder is None else folder / "slices")
    rates = {
        name: GlobalRates.of((one.of_source(name, counted[name]) for one in logs), rate_kinds(_from(views, name)))
        for name in counted
    }
    return World(log, span, rates, entities, tuple(zip(slices, logs, strict=not whole)))


def _from(views: Sequence[FeatureView], source: str) -> list[FeatureView]:
    return [view for view in views if view.source.name == source]


def _counted(views: Sequence[FeatureView], source: str) -> set[str]:
    """Return the columns that the rates of a source are counted from."""
    return set().union(*(needed_columns(feature) for view in _from(views, source) for feature in view.features))


def _goes_through_time(view: FeatureView) -> bool:
    return partition_of(view) is None and carries_on(view)


@dataclass(frozen=True)
class Computing:
    """The work on a world: which views share their reading of the log, and in what shares of it."""

    world: World
    at_once: int | None
    folder: Path | None

    def run(self, views: Sequence[FeatureView]) -> tuple[tuple[Pieces, ...], list[LatestParts]]:
        """Return the views' columns for the rows and their values per key, in the order of the views."""
        computed: list[Pieces] = []
        latest: dict[str, LatestParts] = {}
        for group, shares in self._groups(views):
            pieces = self._pieces(len(computed))
            parts: dict[str, list[pl.LazyFrame]] = {view.name: [] for view in group}
            aside = self._aside(f"shares-{len(computed)}")
            for log in parts_of(self.world.log, columns_read(group), shares, aside):
                of_share = ShareOfViews(self.world, group, log)
                pieces.add(of_share.rows())
                for view in group:
                    parts[view.name].append(kept(of_share.latest(view), self._aside(f"latest-{view.name}")))
            pieces.put_together()
            if aside is not None:
                shutil.rmtree(aside, ignore_errors=True)
            for view in group:
                ascending = len(shares) == 1 or view.keys[0] == shares[0].column
                latest[view.name] = self._latest(view, parts[view.name], ascending=ascending)
            computed.append(pieces)
        for view in self._through_time(views):
            pieces, sliced = self._pieces(len(computed)), SlicesOfView(self.world, view, self.at_once or 1)
            for rows in sliced.rows():
                pieces.add(rows)
            pieces.put_together()
            latest[view.name] = self._latest(view, [sliced.latest().table.lazy()], ascending=True)
            computed.append(pieces)
        return tuple(computed), [latest[view.name] for view in views]

    @property
    def _fits(self) -> bool:
        return self.at_once is None or self.world.span.rows <= self.at_once

    def _groups(self, views: Sequence[FeatureView]) -> Iterator[tuple[list[FeatureView], list[Share]]]:
        """Yield views that are computed from one reading of each share, and the shares."""
        if self._fits:
            yield list(views), [Share()]
            return
        for column in (USER_ROW, ITEM_ROW):
            group = [view for view in views if partition_of(view) == column]
            if group:
                yield group, shares_of(self.world.log, column, min(self.at_once or 1, MOST_TOGETHER))
        for view in views:
            if partition_of(view) is None and not carries_on(view):
                yield [view], [Share()]

    def _through_time(self, views: Sequence[FeatureView]) -> list[FeatureView]:
        return [] if self._fits else [view for view in views if _goes_through_time(view)]

    def _latest(self, view: FeatureView, parts: Sequence[pl.LazyFrame], *, ascending: bool) -> LatestParts:
        keys = (ITEM_ROW,) if view.graph_key else view.keys
        if not ascending:
            parts = [pl.concat(part.collect() for part in parts).sort(keys).lazy()]
        unseen = unseen_values(view, self.world.rates[view.source.name].at_end())
        return LatestParts(view.name, keys, tuple(parts), unseen)

    def _pieces(self, number: int) -> Pieces:
        return Pieces(self.world.span.labelled, self._aside(f"rows-{number}"), self.at_once or 1)

    def _aside(self, name: str) -> Path | None:
        return None if self.folder is None or self._fits else self.folder / name


def _drop_impossible(
    views: Sequence[FeatureView], columns: Sequence[str], events: bool, entities: pl.DataFrame | None
) -> tuple[list[FeatureView], dict[str, str]]:
    """Leave out the features whose labels or columns the data does not have, and views with none left."""
    kept_views, left_out = [], {}
    for view in views:
        if view.source.name == EVENTS.name and not events:
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
            kept_views.append(replace(view, features=features))
    return kept_views, left_out
