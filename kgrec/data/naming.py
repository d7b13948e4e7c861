"""Links by name: what linking needs of the tables that were read, and people's verdicts on what it found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import polars as pl

from kgrec.columns import ENTITY, HEAD, HEAD_IS_ITEM, ITEM, LABEL, LINKS_SCHEMA, RELATION, TAIL, TITLE, VALUE
from kgrec.data.checks import Fault, Findings, sift
from kgrec.data.knowledge import Knowledge, KnowledgeConfig
from kgrec.data.links import Links, entities_of
from kgrec.data.sources import TableSource, materialise
from kgrec.data.values import check_ids, find_column, id_text
from kgrec.errors import Problem
from kgrec.graph.linking import ACCEPT, METHOD, REJECT, SURE, VERDICT, LinkingConfig, find_links
from kgrec.graph.names import all_prefixes, long_name
from kgrec.graph.titles import first_year

_YEAR: Final = "year"


def link_by_name(
    config: KnowledgeConfig,
    linking: LinkingConfig,
    graph: Knowledge,
    triples: pl.DataFrame,
    item_table: pl.LazyFrame | None,
    base: Path,
    findings: Findings,
) -> tuple[Links, pl.DataFrame] | None:
    """Return the sure links, and all that were found with scores and reasons; None when faults are in the findings."""
    before = len(findings.problems)
    items = _titled(linking, item_table, findings)
    verdicts = {} if linking.verdicts is None else _verdicts(config, linking.verdicts, base, findings)
    if len(findings.problems) > before or items is None or verdicts is None:
        return None
    prefixes = all_prefixes(graph.prefixes | config.prefixes)
    found = find_links(items, _labelled(linking, graph, triples, prefixes), linking, verdicts)
    sure = found.filter(pl.col(VERDICT) == SURE).select(*LINKS_SCHEMA)
    return Links(sure, pl.Series(ITEM, [], pl.String)), found


def link_facts(found: pl.DataFrame, num_items: int) -> dict[str, Any]:
    """Return counts for people: sure links by method, items whose links wait for a person, items with none."""
    sure = found.filter(pl.col(VERDICT) == SURE)
    waiting = found.filter(~pl.col(ITEM).is_in(sure[ITEM].implode()))[ITEM].n_unique()
    by_method = sure[METHOD].value_counts(name="count").sort(METHOD)
    return {
        "sure": sure.height, "by_method": dict(by_method.iter_rows()), "items_to_review": waiting,
        "items_without_candidate": num_items - sure[ITEM].n_unique() - waiting,
    }  # fmt: skip


def _titled(linking: LinkingConfig, item_table: pl.LazyFrame | None, findings: Findings) -> pl.DataFrame | None:
    where = "knowledge.linking"
    if item_table is None:
        remedy = "add [items] with a table that has a title a row, or give knowledge.links"
        findings.problems.append(Problem(where, "links by name need the items' titles", remedy))
        return None
    columns = item_table.collect_schema().names()
    if linking.item_year is not None and linking.item_year not in columns:
        remedy = f"name it in items.features; there: {', '.join(columns[2:]) or 'none'}"
        findings.problems.append(Problem(f"{where}.item_year", f"no feature is called {linking.item_year!r}", remedy))
        return None
    year = pl.lit(None, pl.Int64) if linking.item_year is None else _year(pl.col(linking.item_year).cast(pl.String))
    return item_table.select(ITEM, TITLE, year.alias(_YEAR)).collect()


def _year(text: pl.Expr) -> pl.Expr:
    return text.map_elements(first_year, return_dtype=pl.Int64)


def _labelled(
    linking: LinkingConfig, graph: Knowledge, triples: pl.DataFrame, prefixes: Mapping[str, str]
) -> pl.DataFrame:
    """(entity, label, year) of the entities that an item may be, in the order of the graph."""
    plain = triples.filter(~pl.col(HEAD_IS_ITEM))
    labels = graph.distinct_labels()
    entities = entities_of(plain).to_frame().join(labels, on=ENTITY, maintain_order="left")
    if linking.type_relation is not None:
        kinds = plain.filter(pl.col(RELATION) == long_name(linking.type_relation, prefixes))
        wanted = [*linking.types, *(long_name(name, prefixes) for name in linking.types)]
        by_label = labels.filter(pl.col(LABEL).is_in(linking.types))[ENTITY]
        right = kinds.filter(pl.col(TAIL).is_in(wanted) | pl.col(TAIL).is_in(by_label.implode()))[HEAD]
        wrong = kinds.filter(~pl.col(HEAD).is_in(right.implode()))[HEAD]
        entities = entities.filter(~pl.col(ENTITY).is_in(wrong.implode()))
    years = pl.DataFrame(schema={ENTITY: pl.String, _YEAR: pl.Int64})
    if linking.entity_year is not None:
        relation = long_name(linking.entity_year, prefixes)
        said = plain.filter(pl.col(RELATION) == relation).select(pl.col(HEAD).alias(ENTITY), pl.col(TAIL).alias(VALUE))
        named = labels.rename({ENTITY: VALUE, LABEL: "text"})
        text = said.join(named, on=VALUE, how="left", maintain_order="left").select(ENTITY, pl.coalesce("text", VALUE))
        literal = (
            graph.all_attributes().filter(pl.col(RELATION) == relation).select(ENTITY, pl.col(VALUE).alias("text"))
        )
        years = pl.concat([text, literal]).select(ENTITY, _year(pl.col("text")).alias(_YEAR)).drop_nulls()
        years = years.unique(ENTITY, keep="first", maintain_order=True)
    return entities.join(years, on=ENTITY, how="left", maintain_order="left")


def _verdicts(
    config: KnowledgeConfig, path: str, base: Path, findings: Findings
) -> dict[tuple[str, str], str] | None:  # fmt: skip
    """People's verdicts by (item, entity); rows without a verdict say nothing, other words are bad rows."""
    table = materialise(TableSource(path=path), base, findings.scratch)
    before = len(findings.problems)
    for column in (ITEM, ENTITY, VERDICT):
        find_column(table, "the header (item, entity, verdict)", column, [], findings)
    if len(findings.problems) > before or not check_ids(table, [ITEM, ENTITY], findings):
        return None
    schema = table.schema()
    word = pl.col(VERDICT).cast(pl.String).str.strip_chars().str.to_lowercase().fill_null("")
    values = {ITEM: id_text(ITEM, schema[ITEM]), ENTITY: id_text(ENTITY, schema[ENTITY]), VERDICT: word}
    faults = [
        Fault(f"blank {ITEM} or {ENTITY}", pl.any_horizontal(pl.col(ITEM, ENTITY).is_null()), "fill in both"),
        Fault("unknown verdict", ~pl.col(VERDICT).is_in([ACCEPT, REJECT, ""]), "write accept, reject or nothing"),
    ]
    alike = pl.struct(values[ITEM].alias(ITEM), values[ENTITY].alias(ENTITY))
    sifted = sift(
        "knowledge.linking.verdicts", table, values, faults, findings, config.tolerance(), alike=alike,
        alike_reason="repeated pair",
    )  # fmt: skip
    rows = sifted.frame.select(ITEM, ENTITY, VERDICT).filter(pl.col(VERDICT) != "").collect()
    return {(item, entity): verdict for item, entity, verdict in rows.iter_rows()}
