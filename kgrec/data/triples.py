"""Knowledge: triples from tables, RDF and the columns of item tables, with names for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from kgrec.columns import ENTITY, HEAD, LABEL, LABELS_SCHEMA, PART, PART_TYPE, RELATION, SOURCE, TAIL, TRAIN
from kgrec.columns import TRIPLES_SCHEMA as PLAIN_SCHEMA
from kgrec.data.checks import Fault, Findings, Tolerance, sift
from kgrec.data.rdf import GRAPH, is_rdf, read_rdf
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
from kgrec.data.values import check_ids, find_column, id_text, part_of

HEAD_IS_ITEM: Final = "head_is_item"
TOLERATED_KEY: Final = "knowledge.tolerated"


class RelationColumn(BaseModel):
    """How the cells of a column become triples."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    separator: str | None = Field(
        None, description="text between the values of a cell; empty: any whitespace; unset: the cell is one value"
    )


class KnowledgeTable(TableSource):
    """Triples from the columns of a table whose rows are items."""

    id: str = Field("item", description="column of item ids")
    relations: dict[str, RelationColumn] = Field(description="columns to turn into relations of the same name")


class KnowledgeConfig(BaseModel):
    """The knowledge graph."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    triples: tuple[str, ...] = Field(
        (), description="files or globs: head, relation, tail tables (parquet csv tsv) or RDF (.nt .ttl .nq, gz too)"
    )
    links: str | None = Field(
        None, description="table with the columns item, entity; unset: an item's id is its entity's id"
    )
    labels: str | None = Field(None, description="table with the columns entity, label: names for people")
    tables: tuple[KnowledgeTable, ...] = Field((), description="tables whose columns become triples of their items")
    validation: float = Field(0.025, ge=0.0, lt=1.0, description="share of the triples held out for choosing, 0-1")
    test: float = Field(0.05, ge=0.0, lt=1.0, description="share of the triples held out for testing, 0-1")
    tolerated: float = Field(
        0.0, ge=0.0, le=1.0, description="share of the rows of one input that may be bad and left out, 0-1"
    )

    def tolerance(self) -> Tolerance:
        """Return how many of the rows of one knowledge input may be bad."""
        return Tolerance(self.tolerated, TOLERATED_KEY)


@dataclass
class Knowledge:
    """The graph that was read, source by source.

    triples: `TRIPLES_SCHEMA`, `head_is_item`, `part` where a split column was asked for. labels: `LABELS_SCHEMA`.
    """

    triples: list[pl.DataFrame] = field(default_factory=list)
    labels: list[pl.DataFrame] = field(default_factory=list)
    attributes: int = 0
    blank_cells: int = 0
    has_parts: bool = False

    def distinct(self) -> tuple[pl.DataFrame, int]:
        """Return every triple once, in the order of the sources, and how many came again from a later source."""
        every = pl.concat([_no_triples(self.has_parts), *self._aligned()])
        once = every.unique([HEAD, RELATION, TAIL, HEAD_IS_ITEM], keep="first", maintain_order=True)
        return once, every.height - once.height

    def distinct_labels(self) -> pl.DataFrame:
        """Return one label an entity: that of the earliest source."""
        every = pl.concat([pl.DataFrame(schema=LABELS_SCHEMA), *self.labels])
        return every.unique(ENTITY, keep="first", maintain_order=True)

    def _aligned(self) -> Iterable[pl.DataFrame]:
        columns = _no_triples(self.has_parts).columns
        for frame in self.triples:
            whole = frame if PART in frame.columns else frame.with_columns(pl.lit(TRAIN, PART_TYPE).alias(PART))
            yield whole.select(columns)


def _no_triples(has_parts: bool) -> pl.DataFrame:
    parts = {PART: PART_TYPE} if has_parts else {}
    return pl.DataFrame(schema={**PLAIN_SCHEMA, HEAD_IS_ITEM: pl.Boolean(), **parts})


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
                    table = _rdf_table(file, base, knowledge)
                    name = f"knowledge.triples[{at}] {table.name}"
                    _add_triples(name, table, config, findings, knowledge, None)
    for at, source in enumerate(config.tables):
        with findings.collecting():
            _add_cells(f"knowledge.tables[{at}]", source, config, base, scratch, findings, knowledge)
    return knowledge


def _rdf_table(file: Path, base: Path, knowledge: Knowledge) -> Table:
    name = shown_name(file, base)
    found = read_rdf(file, name)
    knowledge.labels.append(found.labels)
    knowledge.attributes += found.attributes
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
    if split_column is not None and split_column in schema:
        knowledge.has_parts = True
        values[PART] = part_of(split_column, schema[split_column])
        remedy = "write train, validation (valid, val, dev) or test"
        faults.append(Fault("unknown split value", pl.col(PART).is_null(), remedy))
    sifted = sift(name, table, values, faults, findings, config.tolerance(), alike=alike)
    rows = sifted.frame.select(
        *ends,
        pl.col(SOURCE_OF_ROW).alias(SOURCE),
        pl.lit(False).alias(HEAD_IS_ITEM),
        *([PART] if PART in values else []),
    )
    knowledge.triples.append(rows.collect(engine="streaming"))


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
    for column in source.relations:
        find_column(table, f"{name}.relations", column, [], findings)
    if len(findings.problems) > before or not check_ids(table, [source.id], findings):
        return
    head = id_text(source.id, table.schema()[source.id])
    cells = {f"cell {column}": pl.col(column) for column in source.relations}
    faults = [Fault("blank item", pl.col(HEAD).is_null(), f"give every row an id in the column {source.id!r}")]
    sifted = sift(name, table, {HEAD: head, **cells}, faults, findings, config.tolerance())
    rows = sifted.frame.collect(engine="streaming")
    for column, how in source.relations.items():
        found = _cell_values(rows, f"cell {column}", how.separator)
        knowledge.blank_cells += rows.height - found.filter(HEAD_IS_ITEM).height
        tail = pl.concat_str(pl.lit(f"{column}:"), pl.col(LABEL))
        triples = found.select(
            HEAD, pl.lit(column).alias(RELATION), tail.alias(TAIL), SOURCE, pl.lit(True).alias(HEAD_IS_ITEM)
        )
        knowledge.triples.append(triples)
        knowledge.labels.append(found.select(tail.alias(ENTITY), LABEL))


def _cell_values(rows: pl.DataFrame, cell: str, separator: str | None) -> pl.DataFrame:
    """(head, label, source, head_is_item) of each value; `head_is_item` is true for the first value of a cell."""
    dtype = rows.schema[cell]
    lists = rows.with_row_index("at").select("at", HEAD, pl.col(SOURCE_OF_ROW).alias(SOURCE), pl.col(cell).alias(LABEL))
    if isinstance(dtype, pl.List | pl.Array):
        lists = lists.explode(LABEL, empty_as_null=True)
    kind = lists.schema[LABEL]
    text = pl.col(LABEL).cast(pl.String)
    if kind.is_float():
        whole = (pl.col(LABEL) % 1 == 0) & (pl.col(LABEL).abs() < 2.0**53)
        number = pl.when(whole).then(pl.col(LABEL).cast(pl.Int64, strict=False).cast(pl.String)).otherwise(text)
        text = pl.when(pl.col(LABEL).is_not_nan()).then(number)
    lists = lists.with_columns(text)
    if separator is not None:
        words = pl.col(LABEL).str.extract_all(r"\S+") if separator == "" else pl.col(LABEL).str.split(separator)
        lists = lists.with_columns(words).explode(LABEL, empty_as_null=True)
    values = lists.with_columns(pl.col(LABEL).str.strip_chars()).filter(pl.col(LABEL).fill_null("") != "")
    return values.with_columns(pl.col("at").is_first_distinct().alias(HEAD_IS_ITEM))
