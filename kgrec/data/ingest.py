"""Ingest: every input read, checked and written as canonical tables, or refused with all its problems at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import polars as pl

from kgrec.columns import (
    ENTITY,
    EVENTS_SCHEMA,
    HEAD,
    HEAD_IS_ITEM,
    ITEM,
    LABELS_SCHEMA,
    LINKS_SCHEMA,
    TIME,
    TITLE,
    USER,
)
from kgrec.data.checks import Findings
from kgrec.data.contracts import (
    EventsContract,
    ExposuresContract,
    ItemsContract,
    LabelsContract,
    LinksContract,
    TriplesContract,
    UsersContract,
    write_and_tell,
    write_table,
)
from kgrec.data.interactions import Log, read_interactions
from kgrec.data.knowledge import Knowledge, KnowledgeConfig
from kgrec.data.links import Links, entities_of, read_links
from kgrec.data.naming import link_by_name, link_facts
from kgrec.data.partitions import ParseAll, parse_in_turn
from kgrec.data.roles import InteractionsConfig
from kgrec.data.side_tables import ItemsConfig, UsersConfig, read_items, read_users
from kgrec.data.sources import digest_of, digest_of_files
from kgrec.data.triples import read_knowledge
from kgrec.errors import Problem
from kgrec.resources import DEFAULT, ResourcesConfig

EVENTS_FILE: Final = "events.parquet"
EXPOSURES_FILE: Final = "exposures.parquet"
USERS_FILE: Final = "users.parquet"
ITEMS_FILE: Final = "items.parquet"
TRIPLES_FILE: Final = "triples.parquet"
LINKS_FILE: Final = "links.parquet"
LABELS_FILE: Final = "labels.parquet"
NUMBERS_FILE: Final = "numbers.parquet"
FOUND_LINKS_FILE: Final = "found_links.parquet"
ATTRIBUTES_FILE: Final = "attributes.parquet"
QUARANTINE_FILE: Final = "quarantine.parquet"


def ingest(
    interactions: InteractionsConfig | None,
    users: UsersConfig | None,
    items: ItemsConfig | None,
    knowledge: KnowledgeConfig | None,
    *,
    base: Path,
    out: Path,
    quarantine: Path,
    scratch: Path,
    now: datetime,
    split_column: str | None,
    progress: Callable[[str], None],
    resources: ResourcesConfig = DEFAULT,
    parse_all: ParseAll = parse_in_turn,
) -> dict[str, Any]:
    """Read all inputs and write the canonical tables into the folder `out`; return facts about them.

    `base` is where relative paths start, `scratch` a folder for what is needed on the way, `now` (aware) the instant
    from which a day later is the future, `split_column` the column that says train, validation or test, `resources`
    how much of the log may be in memory at a time, `parse_all` what parses the files of a log in several. Writes
    events, exposures (where there are impressions), users, items, triples, links, labels and quarantine (.parquet).
    Raises InputError with the problems of all inputs; the bad rows are then in the file `quarantine`.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    findings = Findings(scratch, quarantine, resources, parse_all)
    log = _read_log(interactions, base, findings, now, split_column, progress)
    user_table, item_table = _read_side_tables(users, items, base, findings, progress)
    judged = not findings.problems
    graph = Knowledge()
    if knowledge is not None:
        progress("reading the knowledge graph")
        graph = read_knowledge(knowledge, base, scratch, findings, split_column)
        _check_split(interactions, knowledge, graph, split_column, findings)
    triples, repeated = graph.distinct()
    numbers = graph.distinct_numbers()
    catalogue = _catalogue(log, item_table, triples, numbers)
    links = None
    if knowledge is not None and knowledge.links is not None:
        known = catalogue[ITEM] if judged and not findings.problems else None
        with findings.collecting():
            links = read_links(knowledge, knowledge.links, base, scratch, findings, known, entities_of(triples))
    found = None
    if knowledge is not None and knowledge.linking is not None and judged and not findings.problems:
        progress("linking items to entities by name")
        with findings.collecting():
            named = link_by_name(knowledge, knowledge.linking, graph, triples, item_table, base, findings)
            links, found = named or (None, None)
    findings.refuse_if_any()
    progress("writing the canonical tables")
    facts = _write_log(log, out) | {"users": _write_users(log, user_table, out)}
    facts |= _write_graph(knowledge, graph, triples, links, catalogue, item_table, out)
    if found is not None:
        found.write_parquet(out / FOUND_LINKS_FILE)
        facts["linking"] = link_facts(found, facts["items"])
    facts |= {"triples_repeated": repeated, **graph.counts}
    findings.write_quarantine(out / QUARANTINE_FILE)
    return facts | {
        "inputs": findings.inputs,
        "quarantined": findings.quarantined(),
        "left_out": dict(log.left_out) if log is not None else {},
        "digests": {name: found["digest"] for name, found in findings.inputs.items()},
    }


