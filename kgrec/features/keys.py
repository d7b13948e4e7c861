"""The columns of the rows that features are made of: their times in UTC, and which of them `*` keys stand for."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from kgrec.columns import ITEM_ROW, TIME, TIME_TYPE, USER_ROW


def in_utc(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return the rows with their time, where they have one, in UTC; the instants stay as they are."""
    return rows.with_columns(pl.col(TIME).cast(TIME_TYPE)) if TIME in rows.collect_schema() else rows


def categorical_keys(
    frame: pl.LazyFrame, side_users: pl.DataFrame | None, side_items: pl.DataFrame | None, context: Sequence[str]
) -> list[str]:
    """Return the columns that `*` keys stand for: text, whole-number or boolean, two values or more, and repeated.

    A side feature counts when two users (items) share a value; a context column when values repeat twice on average.
    """
    found = []
    for prefix, table, row in (("user:", side_users, USER_ROW), ("item:", side_items, ITEM_ROW)):
        for column in table.drop(row) if table is not None else ():
            if _is_discrete(column.dtype) and 2 <= column.drop_nulls().n_unique() < column.count():
                found.append(f"{prefix}{column.name}")
    types = frame.collect_schema()
    discrete = [name for name in context if _is_discrete(types[name])]
    counted = frame.select(
        *(pl.col(name).drop_nulls().n_unique().alias(f"distinct {name}") for name in discrete),
        *(pl.col(name).count().alias(f"known {name}") for name in discrete),
    ).collect(engine="streaming")
    return found + [name for name in discrete if 2 <= counted[f"distinct {name}"][0] <= counted[f"known {name}"][0] / 2]


def _is_discrete(dtype: pl.DataType) -> bool:
    return dtype.is_integer() or dtype in (pl.String, pl.Boolean, pl.Categorical, pl.Enum)
