"""The one place where raw ids (text) become rows (0..n-1) and back. A vocabulary only grows, so old rows stand."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
from polars.exceptions import PolarsError

from kgrec.columns import ID, ID_TYPE, ROW, ROW_TYPE, VOCABULARY_SCHEMA
from kgrec.errors import ArtifactError

_SPARSEST: Final = 64  # numbers a known id, up to which they are looked up in a table over all numbers


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Text ids in row order: `entries[row]` is the id of that row. Made by `of`, `grow` or `load`.

    >>> import polars as pl
    >>> vocabulary = Vocabulary.of(pl.Series(["b", "a", "b"])).grow(pl.Series(["c", "a"]))
    >>> vocabulary.rows(pl.Series(["c", "x", "b"])).to_list()
    [2, None, 0]
    >>> vocabulary.ids(pl.Series([1, 2])).to_list()
    ['a', 'c']
    """

    entries: pl.Series

    def __post_init__(self) -> None:
        """Check what every other method relies on: text, no null, no repeat; ValueError otherwise."""
        if self.entries.dtype != ID_TYPE:
            raise ValueError(f"a vocabulary holds text ids, not {self.entries.dtype}")
        if self.entries.null_count() or self.entries.n_unique() != self.entries.len():
            raise ValueError("a vocabulary holds each id once and no null")

    @classmethod
    def of(cls, ids: pl.Series) -> Vocabulary:
        """Return the vocabulary of these ids, rows in first-seen order; ValueError when one is null."""
        return cls(pl.Series(ID, [], dtype=ID_TYPE)).grow(ids)

    def __len__(self) -> int:
        return self.entries.len()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return self.entries.equals(other.entries)

    def __hash__(self) -> int:
        return hash(self.digest)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of ids and order, 64 hex digits: equal vocabularies, equal digests."""
        digest = hashlib.sha256(self.entries.str.len_bytes().cast(pl.UInt64).to_numpy().astype("<u8").tobytes())
        for start in range(0, len(self), 1_000_000):
            digest.update("".join(self.entries.slice(start, 1_000_000).to_list()).encode())
        return digest.hexdigest()

    @cached_property
    def _table(self) -> pl.DataFrame:
        return pl.DataFrame({ID: self.entries}).with_row_index(ROW).with_columns(pl.col(ROW).cast(ROW_TYPE))

    @cached_property
    def _by_number(self) -> _Numbers | None:
        return _Numbers.of(self.entries)

    def grow(self, ids: pl.Series) -> Vocabulary:
        """Return a vocabulary with the unseen of `ids` appended in first-seen order; every old row stands.

        Raises ValueError when an id is null, TypeError when ids are not text.
        """
        fresh = _text(ids)
        if fresh.null_count():
            raise ValueError(f"{fresh.null_count():,} null ids cannot enter a vocabulary")
        unseen = (
            pl.DataFrame({ID: fresh})
            .unique(maintain_order=True)
            .join(self._table, on=ID, how="anti", maintain_order="left")
        )
        return self if unseen.is_empty() else Vocabulary(pl.concat([self.entries, unseen[ID]]).rechunk())

    def rows(self, ids: pl.Series) -> pl.Series:
        """Return the row of each id as Int32, order kept, null for an unknown or null id; TypeError when not text."""
        if self._by_number is not None:
            return self._by_number.rows(_text(ids)).alias(ROW)
        return pl.DataFrame({ID: _text(ids)}).join(self._table, on=ID, how="left", maintain_order="left")[ROW]

    def with_rows(self, frame: pl.LazyFrame, column: str, row: str) -> pl.LazyFrame:
        """Return the frame with the row of each id of `column` as the Int32 column `row`, in order, streamed."""
        if self._by_number is not None:
            look = pl.col(column).map_batches(self._by_number.rows, return_dtype=ROW_TYPE, is_elementwise=True)
            return frame.with_columns(look.alias(row))
        own = self._table.lazy().select(pl.col(ID).alias(column), pl.col(ROW).alias(row))
        return frame.join(own, on=column, how="left", maintain_order="left")

    def ids(self, rows: pl.Series) -> pl.Series:
        """Return the id of each row, order kept, null for null; IndexError names a row that is out of range."""
        wrong = rows.filter((rows < 0) | (rows >= len(self)))
        if wrong.len():
            raise IndexError(f"row {wrong[0]} is outside a vocabulary of {len(self)} ids")
        return self.entries.gather(rows.cast(pl.UInt32)).alias(ID)

    def save(self, path: Path) -> None:
        """Write the vocabulary as Parquet with the columns `row` and `id`."""
        self._table.write_parquet(path)

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what `save` wrote; ArtifactError when the file is damaged, has gaps, repeats, nulls or other columns."""
        try:
            table = pl.read_parquet(path)
        except (OSError, PolarsError) as error:
            raise ArtifactError(f"{path}: cannot be read as a vocabulary ({error})") from None
        if dict(table.schema) != VOCABULARY_SCHEMA:
            raise ArtifactError(f"{path}: columns {dict(table.schema)} where {VOCABULARY_SCHEMA} were expected")
        faults = []
        if table[ID].null_count() or table[ROW].null_count():
            faults.append(f"{table[ID].null_count()} null ids and {table[ROW].null_count()} null rows")
        if table[ID].n_unique() != table.height:
            faults.append(f"an id stands twice, such as that of row {table.filter(table[ID].is_duplicated())[ROW][0]}")
        if not table[ROW].equals(pl.Series(ROW, range(table.height), dtype=ROW_TYPE)):
            faults.append("rows are not 0, 1, 2, ... without a gap")
        if faults:
            raise ArtifactError(f"{path}: no vocabulary: {'; '.join(faults)}")
        return cls(table[ID].rechunk())


