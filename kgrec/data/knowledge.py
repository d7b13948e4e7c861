"""What a user says about the knowledge graph, and the graph as it was read, source by source."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from kgrec.columns import (
    ATTRIBUTES_SCHEMA,
    ENTITY,
    HEAD,
    HEAD_IS_ITEM,
    KNOWN_AT,
    LABELS_SCHEMA,
    NUMBERS_SCHEMA,
    PART,
    PART_TYPE,
    RELATION,
    TAIL,
    TRAIN,
    TRIPLES_SCHEMA,
    WEIGHT,
)
from kgrec.data.cells import KnowledgeTable, RelationColumn
from kgrec.data.checks import Tolerance
from kgrec.data.rdf import ENGLISH
from kgrec.graph.leaks import LeaksConfig
from kgrec.graph.linking import LinkingConfig
from kgrec.graph.merging import MergingConfig, once
from kgrec.graph.noise import NoiseConfig

TOLERATED_KEY: Final = "knowledge.tolerated"


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
    attributes: dict[str, RelationColumn] = Field(
        {}, description="literals of RDF to turn into relations: the property (an IRI, or with a prefix) and how"
    )
    languages: tuple[str, ...] = Field(
        ENGLISH,
        description='language tags of RDF literals, the most wanted first ("" is text without one); labels in others '
        "are used where there is no better, attributes in others are left out",
    )
    prefixes: dict[str, str] = Field(
        {}, description="prefixes that shorten IRIs for people, beside those of Turtle files and well-known ones"
    )
    weight: str = Field(
        WEIGHT, description="column of the tables of triples that says how much a triple counts, above 0; absent: 1"
    )
    known_at: str = Field(
        KNOWN_AT,
        description="column of the tables of triples that says when a triple could first be known; absent or blank: "
        "always. A triple known only after the end of train is no part of train",
    )
    linking: LinkingConfig | None = Field(None, description="find the links by title and label; goes without `links`")
    merging: MergingConfig = MergingConfig()
    noise: NoiseConfig = NoiseConfig()
    leaks: LeaksConfig = LeaksConfig()
    validation: float = Field(0.025, ge=0.0, lt=1.0, description="share of the triples held out for choosing, 0-1")
    test: float = Field(0.05, ge=0.0, lt=1.0, description="share of the triples held out for testing, 0-1")
    tolerated: float = Field(
        0.0, ge=0.0, le=1.0, description="share of the rows of one input that may be bad and left out, 0-1"
    )

    @model_validator(mode="after")
    def _one_way_to_links(self) -> KnowledgeConfig:
        if self.links is not None and self.linking is not None:
            raise ValueError("give either `links`, a table, or `linking`, how to find them")
        return self

    @model_validator(mode="after")
    def _one_way_to_cut(self) -> KnowledgeConfig:
        asked: dict[str, set[int]] = {}
        for column, how in ((name, how) for table in self.tables for name, how in table.relations.items()):
            if how.bins is not None:
                asked.setdefault(column, set()).add(how.bins)
        for relation, bins in asked.items():
            if len(bins) > 1:
                told = " and ".join(map(str, sorted(bins)))
                raise ValueError(f"two tables cut the relation `{relation}` into bins of {told}: give both one number")
        return self

    def tolerance(self) -> Tolerance:
        """Return how many of the rows of one knowledge input may be bad."""
        return Tolerance(self.tolerated, TOLERATED_KEY)


@dataclass
class Knowledge:
    """The graph that was read, source by source.

    counts: of the statements of RDF files each is a row of triples, a label statement, an attribute, an attribute in
    another language or a blank literal; none is dropped uncounted.

    triples: `TRIPLES_SCHEMA`, `part` where a split column was asked for. labels: `LABELS_SCHEMA`. numbers:
    `NUMBERS_SCHEMA`. attributes: `ATTRIBUTES_SCHEMA`. prefixes: those that RDF files declare.
    """

    triples: list[pl.DataFrame] = field(default_factory=list)
    labels: list[pl.DataFrame] = field(default_factory=list)
    numbers: list[pl.DataFrame] = field(default_factory=list)
    attributes: list[pl.DataFrame] = field(default_factory=list)
    prefixes: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            (
                "blank_cells",
                "unreadable_cells",
                "rdf_statements",
                "rdf_label_statements",
                "blank_literals",
                "attributes_in_other_languages",
            ),
            0,
        )
    )
    has_parts: bool = False

    def distinct(self) -> tuple[pl.DataFrame, int]:
        """Return every triple once, in the order of the sources, and how many came again from a later source.

        A triple that came several times has the source of the first, the greatest weight, and is known since the
        earliest instant, or always where one source does not say.
        """
        every = pl.concat([_no_triples(self.has_parts), *self._aligned()])
        distinct = once(every, [HEAD, RELATION, TAIL, HEAD_IS_ITEM])
        return distinct, every.height - distinct.height

    def distinct_labels(self) -> pl.DataFrame:
        """Return one label an entity: that of the earliest source."""
        every = pl.concat([pl.DataFrame(schema=LABELS_SCHEMA), *self.labels])
        return every.unique(ENTITY, keep="first", maintain_order=True)

    def distinct_numbers(self) -> pl.DataFrame:
        """Return the numbers that are to be binned, each fact once."""
        return pl.concat([pl.DataFrame(schema=NUMBERS_SCHEMA), *self.numbers]).unique(maintain_order=True)

    def all_attributes(self) -> pl.DataFrame:
        """Return the literals of RDF, each once."""
        return pl.concat([pl.DataFrame(schema=ATTRIBUTES_SCHEMA), *self.attributes]).unique(maintain_order=True)

    def _aligned(self) -> Iterable[pl.DataFrame]:
        columns = _no_triples(self.has_parts).columns
        for frame in self.triples:
            whole = frame if PART in frame.columns else frame.with_columns(pl.lit(TRAIN, PART_TYPE).alias(PART))
            yield whole.select(columns)


def _no_triples(has_parts: bool) -> pl.DataFrame:
    parts = {PART: PART_TYPE} if has_parts else {}
    return pl.DataFrame(schema={**TRIPLES_SCHEMA, **parts})
