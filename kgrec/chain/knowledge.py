"""The stage `graph`: from ingested triples to a graph over the items' vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import polars as pl

from kgrec import columns as c
from kgrec.artifacts import Artifact
from kgrec.chain.completing import accepted_ids, with_accepted
from kgrec.chain.context import Run
from kgrec.chain.noise import calm
from kgrec.chain.prepare import CATALOGUE, EVENTS, OF_THE_GRAPH, known_vocabulary
from kgrec.data.knowledge import KnowledgeConfig
from kgrec.data.vocabulary import Vocabulary
from kgrec.errors import InputError, Problem
from kgrec.graph.binning import bin_numbers
from kgrec.graph.knowledge_graph import KnowledgeGraph, Named, build_graph
from kgrec.graph.leaks import LeaksConfig, find_leaks, leak_facts
from kgrec.graph.mapping import Known
from kgrec.graph.merging import conflict_facts, merge_same, once, settle_conflicts
from kgrec.graph.names import all_prefixes, long_name, relation_words
from kgrec.graph.parts import Ends, assign_triples, keep_in_train
from kgrec.graph.relations import describe_relations, merge_inverses
from kgrec.graph.review import ACCEPTED
from kgrec.seeds import numpy_generator
from kgrec.serving.package import ENTITIES, ITEMS, RELATIONS

REPORT: Final = "relations.parquet"
CONFLICTS: Final = "conflicts.parquet"
DUPLICATES: Final = "duplicates.parquet"


def graph(run: Run, ingested: Artifact, log: Artifact) -> Artifact:
    """Build the graph over the items' vocabulary; entities and relations that a promoted version knows keep rows."""
    config = run.config.knowledge or KnowledgeConfig(validation=0.0, test=0.0)

    def make(out: Path) -> dict[str, Any]:
        built = _build(run, config, ingested, log, out)
        built.entities.save(out / ENTITIES)
        built.relations.save(out / RELATIONS)
        built.triples.write_parquet(out / "triples.parquet", compression="lz4", statistics=False)  # always read whole
        built.nodes.write_parquet(out / "nodes.parquet")
        built.relations_report.write_parquet(out / REPORT)
        built.duplicates.write_parquet(out / DUPLICATES)
        return built.facts

    settings = {"knowledge": config.model_dump(mode="json", include=set(OF_THE_GRAPH)), "seed": run.config.seed,
                "name": run.config.name, "links": _has_links(config)}  # fmt: skip
    if accepted := accepted_ids(run.workspace, run.config.name):
        settings["accepted"] = accepted
    return run.stage("graph", {"ingest": ingested.digest, "split": log.digest}, settings, make)


def _has_links(config: KnowledgeConfig) -> bool:
    return config.links is not None or config.linking is not None


