"""Artifacts small enough to read: four users, five items, a labelled table, and a graph of two more entities.

Users 0 and 1 have train events, user 2 came with validation and user 3 with test.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from kgrec import columns as c
from kgrec.artifacts import Artifact, ArtifactStore

USERS, ITEMS, ENTITIES, RELATIONS = 4, 5, 7, 2
ROWS = {c.USER_ROW: c.ROW_TYPE, c.ITEM_ROW: c.ROW_TYPE, c.CLICK: pl.Boolean, c.CONVERSION: pl.Boolean,
        c.PART: c.PART_TYPE}  # fmt: skip
EVENTS = [
    (0, 0, True, False, c.TRAIN), (0, 1, True, True, c.TRAIN), (0, 1, True, False, c.TRAIN),
    (1, 2, True, False, c.TRAIN), (1, 0, False, True, c.TRAIN), (2, 3, True, False, c.VALIDATION),
    (0, 2, True, False, c.VALIDATION), (0, 3, True, False, c.TEST), (1, 3, True, True, c.TEST),
    (2, 4, True, False, c.TEST), (3, 4, True, False, c.TEST),
]  # fmt: skip
LABELLED = [
    (0, 0, True, False, c.TRAIN), (0, 1, True, True, c.TRAIN), (1, 2, True, False, c.TRAIN),
    (1, 4, False, False, c.TRAIN), (2, 4, False, False, c.TRAIN), (2, 3, True, True, c.VALIDATION),
    (0, 2, True, False, c.VALIDATION), (0, 4, False, False, c.VALIDATION), (0, 3, True, False, c.TEST),
]  # fmt: skip
TRIPLES = [(0, 0, 5, c.TRAIN), (1, 0, 5, c.TRAIN), (2, 1, 6, c.VALIDATION), (0, 1, 6, c.TEST)]


def parts(
    folder: Path, *, impressions: bool = True, with_log: bool = True, facts: Mapping[str, Any] | None = None
) -> tuple[Artifact, Artifact, Artifact]:
    """Return log, features and graph."""
    store = ArtifactStore(folder)

    def log(out: Path) -> dict[str, Any]:
        labelled = pl.DataFrame(LABELLED, schema=ROWS, orient="row")
        if with_log:
            pl.DataFrame(EVENTS, schema=ROWS, orient="row").write_parquet(out / "events.parquet")
            (labelled if impressions else labelled.filter(c.CLICK)).write_parquet(out / "labelled.parquet")
            rows = pl.Series(c.ITEM_ROW, range(ITEMS), dtype=c.ROW_TYPE)
            rows.to_frame().write_parquet(out / "catalogue.parquet")
        sizes = {"users": USERS, "items": ITEMS} if with_log else {"users": 0, "items": 0}
        return {**sizes, "impressions": impressions, **(facts or {})}

    def features(out: Path) -> dict[str, Any]:
        count = len(LABELLED) if impressions else sum(row[2] for row in LABELLED)
        numbers = np.arange(count, dtype=np.float32).reshape(-1, 1)
        np.save(out / "numeric.npy", numbers)
        np.save(out / "categorical.npy", numbers.astype(np.int32) + 100)
        return {"num_numeric": 1, "cardinalities": [200]}

    def graph(out: Path) -> dict[str, Any]:
        schema = {c.HEAD_ROW: c.ROW_TYPE, c.RELATION_ROW: c.ROW_TYPE, c.TAIL_ROW: c.ROW_TYPE, c.PART: c.PART_TYPE}
        pl.DataFrame(TRIPLES, schema=schema, orient="row").write_parquet(out / "triples.parquet")
        return {"entities": ENTITIES, "relations": RELATIONS}

    return tuple(store.build(make.__name__, {}, {}, make)[0] for make in (log, features, graph))
