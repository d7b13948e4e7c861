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
    """Tables of `__row` and columns, each row in one of them; in memory, or in files of a folder."""

    def __init__(self, rows: int, folder: Path | None) -> None:
        self.rows, self._folder = rows, folder
        self._tables: list[pl.LazyFrame] = []
        self._bounds: list[list[int]] = []

    def add(self, table: pl.DataFrame) -> None:
        """Keep a table."""
        if not table.height:
            return
        table = table.sort(ROW)
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
