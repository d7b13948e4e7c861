"""The knowledge graph: triples over one space of nodes, in which an item is its entity.

Nodes 0..I-1 are the items, in the order of the item vocabulary; node I+e is row e of the vocabulary of the other
entities. Both vocabularies only grow; the offset I is a fact of each built graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from kgrec import columns as c
from kgrec.data.vocabulary import Vocabulary

LINKED_TO: Final = "linked_to"
NODE: Final = "node"
DEGREE: Final = "degree"
TRIPLE_ROWS: Final = {c.HEAD_ROW: c.ROW_TYPE, c.RELATION_ROW: c.ROW_TYPE, c.TAIL_ROW: c.ROW_TYPE, c.PART: c.PART_TYPE}


@dataclass(frozen=True)
class KnowledgeGraph:
    """A built graph.

    triples: head_row, relation_row, tail_row (nodes and relations), part. nodes: node, id, label (null where nobody
    gave a name), degree. facts: counts for people.
    """

    entities: Vocabulary
    relations: Vocabulary
    triples: pl.DataFrame
    nodes: pl.DataFrame
    facts: dict[str, Any]


def build_graph(
    triples: pl.DataFrame,
    links: pl.DataFrame | None,
    labels: pl.DataFrame,
    titles: pl.DataFrame,
    items: Vocabulary,
    known_entities: Vocabulary,
    known_relations: Vocabulary,
    held_out: tuple[float, float],
    generator: Callable[[], np.random.Generator],
) -> KnowledgeGraph:
    """Map canonical triples to rows and hold a share of them out for link prediction.

    triples: columns.TRIPLES_SCHEMA with head_is_item and perhaps part. links: item, entity; None when the data has no
    link file, and then an item's id is its entity's id. An entity that several items claim stays a node of its own,
    tied to each by the relation `linked_to`. held_out: shares for validation and test, unless the triples say
    themselves; pairs of nodes are held out whole, whatever the direction and relation, so that no inverse leaks.
    """
    merged, shared = _claims(links, items)
    mapped = _to_keys(triples, merged)
    if shared.height:
        mapped = pl.concat([mapped, _shared_link_triples(shared, with_part=c.PART in mapped.columns)])
    ends = pl.concat([mapped["head_entity"], mapped["tail_entity"]]).drop_nulls().unique(maintain_order=True)
    entities = known_entities.grow(ends)
    relations = known_relations.grow(mapped[c.RELATION].unique(maintain_order=True))
    offset = len(items)
    rows = mapped.select(
        _node("head", mapped, items, entities, offset),
        relations.rows(mapped[c.RELATION]).alias(c.RELATION_ROW),
        _node("tail", mapped, items, entities, offset),
        *([c.PART] if c.PART in mapped.columns else []),
    )
    distinct = rows.unique([c.HEAD_ROW, c.RELATION_ROW, c.TAIL_ROW], maintain_order=True)
    if c.PART in distinct.columns:
        parted = distinct.with_columns(pl.col(c.PART).fill_null(c.TRAIN))
    else:
        parted = _hold_out(distinct, held_out, generator())
    parted = parted.cast({c.PART: c.PART_TYPE})
    nodes = _nodes(parted, items, entities, titles, labels, merged)
    return KnowledgeGraph(entities, relations, parted, nodes, _facts(rows, parted, nodes, relations, offset, shared))


def _claims(links: pl.DataFrame | None, items: Vocabulary) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return (item, entity) pairs that merge into one node, and those whose entity several items share."""
    if links is None:
        ids = items.entries
        links = pl.DataFrame({c.ITEM: ids, c.ENTITY: ids})
    claimed = links.with_columns(pl.col(c.ITEM).n_unique().over(c.ENTITY).alias("claims"))
    return claimed.filter(pl.col("claims") == 1).drop("claims"), claimed.filter(pl.col("claims") > 1).drop("claims")


def _to_keys(triples: pl.DataFrame, merged: pl.DataFrame) -> pl.DataFrame:
    """Give each end its item id or, where it is no item, its entity id."""
    lookup = merged.select(pl.col(c.ENTITY), pl.col(c.ITEM))
    joined = triples.join(
        lookup.rename({c.ENTITY: c.HEAD, c.ITEM: "head_link"}), on=c.HEAD, how="left", maintain_order="left"
    ).join(lookup.rename({c.ENTITY: c.TAIL, c.ITEM: "tail_link"}), on=c.TAIL, how="left", maintain_order="left")
    head_item = pl.when(pl.col("head_is_item")).then(pl.col(c.HEAD)).otherwise(pl.col("head_link"))
    return joined.select(
        head_item.alias("head_item"),
        pl.when(head_item.is_null()).then(pl.col(c.HEAD)).alias("head_entity"),
        c.RELATION,
        pl.col("tail_link").alias("tail_item"),
        pl.when(pl.col("tail_link").is_null()).then(pl.col(c.TAIL)).alias("tail_entity"),
        *([c.PART] if c.PART in triples.columns else []),
    )


