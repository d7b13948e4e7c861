"""Numbers as entities: bins of about equally many values of the train part."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise

import numpy as np
import polars as pl

from kgrec.columns import (
    BINS,
    ENTITY,
    HEAD,
    HEAD_IS_ITEM,
    KNOWN_AT,
    LABEL,
    LABELS_SCHEMA,
    RELATION,
    SOURCE,
    TAIL,
    TRIPLES_SCHEMA,
    VALUE,
    WEIGHT,
)


def bin_numbers(
    numbers: pl.DataFrame, trained: pl.Series | None, end: datetime | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return triples (`TRIPLES_SCHEMA`) and labels of the bins that the numbers fall into.

    numbers: `NUMBERS_SCHEMA`. trained: ids of what the train part knows, end: its last instant; the edges are quantiles
    of their values alone that were known by then (of all values where none is), so that no value of a later part moves
    an edge. Bins are half-open [low, high); quantiles that fall together make fewer bins.
    """
    triples, labels = [pl.DataFrame(schema=TRIPLES_SCHEMA)], [pl.DataFrame(schema=LABELS_SCHEMA)]
    for (relation,), rows in numbers.group_by([RELATION], maintain_order=True):
        known = rows if trained is None else rows.filter(pl.col(HEAD).is_in(trained.implode()))
        known = known if end is None else known.filter(pl.col(KNOWN_AT).is_null() | (pl.col(KNOWN_AT) <= end))
        values = (known if known.height else rows)[VALUE].to_numpy()
        edges = _edges(values, int(rows[BINS][0]))
        names = _names(edges)
        at = np.searchsorted(edges, rows[VALUE].to_numpy(), side="right")
        label = pl.Series(LABEL, [names[bin_] for bin_ in at.tolist()], dtype=pl.String)
        tail = f"{relation}:" + label
        triples.append(
            rows.select(
                HEAD, RELATION, tail.alias(TAIL), SOURCE, HEAD_IS_ITEM, pl.lit(1.0, pl.Float32).alias(WEIGHT), KNOWN_AT
            )
        )
        labels.append(pl.DataFrame({ENTITY: [f"{relation}:{name}" for name in names], LABEL: names}))
    return pl.concat(triples), pl.concat(labels)


def _edges(
    values: np.ndarray[tuple[int], np.dtype[np.float64]], bins: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    inner = np.quantile(values, np.arange(1, bins) / bins, method="higher")
    edges: np.ndarray[tuple[int], np.dtype[np.float64]] = np.unique(inner[inner > values.min()])
    return edges


def _names(edges: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[str]:
    """Say what each bin holds, such as "below 1990", "1990 to below 1995", "from 1995"."""
    if not len(edges):
        return ["any"]
    text = [str(int(edge)) if float(edge).is_integer() and abs(edge) < 1e15 else repr(float(edge)) for edge in edges]
    inner = [f"{low} to below {high}" for low, high in pairwise(text)]
    return [f"below {text[0]}", *inner, f"from {text[-1]}"]
