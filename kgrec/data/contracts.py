"""Contracts on the canonical tables: what holds of every row once ingest has accepted it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl

from kgrec.columns import CLICK, CONVERSION, HEAD, HEAD_IS_ITEM, RELATION, TAIL
from kgrec.data.table_files import write_rows
from kgrec.graph.merging import repeated


def _is_unique(rows: pl.Series) -> pl.Series:
    if repeated(rows.hash(seed=0)).is_empty():  # then no row is like another
        return pl.repeat(True, rows.len(), eager=True)
    return rows.is_unique()


class EventsContract(dy.Schema):
    """Behaviour: each row is a click, a conversion or both."""

    user = dy.String(nullable=False, min_length=1)
    item = dy.String(nullable=False, min_length=1)
    time = dy.Datetime(nullable=True, time_unit="us", time_zone="UTC")
    value = dy.Float32(nullable=True)
    click = dy.Bool(nullable=False)
    conversion = dy.Bool(nullable=False)

    @dy.rule()
    def click_or_conversion(cls) -> pl.Expr:  # noqa: N805  dataframely hands in the class
        """Refuse an event that is neither."""
        return pl.col(CLICK) | pl.col(CONVERSION)


class ExposuresContract(dy.Schema):
    """Items shown to users; labels are checked where they are there."""

    user = dy.String(nullable=False, min_length=1)
    item = dy.String(nullable=False, min_length=1)
    time = dy.Datetime(nullable=True, time_unit="us", time_zone="UTC")


class UsersContract(dy.Schema):
    """Users, each once."""

    user = dy.String(nullable=False, min_length=1, primary_key=True)


class ItemsContract(dy.Schema):
    """Items, each once."""

    item = dy.String(nullable=False, min_length=1, primary_key=True)
    title = dy.String(nullable=True)


class TriplesContract(dy.Schema):
    """Facts, each once."""

    head = dy.String(nullable=False, min_length=1)
    relation = dy.String(nullable=False, min_length=1)
    tail = dy.String(nullable=False, min_length=1)
    source = dy.String(nullable=False)
    head_is_item = dy.Bool(nullable=False)
    weight = dy.Float32(nullable=False, min_exclusive=0.0)
    known_at = dy.Datetime(nullable=True, time_unit="us", time_zone="UTC")

    @dy.rule()
    def each_once(cls) -> pl.Expr:  # noqa: N805
        """Refuse repeats; a primary key would, four times slower."""
        return pl.struct(HEAD, RELATION, TAIL, HEAD_IS_ITEM).map_batches(_is_unique, return_dtype=pl.Boolean())


class LinksContract(dy.Schema):
    """Links from items to entities, each once."""

    item = dy.String(nullable=False, min_length=1, primary_key=True)
    entity = dy.String(nullable=False, min_length=1, primary_key=True)


class LabelsContract(dy.Schema):
    """Names for people, one an entity."""

    entity = dy.String(nullable=False, min_length=1, primary_key=True)
    label = dy.String(nullable=False, min_length=1)


def write_table(frame: pl.LazyFrame, path: Path, contract: type[dy.Schema]) -> int:
    """Write a canonical table in its order, check every row against its contract, return the number of rows."""
    return int(write_and_tell(frame, path, contract)[0])


def write_and_tell(frame: pl.LazyFrame, path: Path, contract: type[dy.Schema], **told: pl.Expr) -> tuple[Any, ...]:
    """As `write_table`; return the number of rows and what the expressions `told` say of all rows, a value each."""
    write_rows(frame, path)
    written = pl.scan_parquet(path, glob=False).select(contract.column_names())
    checked = contract.validate(written, eager=False)
    rows = pl.col(contract.column_names()[0]).len().alias("rows")
    return checked.select(rows, **told).collect(engine="streaming").row(0)
