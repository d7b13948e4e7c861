"""The knowledge graph: triples over one space of nodes, in which an item is its entity.

Nodes 0..I-1 are the items, in the order of the item vocabulary; node I+e is row e of the vocabulary of the other
entities. Both vocabularies only grow; the offset I is a fact of each built graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from kgrec import columns as c
from kgrec.data.vocabulary import Vocabulary
from kgrec.graph.duplicates import duplicate_facts, likely_duplicates
from kgrec.graph.mapping import Claims, Known, map_triples
from kgrec.graph.merging import once
from kgrec.graph.names import relation_words, short_names
from kgrec.graph.parts import pairs_across_parts
from kgrec.graph.relations import KEY, coverage, describe_relations, inverse_facts, inverses_across_parts

NODE: Final = "node"
DEGREE: Final = "degree"
SHORT: Final = "short"
TRIPLE_ROWS: Final = {c.HEAD_ROW: c.ROW_TYPE, c.RELATION_ROW: c.ROW_TYPE, c.TAIL_ROW: c.ROW_TYPE, c.PART: c.PART_TYPE}


@dataclass(frozen=True)
class KnowledgeGraph:
    """A built graph.

    triples: head_row, relation_row, tail_row (nodes and relations), part, weight, known_at, source. nodes: node, id,
    label (null where nobody gave a name), name (label or shortened id, for people), degree. relations_report: see
    `describe_relations`, with the relation's id and name. duplicates: see `likely_duplicates`. facts: for people.
    """

    entities: Vocabulary
    relations: Vocabulary
    triples: pl.DataFrame
    nodes: pl.DataFrame
    relations_report: pl.DataFrame
    duplicates: pl.DataFrame
    facts: dict[str, Any]


@dataclass(frozen=True)
class Named:
    """What people call things. labels: entity, label. titles: item, title. prefixes: what shortens IRIs."""

    labels: pl.DataFrame
    titles: pl.DataFrame
    prefixes: Mapping[str, str]


def build_graph(
    triples: pl.DataFrame,
    links: pl.DataFrame | None,
    named: Named,
    known: Known,
    assign: Callable[[pl.DataFrame], tuple[pl.DataFrame, dict[str, Any]]],
    refine: Callable[[pl.DataFrame, Vocabulary], tuple[pl.DataFrame, dict[str, Any]]],
    agreement: float = 0.8,
) -> KnowledgeGraph:
    """Map canonical triples to rows, part them and describe what came of it.

    triples: columns.TRIPLES_SCHEMA and perhaps part. links: item, entity; None when the data has none, and then an
    item's id is its entity's id. An entity that several items claim stays a node of its own, tied to each by the
    relation `linked_to`. refine: changes mapped triples (rows, weight, known_at, source, perhaps part) and returns them
    with facts. assign: adds the part, and what is done by part, with
    facts; it comes last. agreement: see `describe_relations`.
    """
    items, offset = known.items, len(known.items)
    claims = Claims.of(links, items)
    rows, entities, relations = map_triples(triples, claims, known)
    distinct = once(rows, KEY)
    facts: dict[str, Any] = {"triples_equal_after_linking": rows.height - distinct.height}
    report = describe_relations(distinct, offset, agreement)
    refined, said = refine(distinct, relations)
    assigned, told = assign(refined)
    parted = assigned.select(*TRIPLE_ROWS, c.WEIGHT, c.KNOWN_AT, c.SOURCE)
    nodes = _nodes(parted, items, entities, named, claims.merged)
    names = pl.DataFrame({
        c.RELATION_ROW: pl.Series(range(len(relations)), dtype=c.ROW_TYPE),
        c.ID: relations.entries,
        c.NAME: [relation_words(name) for name in relations.entries.to_list()],
        SHORT: short_names(relations.entries.alias(c.ID), named.prefixes),
    })  # fmt: skip
    duplicates = likely_duplicates(parted, nodes, offset)
    facts |= _facts(parted, nodes, relations, offset, claims.shared) | said | told
    facts |= duplicate_facts(duplicates) | _without_entity(links, items)
    turned = inverses_across_parts(parted, report, agreement) if facts["pairs_across_parts"] else None
    facts |= inverse_facts(turned, names[SHORT].to_list())
    report = report.join(names, on=c.RELATION_ROW, how="left", maintain_order="left")
    return KnowledgeGraph(entities, relations, parted, nodes, report, duplicates, facts)


def _without_entity(links: pl.DataFrame | None, items: Vocabulary) -> dict[str, Any]:
    """Return how many items no link leads from, with examples; nothing where an item's id is its entity's."""
    if links is None:
        return {}
    alone = items.entries.filter(~items.entries.is_in(links[c.ITEM].implode()))
    shown = {"examples_of_items_without_entity": alone.head(5).to_list()} if len(alone) else {}
    return {"items_without_entity": len(alone), **shown}


def _nodes(
    triples: pl.DataFrame,
    items: Vocabulary,
    entities: Vocabulary,
    named: Named,
    merged: pl.DataFrame,
) -> pl.DataFrame:
    titles = named.titles
    names = named.labels.unique(c.ENTITY, keep="first", maintain_order=True)
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
    short = short_names(both[c.ID], named.prefixes)
    return (
        both.join(degrees, on=NODE, how="left", maintain_order="left")
        .with_columns(pl.coalesce(c.LABEL, short).alias(c.NAME), pl.col(DEGREE).fill_null(0))
        .select(NODE, c.ID, c.LABEL, c.NAME, DEGREE)
    )


def _facts(
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
        "parts": {part: triples.filter(pl.col(c.PART) == part).height for part in c.PARTS},
        "items_with_triples": with_graph,
        "items_with_triples_share": with_graph / offset if offset else math.nan if nodes.height == 0 else 0.0,
        **coverage(triples, offset),
        "links_to_shared_entities": shared.height,
        "pairs_across_parts": pairs_across_parts(triples),
        "hubs": [{"id": h[c.ID], "label": h[c.LABEL], "name": h[c.NAME], "degree": h[DEGREE]} for h in hubs.to_dicts()],
        "triples_per_relation": {
            relations.entries[row]: count for row, count in per_relation.head(30).iter_rows()
        },
    }  # fmt: skip