@dataclass(frozen=True, eq=False)
class _Numbers:
    """The rows of ids that are all whole numbers: looked up by number, which costs half of a join of texts.

    row, length: by number, the row of the id that is this number (-1 where none is) and the length of its text.
    """

    row: npt.NDArray[np.int32]
    length: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, ids: pl.Series) -> _Numbers | None:
        """Return the tables of these ids; None where one is no such number, or their numbers are too far apart."""
        texts = pl.DataFrame({ID: ids}).lazy().select(ID, number=pl.col(ID).cast(pl.Int64, strict=False))
        plain = pl.col("number").cast(pl.String) == pl.col(ID)  # "007" is another id than "7"
        found = texts.select(
            pl.col("number").min().alias("first"),
            pl.col("number").max().alias("last"),
            plain=(plain.fill_null(False)).all(),
        )
        first, last, all_plain = found.collect().row(0)
        if ids.is_empty() or not all_plain or first < 0 or last > _SPARSEST * len(ids):
            return None
        number = ids.cast(pl.Int64).to_numpy()
        row, length = np.full(last + 1, -1, np.int32), np.zeros(last + 1, np.uint8)
        row[number], length[number] = np.arange(len(ids)), ids.str.len_bytes().to_numpy()
        return cls(row, length)

    def rows(self, ids: pl.Series) -> pl.Series:
        """Return the row of each id, null where it is unknown or null."""
        read = ids.cast(pl.Int64, strict=False).fill_null(-1).to_numpy()
        known = (read >= 0) & (read < len(self.row))
        number = np.where(known, read, 0)
        known &= self.length[number] == ids.str.len_bytes().fill_null(0).to_numpy()
        return pl.Series(np.where(known, self.row[number], -1)).replace(-1, None)


def _text(ids: pl.Series) -> pl.Series:
    if ids.dtype == pl.Null:
        return ids.cast(ID_TYPE)
    if ids.dtype != ID_TYPE:
        raise TypeError(f"ids are text inside kgrec, not {ids.dtype}")
    return ids
