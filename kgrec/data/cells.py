"""Cells of tables and literals of RDF as triples: several values a cell, nested lists, dates, numbers to be binned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from kgrec.columns import (
    BINS,
    ENTITY,
    HEAD,
    HEAD_IS_ITEM,
    KNOWN_AT,
    LABEL,
    NUMBERS_SCHEMA,
    RELATION,
    SOURCE,
    TAIL,
    TRIPLES_SCHEMA,
    VALUE,
    WEIGHT,
)
from kgrec.data.sources import TableSource
from kgrec.data.values import time_of

CELL: Final = "cell"
_AT: Final = "at"
_YEAR_ALONE: Final = r"^\d{4}$"
_FORMS: Final = {"year": "%Y", "month": "%Y-%m", "weekday": "%A"}


class RelationColumn(BaseModel):
    """How the cells of a column, or the literals of an RDF property, become triples."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    separator: str | None = Field(
        None, description="text between the values of a cell; empty: any whitespace; unset: the cell is one value"
    )
    bins: int | None = Field(
        None, ge=2, le=1000,
        description="the values are numbers: cut into so many bins of about equally many items of the train part",
    )  # fmt: skip
    date: Literal["year", "month", "decade", "weekday"] | None = Field(
        None, description="the values are dates (ISO 8601, a year, or numbers since 1970): keep this of them"
    )

    @model_validator(mode="after")
    def _one_meaning(self) -> RelationColumn:
        if self.bins is not None and self.date is not None:
            raise ValueError("a column is either numbers (bins) or dates (date)")
        return self


class KnowledgeTable(TableSource):
    """Triples from the columns of a table whose rows are items."""

    id: str = Field("item", description="column of item ids")
    known_at: str | None = Field(
        None, description="column that says when a row could first be known; unset: it always was"
    )
    relations: dict[str, RelationColumn] = Field(description="columns to turn into relations of the same name")


@dataclass(frozen=True)
class CellTriples:
    """What a column gave.

    triples: `TRIPLES_SCHEMA`, empty for numbers. labels: entity, label. numbers: `NUMBERS_SCHEMA`, empty for others.
    blank: cells without any value. unreadable: values that are no number or date, with an example of them.
    """

    triples: pl.DataFrame
    labels: pl.DataFrame
    numbers: pl.DataFrame
    blank: int
    unreadable: int
    example: str | None


def cell_triples(rows: pl.DataFrame, cell: str, relation: str, how: RelationColumn) -> CellTriples:
    """Turn the values in the column `cell` of `rows` (with head, source, head_is_item, known_at) into triples.

    The entity of a value is "relation:value", so that equal words of two columns stay apart; its label is the value.
    """
    values = _texts(rows, cell, how.separator)
    blank = rows.height - values[_AT].n_unique()
    empty_triples, empty_numbers = pl.DataFrame(schema=TRIPLES_SCHEMA), pl.DataFrame(schema=NUMBERS_SCHEMA)
    if how.bins is not None:
        number = pl.col(CELL).cast(pl.Float64, strict=False)
        read = values.with_columns(pl.when(number.is_finite()).then(number).alias(VALUE))
        good, bad = read.filter(pl.col(VALUE).is_not_null()), read.filter(pl.col(VALUE).is_null())
        numbers = good.select(
            HEAD, pl.lit(relation).alias(RELATION), VALUE, SOURCE, HEAD_IS_ITEM, KNOWN_AT,
            pl.lit(how.bins, pl.Int32).alias(BINS),
        )  # fmt: skip
        return CellTriples(empty_triples, _labels(empty_triples), numbers, blank, bad.height, _example(bad))
    bad = values.clear()
    if how.date is not None:
        read = values.with_columns(_date(how.date, values.schema[CELL]).alias(LABEL))
        values, bad = read.filter(pl.col(LABEL).is_not_null()), read.filter(pl.col(LABEL).is_null())
    else:
        values = values.with_columns(pl.col(CELL).alias(LABEL))
    found = values.select(
        HEAD, pl.lit(relation).alias(RELATION), pl.concat_str(pl.lit(f"{relation}:"), pl.col(LABEL)).alias(TAIL),
        SOURCE, HEAD_IS_ITEM, pl.lit(1.0, pl.Float32).alias(WEIGHT), KNOWN_AT, LABEL,
    )  # fmt: skip
    return CellTriples(found.drop(LABEL), _labels(found), empty_numbers, blank, bad.height, _example(bad))


def _labels(found: pl.DataFrame) -> pl.DataFrame:
    label = pl.col(LABEL) if LABEL in found.columns else pl.lit(None, pl.String).alias(LABEL)
    return found.select(pl.col(TAIL).alias(ENTITY), label).unique(ENTITY, keep="first", maintain_order=True)


def _example(bad: pl.DataFrame) -> str | None:
    return None if bad.is_empty() else f"{bad[HEAD][0]}: {bad[CELL][0]!r}"


def _texts(rows: pl.DataFrame, cell: str, separator: str | None) -> pl.DataFrame:
    """One row a value: at (the row it came from), head, source, head_is_item, known_at, and `cell` as stripped text."""
    lists = rows.with_row_index(_AT).select(_AT, HEAD, SOURCE, HEAD_IS_ITEM, KNOWN_AT, pl.col(cell).alias(CELL))
    while isinstance(lists.schema[CELL], pl.List | pl.Array):
        lists = lists.explode(CELL, empty_as_null=True)
    kind = lists.schema[CELL]
    text = pl.col(CELL).cast(pl.String)
    if isinstance(kind, pl.Struct):
        text = pl.col(CELL).struct.json_encode()
    if kind.is_float():
        whole = (pl.col(CELL) % 1 == 0) & (pl.col(CELL).abs() < 2.0**53)
        number = pl.when(whole).then(pl.col(CELL).cast(pl.Int64, strict=False).cast(pl.String)).otherwise(text)
        text = pl.when(pl.col(CELL).is_not_nan()).then(number)
    lists = lists.with_columns(text)
    if separator is not None:
        words = pl.col(CELL).str.extract_all(r"\S+") if separator == "" else pl.col(CELL).str.split(separator)
        lists = lists.with_columns(words).explode(CELL, empty_as_null=True)
    return lists.with_columns(pl.col(CELL).str.strip_chars()).filter(pl.col(CELL).fill_null("") != "")


def _date(keep: str, dtype: pl.DataType) -> pl.Expr:
    """Return what is kept of a date as text, null where there is no date; four digits alone are a year."""
    alone = pl.col(CELL).str.contains(_YEAR_ALONE)
    january = pl.concat_str(pl.col(CELL), pl.lit("-01-01"))
    day = january.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    instant = pl.when(alone).then(day).otherwise(time_of(CELL, dtype))
    if keep == "decade":
        return (instant.dt.year() // 10 * 10).cast(pl.String) + pl.lit("s")
    kept = instant.dt.strftime(_FORMS[keep])
    return pl.when(~alone).then(kept) if keep in ("month", "weekday") else kept
