"""Links from items to the entities of the graph, and the items that only a link knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from kgrec.columns import ENTITY, HEAD, HEAD_IS_ITEM, ITEM, LINKS_SCHEMA, TAIL
from kgrec.data.checks import Fault, Findings, sift
from kgrec.data.knowledge import KnowledgeConfig
from kgrec.data.sources import TableSource, materialise, reading
from kgrec.data.values import check_ids, find_column, id_text


@dataclass(frozen=True)
class Links:
    """links: `LINKS_SCHEMA`, in source order. cold: items that no log and no item table names, in source order."""

    links: pl.DataFrame
    cold: pl.Series


def entities_of(triples: pl.DataFrame) -> pl.Series:
    """Return the entities that occur in triples, each once; heads that are items do not count."""
    heads = triples.filter(~pl.col(HEAD_IS_ITEM))[HEAD]
    return pl.concat([heads, triples[TAIL]]).unique(maintain_order=True).alias(ENTITY)


def read_links(
    config: KnowledgeConfig,
    path: str,
    base: Path,
    scratch: Path,
    findings: Findings,
    known_items: pl.Series | None,
    entities: pl.Series,
) -> Links | None:
    """Read the links of items to entities; None when faults were found, which are in `findings`.

    A link of an item that is not in `known_items` is a bad row, unless its entity is in `entities` and no other item
    claims it: then the item is new to the catalogue ("cold"). `known_items` None: that cannot be judged, since
    another input could not be read.
    """
    table = materialise(TableSource(path=path), base, scratch)
    before = len(findings.problems)
    for column in (ITEM, ENTITY):
        find_column(table, "the header (item, entity)", column, [], findings)
    if len(findings.problems) > before or not check_ids(table, [ITEM, ENTITY], findings):
        return None
    schema = table.schema()
    values = {column: id_text(column, schema[column]) for column in (ITEM, ENTITY)}
    faults = [
        Fault(f"blank {column}", pl.col(column).is_null(), f"fill in every {column}, or remove the row")
        for column in values
    ]
    if known_items is not None:
        claims = table.frame.select(**values).drop_nulls().unique().group_by(ENTITY).len()
        with reading(table.name):
            contested = claims.filter(pl.col("len") > 1).collect(engine="streaming")[ENTITY]
        known = pl.col(ITEM).is_in(known_items.implode())
        free = pl.col(ENTITY).is_in(entities.implode()) & ~pl.col(ENTITY).is_in(contested.implode())
        remedy = "remove the link, or add the item to the table of [items]"
        faults.append(Fault("link to an item that does not exist", ~known & ~free, remedy))
    alike = pl.struct(*(value.alias(column) for column, value in values.items()))
    sifted = sift("knowledge.links", table, values, faults, findings, config.tolerance(), alike=alike)
    links = sifted.frame.select(*LINKS_SCHEMA).collect(engine="streaming")
    if known_items is None or len(findings.problems) > before:
        return None
    cold = links.filter(~pl.col(ITEM).is_in(known_items.implode()))[ITEM].unique(maintain_order=True)
    return Links(links, cold)
