"""Features of labelled rows as they were known before each row, and as they are now for serving.

Who sees what. A row of train sees the train rows strictly before it. A row of validation sees all of train, a row of
test all of train and validation, never a row of its own part: features are frozen at the last retraining, exactly as a
served model reads them. Reading labels within the test part would score a system that retrains after every click.
So the instant as of which a validation or test row is described is its own time or the end of what it may see (just
after the last such row), whichever comes first; windows and recency count back from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from kgrec.features.declarations import Declaration
from kgrec.features.feature_log import FeatureLog
from kgrec.features.in_pieces import FeaturePieces, features_in_pieces
from kgrec.features.latest import LatestFeatures
from kgrec.features.view import FeatureView


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
    """Return the features of each labelled row, known strictly before it, and their latest values per key, in memory.

    views: feature views and derived features. labelled: `user_row`, `item_row`, `part`, and where the data has them
    `time`, `click`, `conversion` and the context columns. side_users: `user_row` and features; side_items: `item_row`
    and features. events: the rows of the source "events", with the same columns. entities: what each item is tied to
    (`over_graph.item_entities`). A view whose key, label or source is not in the data is left out and named in
    `left_out`; without any time only what the graph says of items is there. Raises InputError with every fault of the
    declarations.
    """
    log = FeatureLog.of(labelled, events, side_users, side_items, context)
    return tables_of(features_in_pieces(views, log, entities))


def tables_of(made: FeaturePieces) -> FeatureTables:
    """Return what was computed, held in memory."""
    latest = LatestFeatures(tuple(one.held() for one in made.latest), made.derived)
    rows = pl.concat(made.pieces())
    return FeatureTables(rows, latest, made.aggregates, made.counts, made.left_out, made.views)
