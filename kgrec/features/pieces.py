"""Columns that were computed a share of the rows at a time, read back in the order of the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from kgrec.features.feature_log import ROW

PIECE: Final = 262_144
"""Rows that are put together at a time. Names of feature tables follow from it."""
_BATCH: Final = 65_536


class Pieces:
    """Tables of `__row` and columns, each row in one of them; in memory, or in files of a folder.

    at_once: small tables are put together up to so many rows, since each costs a look for every piece.
    """

    def __init__(self, rows: int, folder: Path | None, at_once: int = 1) -> None:
        self.rows, self._folder, self._at_once = rows, folder, at_once
        self._tables: list[pl.LazyFrame] = []
        self._bounds: list[list[int]] = []
        self._waiting: list[pl.DataFrame] = []

    def add(self, table: pl.DataFrame) -> None:
        """Keep a table."""
        if sum(one.height for one in self._waiting) + table.height > self._at_once:
            self.put_together()
        self._waiting.append(table)

    def put_together(self) -> None:
        """Keep what waits for more; nothing is read before."""
        waiting, self._waiting = [one for one in self._waiting if one.height], []
        if not waiting:
            return
        table = pl.concat(waiting).sort(ROW)
        bounds = np.searchsorted(table[ROW].to_numpy(), np.arange(0, self.rows + PIECE, PIECE))
        self._bounds.append(bounds.tolist())
        self._tables.append(kept(table, self._folder))

    def piece(self, start: int) -> pl.DataFrame:
        """Return the columns of the PIECE rows from a multiple of PIECE on, in order, without `__row`."""
        number, found = start // PIECE, []
        for table, bounds in zip(self._tables, self._bounds, strict=True):
            first, stop = bounds[number], bounds[number + 1]
            if first < stop:
                found.append(table.slice(first, stop - first).collect())
        return pl.concat(found).sort(ROW).drop(ROW) if found else pl.DataFrame()


def kept(table: pl.DataFrame, folder: Path | None) -> pl.LazyFrame:
    """Return the same table, moved into a new file of the folder where there is one."""
    if folder is None:
        return table.lazy()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{len(list(folder.iterdir())):06d}.arrow"
    table.write_ipc(path, record_batch_size=_BATCH)
    return pl.scan_ipc(path, glob=False)