def _build(run: Run, config: KnowledgeConfig, ingested: Artifact, log: Artifact, out: Path) -> KnowledgeGraph:
    items, events = Vocabulary.load(log.file(ITEMS)), _timed_items(log)
    prefixes = all_prefixes(dict(ingested.facts.get("prefixes", {})) | config.prefixes)
    triples, labels = (pl.read_parquet(ingested.file(f"{name}.parquet")) for name in ("triples", "labels"))
    links = pl.read_parquet(ingested.file("links.parquet")) if _has_links(config) else None
    numbers = pl.read_parquet(ingested.file("numbers.parquet"))
    if numbers.height:
        ends = _ends(events)
        binned, bin_labels = bin_numbers(
            numbers, _trained_ids(events, items, links), None if ends is None else ends.train
        )
        parts = [pl.lit(c.TRAIN, c.PART_TYPE).alias(c.PART)] if c.PART in triples.columns else []
        triples = pl.concat([triples, binned.with_columns(parts)])
        triples = once(triples, [c.HEAD, c.RELATION, c.TAIL, c.HEAD_IS_ITEM])
        labels = pl.concat([labels, bin_labels.select(labels.columns)]).unique(
            c.ENTITY, keep="first", maintain_order=True
        )
    merging = config.merging
    same_as = [long_name(name, prefixes) for name in merging.same_as]
    triples, links, labels, gone = merge_same(triples, links, labels, [*same_as, *merging.same_as])
    functional = [*merging.functional, *(long_name(name, prefixes) for name in merging.functional)]
    triples, conflicts = settle_conflicts(triples, functional, merging.conflicts)
    conflicts.write_parquet(out / CONFLICTS)
    triples, from_people = with_accepted(run.workspace, run.config.name, triples, links)

    def refine(rows: pl.DataFrame, relations: Vocabulary) -> tuple[pl.DataFrame, dict[str, Any]]:
        facts: dict[str, Any] = {"ids_merged_by_same_as": gone, **conflict_facts(conflicts), **from_people}
        if merging.inverses == "merge":
            report = describe_relations(rows, len(items), merging.agreement)
            merged = merge_inverses(rows, report, merging.agreement)
            facts["triples_merged_with_their_inverse"] = rows.height - merged.height
            rows = merged
        if events is None:
            return rows, facts
        rows, leaks = _guard(config.leaks, rows, relations.entries.to_list(), events, len(items), run)
        return rows, facts | leaks

    def assign(rows: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, Any]]:
        held_out, seed = (config.validation, config.test), run.config.seed
        parted = assign_triples(rows, held_out, _ends(events), lambda: numpy_generator(seed, "triples"))
        parted = keep_in_train(parted, ACCEPTED)
        return calm(parted, config.noise, events, len(items), seed)

    return build_graph(
        triples,
        links,
        Named(labels, pl.read_parquet(log.file(CATALOGUE)).select(c.ITEM, c.TITLE), prefixes),
        Known(items, known_vocabulary(run, ENTITIES), known_vocabulary(run, RELATIONS)),
        assign,
        refine,
        merging.agreement,
    )


def _guard(
    config: LeaksConfig, rows: pl.DataFrame, relations: list[str], events: pl.DataFrame, num_items: int, run: Run
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Refuse, leave out or report relations that restate the log."""
    generator = numpy_generator(run.config.seed, "leaks")
    found = find_leaks(rows, relations, events, num_items, config.likeness, generator)
    found = [
        one
        for one in found
        if not {relations[one.relation_row], relation_words(relations[one.relation_row])} & set(config.allowed)
    ]
    certain = [one for one in found if one.certain]
    if certain and config.action == "refuse":
        remedy = (
            'leave it out (knowledge.leaks.action = "drop"), give each triple the time from which it was '
            "known (known_at), or, where it is no leak, name it in knowledge.leaks.allowed"
        )
        raise InputError([
            Problem(f"relation {relations[one.relation_row]}", f"restates the log, test included: {one.why}", remedy)
            for one in certain
        ])  # fmt: skip
    if config.action == "drop":
        rows = rows.filter(~pl.col(c.RELATION_ROW).is_in([one.relation_row for one in certain]))
    return rows, leak_facts(found, relations)


def _timed_items(log: Artifact) -> pl.DataFrame | None:
    if not log.has(EVENTS):
        return None
    return pl.read_parquet(log.file(EVENTS), columns=[c.USER_ROW, c.ITEM_ROW, c.TIME, c.PART])


def _ends(events: pl.DataFrame | None) -> Ends | None:
    """The last instants of train and validation; None where the log has no time."""
    if events is None or events[c.TIME].null_count() == events.height:
        return None
    last = {part: events.filter(pl.col(c.PART) == part)[c.TIME].max() for part in (c.TRAIN, c.VALIDATION)}
    train = last[c.TRAIN]
    return None if train is None else Ends(train, last[c.VALIDATION] or train)  # type: ignore[arg-type]


def _trained_ids(events: pl.DataFrame | None, items: Vocabulary, links: pl.DataFrame | None) -> pl.Series | None:
    """Ids of the items that train names, and of their entities; None without a log."""
    if events is None:
        return None
    rows = events.filter(pl.col(c.PART) == c.TRAIN)[c.ITEM_ROW].unique().sort()
    ids = items.entries.gather(rows).alias(c.ID)
    if links is None:
        return ids
    linked = links.filter(pl.col(c.ITEM).is_in(ids.implode()))[c.ENTITY]
    return pl.concat([ids, linked.alias(c.ID)])
