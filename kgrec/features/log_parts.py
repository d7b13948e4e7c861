"""A log taken apart once, into a file for each part, so that a part costs its own rows to read and not those of all."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import polars as pl

from kgrec.columns import ITEM_ROW, PART, TIME, USER_ROW
from kgrec.features.feature_log import ROW, FeatureLog, numbered
from kgrec.features.shares import Share, Slice, place_among

_PLACE: Final = "__place"


def parts_of(
    log: FeatureLog, needed: Collection[str], parts: Sequence[Share] | Sequence[Slice], folder: Path | None
) -> list[FeatureLog]:
    """Return the log of each part with the needed columns, in files of the folder; None: parts are found when read."""
    wanted = {*needed, ROW, PART, TIME, USER_ROW, ITEM_ROW}

    def each(name: str, rows: pl.LazyFrame) -> list[pl.LazyFrame]:
        own = rows.select(column for column in rows.collect_schema() if column in wanted)
        if folder is None or len(parts) == 1:
            return [_chosen(own, one) for one in parts]
        return _written(own, parts, folder / name)

    labelled = each("labelled", numbered(log.labelled))
    events = [None] * len(parts) if log.events is None else each("events", log.events)
    return [replace(log, labelled=shown, events=acts) for shown, acts in zip(labelled, events, strict=True)]


def _chosen(rows: pl.LazyFrame, part: Share | Slice) -> pl.LazyFrame:
    return rows if part.chosen is None else rows.filter(part.chosen)


def _written(rows: pl.LazyFrame, parts: Sequence[Share] | Sequence[Slice], folder: Path) -> list[pl.LazyFrame]:
    """Write the rows of each part in their order; one without rows has no file."""
    folder.mkdir(parents=True)
    placed = rows.with_columns(place_among(parts).alias(_PLACE)).drop_nulls(_PLACE)
    into = pl.PartitionBy(folder, key=_PLACE, include_key=False, approximate_bytes_per_file=None)
    placed.sink_ipc(into, engine="streaming", maintain_order=True)
    found = []
    for number in range(len(parts)):
        files = sorted((folder / f"{_PLACE}={number}").glob("*"))
        found.append(pl.concat(pl.scan_ipc(file, glob=False) for file in files) if files else rows.head(0))
    return found
