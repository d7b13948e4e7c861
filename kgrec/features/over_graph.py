"""Views over the graph: how all items that share an entity with this one are received.

A row of such a view has many keys, the entities that its item is tied to. Each entity's values are computed as for any
other key; the row gets their mean, and of recency the most recent. An item without entities gets what an unseen key
gets.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from kgrec.columns import ENTITY, HEAD, ITEM, ITEM_ROW, KNOWN_AT, PART, RELATION, ROW_TYPE, TAIL, TRAIN
from kgrec.features.aggregations import Of, Rate, Recency
from kgrec.features.spans import Array, Sight
from kgrec.features.view import GRAPH, FeatureView
from kgrec.features.windows import values_as_of


def item_entities(triples: pl.DataFrame, links: pl.DataFrame | None, items: pl.DataFrame) -> pl.DataFrame:
    """Return the distinct item_row, relation, entity of every triple that has an item at one end.

    triples: head, relation, tail, and perhaps their part: then those of train alone. links: item, entity; None where an
    item's id is its entity's. items: item_row and item. A relation read from its tail is named as it is. A triple that
    came to be known at some instant is left out: a row from before it must not see it.
    """
    if KNOWN_AT in triples.columns:
        triples = triples.filter(pl.col(KNOWN_AT).is_null())
    if PART in triples.columns:
        triples = triples.filter(pl.col(PART).cast(pl.String) == TRAIN)
    named = items.select(ITEM_ROW, ITEM)
    ids = named.rename({ITEM: ENTITY}) if links is None else named.join(links, on=ITEM).select(ITEM_ROW, ENTITY)
    ends = [
        triples.select(pl.col(near).alias(ENTITY), RELATION, pl.col(far).alias("other"))
        for near, far in ((HEAD, TAIL), (TAIL, HEAD))
    ]
    found = pl.concat(ends).join(ids, on=ENTITY).select(pl.col(ITEM_ROW).cast(ROW_TYPE), RELATION, other="other")
    return found.rename({"other": ENTITY}).unique().sort(ITEM_ROW, RELATION, ENTITY)


def edges_of(view: FeatureView, entities: pl.DataFrame | None) -> pl.DataFrame | None:
    """Return item_row and `key` (an entity's code) of the relations that the view names, or None where there are none.

    entities: as from `item_entities`.
    """
    if entities is None or view.graph_key is None:
        return None
    relation = view.graph_key.removeprefix(GRAPH)
    chosen = entities if relation == "*" else entities.filter(pl.col(RELATION) == relation)
    if chosen.is_empty():
        return None
    pairs = chosen.select(ITEM_ROW, ENTITY).unique().sort(ITEM_ROW, ENTITY)
    return pairs.select(ITEM_ROW, (pl.col(ENTITY).rank("dense").cast(pl.Int64) - 1).alias("key"))


def values_over_graph(
    view: FeatureView, sight: Sight, source_items: pl.Series, target_items: pl.Series, edges: pl.DataFrame,
    priors: Mapping[Of, Array],
) -> pl.DataFrame:  # fmt: skip
    """Return the view's Float32 columns, one row per instant of the sight, in order.

    source_items, target_items: item rows (null: unknown). edges: from `edges_of`.
    """
    source, source_key = _expanded(source_items, edges)
    target, target_key = _expanded(target_items, edges)
    wide = Sight(sight.sources[source], sight.at[target])
    spread = {kind: prior[target] for kind, prior in priors.items()}
    values = values_as_of(view, wide, source_key, target_key, spread)
    ties = np.bincount(target, minlength=len(sight.at))
    columns = {}
    for name, feature in zip(view.columns, view.features, strict=True):
        found = values[name].cast(pl.Float64).fill_null(np.inf).to_numpy()
        if isinstance(feature, Recency):
            least = np.full(len(sight.at), np.inf)
            np.minimum.at(least, target, found)
            columns[name] = pl.Series(np.where(np.isinf(least), np.nan, least), nan_to_null=True)
        else:
            mean = np.bincount(target, found, len(sight.at)) / np.maximum(ties, 1)
            columns[name] = pl.Series(np.where(ties > 0, mean, _unseen(view, name, priors, len(sight.at))))
    return pl.DataFrame(columns).cast(pl.Float32)


def _expanded(items: pl.Series, edges: pl.DataFrame) -> tuple[Array, Array]:
    """Return the position and the entity of each tie of each row."""
    numbered = items.cast(ROW_TYPE).alias(ITEM_ROW).to_frame().with_row_index("at")
    ties = numbered.join(edges, on=ITEM_ROW, how="inner", maintain_order="left_right")
    return ties["at"].to_numpy().astype(np.int64), ties["key"].to_numpy()


def _unseen(view: FeatureView, name: str, priors: Mapping[Of, Array], count: int) -> Array:
    feature = view.features[view.columns.index(name)]
    return priors[feature.of] if isinstance(feature, Rate) else np.zeros(count)