def _shared_link_triples(shared: pl.DataFrame, *, with_part: bool) -> pl.DataFrame:
    nothing = pl.lit(None, dtype=pl.String)
    return shared.select(
        pl.col(c.ITEM).alias("head_item"),
        nothing.alias("head_entity"),
        pl.lit(LINKED_TO).alias(c.RELATION),
        nothing.alias("tail_item"),
        pl.col(c.ENTITY).alias("tail_entity"),
        *([pl.lit(None, dtype=c.PART_TYPE).alias(c.PART)] if with_part else []),
    )


def _node(end: str, mapped: pl.DataFrame, items: Vocabulary, entities: Vocabulary, offset: int) -> pl.Series:
    item_rows = items.rows(mapped[f"{end}_item"])
    entity_rows = entities.rows(mapped[f"{end}_entity"]) + offset
    return item_rows.to_frame("item").with_columns(entity_rows.alias("entity")).select(
        pl.coalesce("item", "entity").cast(c.ROW_TYPE).alias(f"{end}_row")
    ).to_series()  # fmt: skip


def _hold_out(rows: pl.DataFrame, shares: tuple[float, float], generator: np.random.Generator) -> pl.DataFrame:
    low = pl.min_horizontal(c.HEAD_ROW, c.TAIL_ROW).alias("low")
    high = pl.max_horizontal(c.HEAD_ROW, c.TAIL_ROW).alias("high")
    pairs = rows.select(low, high).unique(maintain_order=True)
    draw = pl.Series("draw", generator.random(pairs.height))
    validation, test = shares
    part = (
        pl.when(pl.col("draw") < test).then(pl.lit(c.TEST))
        .when(pl.col("draw") < test + validation).then(pl.lit(c.VALIDATION))
        .otherwise(pl.lit(c.TRAIN)).alias(c.PART)
    )  # fmt: skip
    decided = pairs.with_columns(draw).select("low", "high", part)
    return (
        rows.with_columns(low, high)
        .join(decided, on=["low", "high"], how="left", maintain_order="left")
        .drop("low", "high")
    )


def _nodes(
    triples: pl.DataFrame,
    items: Vocabulary,
    entities: Vocabulary,
    titles: pl.DataFrame,
    labels: pl.DataFrame,
    merged: pl.DataFrame,
) -> pl.DataFrame:
    names = labels.unique(c.ENTITY, keep="first", maintain_order=True)
    item_names = (
        pl.DataFrame({c.ID: items.entries})
        .join(titles.rename({c.ITEM: c.ID}), on=c.ID, how="left", maintain_order="left")
        .join(
            merged.join(names, on=c.ENTITY).unique(c.ITEM, keep="first", maintain_order=True)
            .select(pl.col(c.ITEM).alias(c.ID), c.LABEL),
            on=c.ID, how="left", maintain_order="left",
        )
        .select(c.ID, pl.coalesce(c.TITLE, c.LABEL).alias(c.LABEL))
    )  # fmt: skip
    entity_names = pl.DataFrame({c.ID: entities.entries}).join(
        names.rename({c.ENTITY: c.ID}), on=c.ID, how="left", maintain_order="left"
    )
    both = pl.concat([item_names, entity_names.select(c.ID, c.LABEL)]).with_row_index(NODE).cast({NODE: c.ROW_TYPE})
    degrees = (
        pl.concat([triples[c.HEAD_ROW], triples[c.TAIL_ROW]])
        .alias(NODE).value_counts(name=DEGREE).cast({DEGREE: pl.Int32})
    )  # fmt: skip
    return both.join(degrees, on=NODE, how="left", maintain_order="left").with_columns(pl.col(DEGREE).fill_null(0))


def _facts(
    rows: pl.DataFrame,
    triples: pl.DataFrame,
    nodes: pl.DataFrame,
    relations: Vocabulary,
    offset: int,
    shared: pl.DataFrame,
) -> dict[str, Any]:
    item_nodes = nodes.filter(pl.col(NODE) < offset)
    hubs = nodes.filter(pl.col(NODE) >= offset).sort([DEGREE, NODE], descending=[True, False]).head(5)
    per_relation = (
        triples[c.RELATION_ROW].value_counts(name="count").sort(["count", c.RELATION_ROW], descending=[True, False])
    )
    with_graph = item_nodes.filter(pl.col(DEGREE) > 0).height
    return {
        "items": offset,
        "entities": nodes.height,
        "relations": len(relations),
        "triples": triples.height,
        "triples_equal_after_linking": rows.height - triples.height,
        "parts": {part: triples.filter(pl.col(c.PART) == part).height for part in c.PARTS},
        "items_with_triples": with_graph,
        "items_with_triples_share": with_graph / offset if offset else math.nan if nodes.height == 0 else 0.0,
        "links_to_shared_entities": shared.height,
        "hubs": [{"id": h[c.ID], "label": h[c.LABEL], "degree": h[DEGREE]} for h in hubs.to_dicts()],
        "triples_per_relation": {
            relations.entries[row]: count for row, count in per_relation.head(30).iter_rows()
        },
    }  # fmt: skip
