"""Knowledge: triples from tables, RDF and the columns of item tables, with names for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from kgrec.columns import (
    ENTITY,
    HEAD,
    HEAD_IS_ITEM,
    KNOWN_AT,
    LABEL,
    LABELS_SCHEMA,
    PART,
    RELATION,
    SOURCE,
    TAIL,
    TIME_TYPE,
    VALUE,
    WEIGHT,
)
from kgrec.data.cells import KnowledgeTable, RelationColumn, cell_triples
from kgrec.data.checks import Fault, Findings, sift
from kgrec.data.knowledge import TOLERATED_KEY, Knowledge, KnowledgeConfig
from kgrec.data.quads import GRAPH
from kgrec.data.rdf import is_rdf, read_rdf
from kgrec.data.sources import (
    LINE_OF_ROW,
    SOURCE_OF_ROW,
    Table,
    TableSource,
    digest_of_files,
    find_files,
    materialise,
    shown_name,
)
from kgrec.data.values import check_ids, find_column, id_text, is_blank, number_of, part_of, time_of
from kgrec.errors import Problem
from kgrec.graph.names import all_prefixes, long_name


def read_knowledge(
    config: KnowledgeConfig, base: Path, scratch: Path, findings: Findings, split_column: str | None = None
) -> Knowledge:
    """Read triples and labels; faults, also of whole files, go to `findings` and leave that source out."""
    knowledge = Knowledge()
    if config.labels is not None:
        with findings.collecting():
            knowledge.labels.append(_read_labels(config, config.labels, base, scratch, findings))
    for at, path in enumerate(config.triples):
        with findings.collecting():
            files = find_files(path, base)
            if not any(is_rdf(file.name) for file in files):
                table = materialise(TableSource(path=path), base, scratch)
                _add_triples(f"knowledge.triples[{at}]", table, config, findings, knowledge, split_column)
                continue
            for file in files:
                with findings.collecting():
                    table = _rdf_table(file, base, config, knowledge)
                    name = f"knowledge.triples[{at}] {table.name}"
                    _add_triples(name, table, config, findings, knowledge, None)
    for at, source in enumerate(config.tables):
        with findings.collecting():
            _add_cells(f"knowledge.tables[{at}]", source, config, base, scratch, findings, knowledge)
    _add_attributes(config, findings, knowledge)
    return knowledge


def _rdf_table(file: Path, base: Path, config: KnowledgeConfig, knowledge: Knowledge) -> Table:
    name = shown_name(file, base)
    found = read_rdf(file, name, config.languages)
    knowledge.labels.append(found.labels)
    knowledge.attributes.append(found.attributes)
    knowledge.prefixes |= found.prefixes
    knowledge.counts["rdf_statements"] += found.statements
    knowledge.counts["rdf_label_statements"] += found.label_statements
    knowledge.counts["attributes_in_other_languages"] += found.other_languages
    knowledge.counts["blank_literals"] += found.blank_literals
    frame = found.triples.lazy().with_columns(
        pl.lit(None, pl.Int64).alias(LINE_OF_ROW), pl.lit(name).alias(SOURCE_OF_ROW)
    )
    return Table(name, frame, (name,), digest_of_files(str(file), base), is_text=False)


def _add_triples(
    name: str, table: Table, config: KnowledgeConfig, findings: Findings, knowledge: Knowledge, split_column: str | None
) -> None:
    before = len(findings.problems)
    ends = (HEAD, RELATION, TAIL)
    for column in ends:
        find_column(table, "the header (head, relation, tail)", column, [], findings)
    if len(findings.problems) > before or not check_ids(table, ends, findings):
        return
    schema = table.schema()
    values = {column: id_text(column, schema[column]) for column in ends}
    faults = [Fault(f"blank {column}", pl.col(column).is_null(), f"fill in every {column}") for column in ends]
    graph = [GRAPH] if is_rdf(table.name) else []
    alike = pl.struct(SOURCE_OF_ROW, *(values[column].alias(column) for column in ends), *graph)
    is_named = table.name.lower().removesuffix(".gz").endswith(".nq")
    values |= {GRAPH: pl.col(GRAPH)} if is_named else {}
    said, doubts = _weight_and_time(config, schema)
    values |= said
    faults += doubts
    if split_column is not None and split_column in schema:
        knowledge.has_parts = True
        values[PART] = part_of(split_column, schema[split_column])
        remedy = "write train, validation (valid, val, dev) or test"
        faults.append(Fault("unknown split value", pl.col(PART).is_null(), remedy))
    sifted = sift(name, table, values, faults, findings, config.tolerance(), alike=alike)
    rows = sifted.frame.select(
        *ends,
        _provenance(is_named=is_named).alias(SOURCE),
        pl.lit(False).alias(HEAD_IS_ITEM),
        pl.col(WEIGHT).cast(pl.Float32),
        pl.col(KNOWN_AT).cast(TIME_TYPE),
        *([PART] if PART in values else []),
    )
    knowledge.triples.append(rows.collect(engine="streaming"))


def _provenance(*, is_named: bool) -> pl.Expr:
    """The file that says a triple, and the named graph of N-Quads behind it; a blank graph's name does not last."""
    file, named = pl.col(SOURCE_OF_ROW), pl.col(GRAPH).str.starts_with("<")
    return pl.when(named).then(pl.format("{} {}", file, GRAPH)).otherwise(file) if is_named else file