def _read_log(
    config: InteractionsConfig | None,
    base: Path,
    findings: Findings,
    now: datetime,
    split_column: str | None,
    progress: Callable[[str], None],
) -> Log | None:
    if config is None:
        return None
    progress(f"reading interactions from {config.name}")
    with findings.collecting():
        return read_interactions(config, base, findings.scratch, findings, now=now, split_column=split_column)
    return None  # the problems are in the findings


def _read_side_tables(
    users: UsersConfig | None,
    items: ItemsConfig | None,
    base: Path,
    findings: Findings,
    progress: Callable[[str], None],
) -> tuple[pl.LazyFrame | None, pl.LazyFrame | None]:
    user_table, item_table = None, None
    if users is not None:
        progress(f"reading users from {users.name}")
        with findings.collecting():
            user_table = read_users(users, base, findings.scratch, findings)
    if items is not None:
        progress(f"reading items from {items.name}")
        with findings.collecting():
            item_table = read_items(items, base, findings.scratch, findings)
    return user_table, item_table


def input_digests(
    interactions: InteractionsConfig | None,
    users: UsersConfig | None,
    items: ItemsConfig | None,
    knowledge: KnowledgeConfig | None,
    *,
    base: Path,
    scratch: Path,
) -> dict[str, str]:
    """Return a digest of the contents of each input, to know before an ingest whether it is needed.

    For SQL and Delta a fresh snapshot is taken into `scratch`, which an `ingest` with the same `scratch` reads.
    Raises InputError with the problems of all inputs that cannot be found or reached.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    findings = Findings(scratch, scratch / QUARANTINE_FILE)
    digests: dict[str, str] = {}
    sources = {"interactions": interactions, "users": users, "items": items}
    tables = {f"knowledge.tables[{at}]": t for at, t in enumerate(knowledge.tables)} if knowledge else {}
    for name, source in (sources | tables).items():
        if source is not None:
            with findings.collecting():
                digests[name] = digest_of(source, base, scratch)
    paths: dict[str, str | None] = {}
    if knowledge is not None:
        paths = {f"knowledge.triples[{at}]": path for at, path in enumerate(knowledge.triples)}
        paths |= {"knowledge.links": knowledge.links, "knowledge.labels": knowledge.labels}
        if knowledge.linking is not None:
            paths["knowledge.linking.verdicts"] = knowledge.linking.verdicts
    for name, path in paths.items():
        if path is not None:
            with findings.collecting():
                digests[name] = digest_of_files(path, base)
    findings.refuse_if_any()
    return digests


def _check_split(
    interactions: InteractionsConfig | None,
    knowledge: KnowledgeConfig,
    graph: Knowledge,
    split_column: str | None,
    findings: Findings,
) -> None:
    """Without a log, a split by column needs the column in the triples."""
    if interactions is None and split_column is not None and not graph.has_parts and not findings.problems:
        where, what = "split.column", f"no table of triples has the column {split_column!r}"
        remedy = "name the column that says train, validation or test, or choose another split.kind"
        findings.problems.append(Problem(where, what, remedy, 1, ", ".join(knowledge.triples) or "no triples"))


def _firsts(log: Log | None, column: str) -> pl.DataFrame:
    """The distinct ids of a log in the order of their first row."""
    if log is None:
        return pl.DataFrame(schema={column: pl.String})
    firsts = log.ids.select(column).unique(maintain_order=True).collect(engine="streaming")
    return firsts.select(pl.col(column).cast(pl.String))


def _catalogue(
    log: Log | None, item_table: pl.LazyFrame | None, triples: pl.DataFrame, numbers: pl.DataFrame
) -> pl.DataFrame:
    """The items of the log, of the item table and of knowledge tables, in this order, each once."""
    frames = [_firsts(log, ITEM)]
    if item_table is not None:
        frames.append(item_table.select(ITEM).collect())
    frames += [frame.filter(pl.col(HEAD_IS_ITEM)).select(pl.col(HEAD).alias(ITEM)) for frame in (triples, numbers)]
    return pl.concat(frames).unique(maintain_order=True)


def _write_log(log: Log | None, out: Path) -> dict[str, Any]:
    if log is None:
        return {"events": 0, "impressions": False, "has_time": False, "labels": [], "time_range": None}
    names = log.events.collect_schema().names()
    canonical = [pl.col(name).cast(dtype) for name, dtype in EVENTS_SCHEMA.items()]
    extra = [name for name in names if name not in EVENTS_SCHEMA]
    ends = {"first": pl.col(TIME).min(), "last": pl.col(TIME).max()}
    facts: dict[str, Any] = {
        "impressions": log.exposures is not None, "has_time": log.has_time, "labels": list(log.labels)
    }  # fmt: skip
    events = log.events.select(*canonical, *extra)
    facts["events"], *times = write_and_tell(events, out / EVENTS_FILE, EventsContract, **ends)
    if log.exposures is not None:
        told = write_and_tell(log.exposures, out / EXPOSURES_FILE, ExposuresContract, **ends)
        facts["exposures"], times = told[0], [*times, *told[1:]]
    known = [instant for instant in times if instant is not None]
    facts["time_range"] = [min(known).isoformat(), max(known).isoformat()] if log.has_time else None
    return facts


def _write_users(log: Log | None, table: pl.LazyFrame | None, out: Path) -> int:
    ids = _firsts(log, USER)
    if table is not None:
        ids = pl.concat([ids, table.select(USER).collect()]).unique(maintain_order=True)
    rows = ids.lazy()
    if table is not None:
        rows = rows.join(table, on=USER, how="left", maintain_order="left")
    return write_table(rows, out / USERS_FILE, UsersContract)


def _write_graph(
    config: KnowledgeConfig | None,
    graph: Knowledge,
    triples: pl.DataFrame,
    links: Links | None,
    catalogue: pl.DataFrame,
    item_table: pl.LazyFrame | None,
    out: Path,
) -> dict[str, Any]:
    """Write items, triples, links and labels. Without a table of links an item is its own entity."""
    cold = pl.Series(ITEM, [], pl.String) if links is None else links.cold
    every = pl.concat([catalogue, cold.to_frame()])
    rows = every.lazy().with_columns(pl.lit(None, pl.String).alias(TITLE))
    if item_table is not None:
        rows = every.lazy().join(item_table, on=ITEM, how="left", maintain_order="left")
    if links is not None:
        linked = links.links
    elif config is not None and config.links is None:
        linked = every.select(ITEM, pl.col(ITEM).alias(ENTITY))
    else:
        linked = pl.DataFrame(schema=LINKS_SCHEMA)
    labels = graph.distinct_labels().select(*LABELS_SCHEMA)
    numbers, attributes = graph.distinct_numbers(), graph.all_attributes()
    numbers.write_parquet(out / NUMBERS_FILE)
    attributes.write_parquet(out / ATTRIBUTES_FILE)
    return {
        "items": write_table(rows, out / ITEMS_FILE, ItemsContract),
        "cold_items": len(cold),
        "triples": write_table(triples.lazy(), out / TRIPLES_FILE, TriplesContract),
        "triples_have_parts": graph.has_parts,
        "links": write_table(linked.lazy(), out / LINKS_FILE, LinksContract),
        "links_given": links is not None,
        "numbers": numbers.height,
        "attributes": attributes.height,
        "attributes_repeated": sum(found.height for found in graph.attributes) - attributes.height,
        "prefixes": dict(graph.prefixes),
        "labels_of_entities": write_table(labels.lazy(), out / LABELS_FILE, LabelsContract),
    }