def _weight_and_time(
    config: KnowledgeConfig, schema: Mapping[str, pl.DataType]
) -> tuple[dict[str, pl.Expr], list[Fault]]:
    """Weight and instant of each triple, and what can be wrong with them; blank cells say nothing."""
    values, faults = {WEIGHT: pl.lit(1.0, pl.Float32), KNOWN_AT: pl.lit(None, TIME_TYPE)}, []
    if config.weight in schema:
        number, blank = number_of(config.weight, schema[config.weight]), is_blank(config.weight, schema[config.weight])
        values[WEIGHT] = pl.when(blank).then(1.0).otherwise(pl.when(number > 0).then(number))
        faults.append(Fault("weight that is no number above 0", pl.col(WEIGHT).is_null(), "write a number above 0"))
    if config.known_at in schema:
        dtype = schema[config.known_at]
        values[KNOWN_AT] = time_of(config.known_at, dtype)
        values["time given"] = ~is_blank(config.known_at, dtype)
        remedy = "write times as numbers since 1970 or as ISO 8601"
        faults.append(Fault(f"unreadable {KNOWN_AT}", pl.col(KNOWN_AT).is_null() & pl.col("time given"), remedy))
    return values, faults


def _read_labels(config: KnowledgeConfig, path: str, base: Path, scratch: Path, findings: Findings) -> pl.DataFrame:
    table = materialise(TableSource(path=path), base, scratch)
    before = len(findings.problems)
    for column in (ENTITY, LABEL):
        find_column(table, "the header (entity, label)", column, [], findings)
    if len(findings.problems) > before or not check_ids(table, [ENTITY], findings):
        return pl.DataFrame(schema=LABELS_SCHEMA)
    schema = table.schema()
    text = pl.col(LABEL).cast(pl.String).str.strip_chars()
    values = {ENTITY: id_text(ENTITY, schema[ENTITY]), LABEL: pl.when(text != "").then(text)}
    faults = [Fault(f"blank {c}", pl.col(c).is_null(), f"fill in every {c}, or remove the row") for c in values]
    sifted = sift("knowledge.labels", table, values, faults, findings, config.tolerance())
    return sifted.frame.select(*values).collect(engine="streaming")


def _add_cells(
    name: str,
    source: KnowledgeTable,
    config: KnowledgeConfig,
    base: Path,
    scratch: Path,
    findings: Findings,
    knowledge: Knowledge,
) -> None:
    table = materialise(source, base, scratch)
    before = len(findings.problems)
    find_column(table, f"{name}.id", source.id, [], findings)
    find_column(table, f"{name}.known_at", source.known_at, [], findings)
    for column in source.relations:
        find_column(table, f"{name}.relations", column, [], findings)
    if len(findings.problems) > before or not check_ids(table, [source.id], findings):
        return
    schema = table.schema()
    values = {HEAD: id_text(source.id, schema[source.id]), KNOWN_AT: pl.lit(None, TIME_TYPE)}
    faults = [Fault("blank item", pl.col(HEAD).is_null(), f"give every row an id in the column {source.id!r}")]
    if source.known_at is not None:
        values[KNOWN_AT] = time_of(source.known_at, schema[source.known_at])
        faults.append(Fault(f"unreadable {KNOWN_AT}", pl.col(KNOWN_AT).is_null(), "give every row a time"))
    values |= {f"cell {column}": pl.col(column) for column in source.relations}
    sifted = sift(name, table, values, faults, findings, config.tolerance())
    rows = sifted.frame.collect(engine="streaming").rename({SOURCE_OF_ROW: SOURCE})
    rows = rows.with_columns(pl.lit(True).alias(HEAD_IS_ITEM))
    for column, how in source.relations.items():
        _keep_cells(f"{name}.relations.{column}", rows, f"cell {column}", column, how, config, findings, knowledge)


def _add_attributes(config: KnowledgeConfig, findings: Findings, knowledge: Knowledge) -> None:
    """Turn the literals that the config names into triples of their entities."""
    literals, prefixes = knowledge.all_attributes(), all_prefixes(knowledge.prefixes | config.prefixes)
    for name, how in config.attributes.items():
        rows = literals.filter(pl.col(RELATION) == long_name(name, prefixes)).select(
            pl.col(ENTITY).alias(HEAD), SOURCE, VALUE,
            pl.lit(None, TIME_TYPE).alias(KNOWN_AT), pl.lit(False).alias(HEAD_IS_ITEM),
        )  # fmt: skip
        where = f"knowledge.attributes.{name}"
        if rows.is_empty() and not findings.problems:
            known = literals[RELATION].unique(maintain_order=True)
            remedy = f"the RDF files have: {', '.join(known[:8]) or 'no literals'}"
            findings.problems.append(Problem(where, "no literal of an RDF file has this property", remedy))
        _keep_cells(where, rows, VALUE, name, how, config, findings, knowledge)


def _keep_cells(
    where: str, rows: pl.DataFrame, cell: str, relation: str, how: RelationColumn, config: KnowledgeConfig,
    findings: Findings, knowledge: Knowledge,
) -> None:  # fmt: skip
    found = cell_triples(rows, cell, relation, how)
    knowledge.triples.append(found.triples)
    knowledge.labels.append(found.labels)
    knowledge.numbers.append(found.numbers)
    knowledge.counts["blank_cells"] += found.blank
    knowledge.counts["unreadable_cells"] += found.unreadable
    if found.unreadable > config.tolerated * rows.height:
        kind = "number" if how.bins is not None else "date"
        remedy = f"correct them, or leave the cells out with {TOLERATED_KEY}"
        problem = Problem(where, f"a value that is no {kind}", remedy, found.unreadable, found.example)
        findings.problems.append(problem)
