"""The nearest-neighbour index over item vectors: what is served of it, bound to a model and a vocabulary.

Axes: I items of the catalogue, B queries, D dimensions, K answers.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from kgrec.artifacts import Artifact
from kgrec.columns import ITEM_ROW, ROW_TYPE
from kgrec.errors import ArtifactError
from kgrec.serving.faiss_index import (
    FILE,
    KINDS,
    FaissIndex,
    Measured,
    nearest_exactly,
    search_threads,
    shard_files,
    write_exact,
)
from kgrec.serving.index_changes import CHANGES_FILE, IndexChanges
from kgrec.serving.index_choice import choose
from kgrec.serving.index_config import IndexConfig, KindName

__all__ = ["FILE", "KINDS", "IndexConfig", "ItemIndex", "KindName", "build_index", "index_files", "search_threads"]

ROWS_FILE: Final = "index_rows.parquet"
_DIMENSIONS: Final = "dimensions"
_EFFORT: Final = "effort"
_SHARDS: Final = "shards"
_EXTRA: Final = 16
_PIECE: Final = 100_000  # vectors that are scored at a time
_SCANNED: Final = 20_000  # up to so many items of a filter are looked at one by one

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


def build_index(
    vectors_ID: Floats, rows_I: Rows, path: Path, config: IndexConfig | None = None, queries_QD: Floats | None = None
) -> dict[str, Any]:
    """Write an inner-product index of the catalogue's vectors and return the facts that bind it.

    vectors_ID: one vector per row of rows_I, which are item rows in growing order. The vectors go in as they are, so
    that the inner product served is the score that was trained and chosen. queries_QD: users as they will ask, by whom
    any kind but the exact one is tuned and judged; without them the index is exact.
    """
    config, count = config or IndexConfig(), len(rows_I)
    shards = max(1, min(config.shards, count))
    queries_QD = np.empty((0, vectors_ID.shape[1]), np.float32) if queries_QD is None else queries_QD
    asides = {kind: path / f".{kind.value}" for kind in KINDS}

    def made(kind: KindName) -> Measured:
        asides[kind].mkdir()
        return Measured(kind, vectors_ID, shards, asides[kind])

    choice = choose(
        config, count, np.ascontiguousarray(queries_QD, np.float32),
        lambda asked, k: nearest_exactly(vectors_ID, asked, k), {kind: partial(made, kind) for kind in KINDS},
    )  # fmt: skip
    effort = ""
    if isinstance(choice.index, Measured):
        effort = choice.index.effort
        for name in shard_files(shards):
            (asides[choice.kind] / name).replace(path / name)
    else:
        write_exact(vectors_ID, shards, path)
    for aside in asides.values():
        shutil.rmtree(aside, ignore_errors=True)
    told = {_DIMENSIONS: str(vectors_ID.shape[1]), _SHARDS: str(shards), _EFFORT: effort}
    pl.DataFrame({ITEM_ROW: rows_I}, schema={ITEM_ROW: ROW_TYPE}).write_parquet(path / ROWS_FILE, metadata=told)
    lengths = np.linalg.norm(vectors_ID, axis=1)
    normalised = bool(np.allclose(lengths[lengths > 0], 1.0, atol=1e-4))
    return {
        "metric": "inner_product", "normalised": normalised, "count": count, "dimensions": int(vectors_ID.shape[1]),
        "shards": shards, **choice.facts(),
    }  # fmt: skip


def index_files(artifact: Artifact) -> list[str]:
    """Return the names of an index's files, its shards first."""
    return [*(name for name in artifact.files if name.endswith(Path(FILE).suffix)), ROWS_FILE]


class ItemIndex:
    """An index as served. Bound by fingerprint: it refuses to load beside another model's or vocabulary's parts."""

    def __init__(self, artifact: Artifact, config: IndexConfig, expected: Mapping[str, str]) -> None:
        for part, digest in expected.items():
            if artifact.facts.get("bound_to", {}).get(part) != digest:
                raise ArtifactError(
                    f"{artifact.path}: this index was built for another {part}\n"
                    "  remedy:  build it again with `kgrec index CONFIG`"
                )
        told = pl.read_parquet_metadata(artifact.file(ROWS_FILE))
        self._built_I: Rows = pl.read_parquet(artifact.file(ROWS_FILE))[ITEM_ROW].to_numpy().astype(np.int64)
        shards = [artifact.file(name) for name in shard_files(int(told.get(_SHARDS, 1)))]
        self._index = FaissIndex.read(shards, memory_map=config.memory_map, effort=told.get(_EFFORT, ""))
        if self._index.count != len(self._built_I):
            raise ArtifactError(f"{artifact.path}: {self._index.count} vectors for {len(self._built_I)} item rows")
        self.exact = self._index.exact
        self.dimensions = int(told.get(_DIMENSIONS, self._index.width))
        self.change(IndexChanges.load(artifact.path) if artifact.has(CHANGES_FILE) else None)
        if config.threads:
            search_threads(config.threads)

    def change(self, changes: IndexChanges | None) -> None:
        """Answer as if built after these changes (in place of those before): nothing is built again."""
        self.changes = changes or IndexChanges.none(self.dimensions)
        gone = np.union1d(self.changes.removed_R, self.changes.added_A)
        self.rows_I: Rows = np.union1d(np.setdiff1d(self._built_I, gone), self.changes.added_A)
        self._hidden_I = np.zeros(int(max(self._built_I.max(initial=-1), self.rows_I.max(initial=-1))) + 1, dtype=bool)
        self._hidden_I[gone[gone < len(self._hidden_I)]] = True

    def search(
        self, query_D: Floats, k: int, leave_out: Rows, only_I: npt.NDArray[np.bool_] | None = None
    ) -> tuple[Rows, Floats]:
        """Return up to k item rows and their scores, best first, equal scores by item row.

        leave_out: item rows that must not be among them. only_I: a flag per item row; the others are not looked at.
        Fewer than k come back when the catalogue is exhausted.
        """
        hidden_I = self._hidden_I.copy()
        hidden_I[leave_out[leave_out < len(hidden_I)]] = True
        rows_K, scores_K = self._built(query_D.astype(np.float32), k, hidden_I, len(leave_out), only_I)
        new = self.changes
        if len(new.added_A):
            keep_A = ~np.isin(new.added_A, leave_out) & (only_I[new.added_A] if only_I is not None else True)
            rows_K = np.concatenate([rows_K, new.added_A[keep_A]])
            scores_K = np.concatenate([scores_K, new.vectors_AD[keep_A] @ query_D.astype(np.float32)])
        order = np.lexsort((rows_K, -scores_K))[:k]
        return rows_K[order], scores_K[order]

    def search_many(self, queries_BD: Floats, k: int) -> tuple[Rows, Floats]:
        """Return the k item rows and scores of each query as built, best first, -1 where there are fewer; in one go.

        Nothing is left out, changes are not looked at, and equal scores come in any order: for measuring, and for lists
        of many users of which each looks further only where it must.
        """
        scores_BK, places_BK = self._index.search(queries_BD, k)
        return np.where(places_BK >= 0, self._built_I[places_BK], -1), scores_BK

    def _built(
        self, query_D: Floats, k: int, hidden_I: npt.NDArray[np.bool_], left_out: int,
        only_I: npt.NDArray[np.bool_] | None,
    ) -> tuple[Rows, Floats]:  # fmt: skip
        """Return at least the best k of what was built and is not hidden."""
        total, places = len(self._built_I), None
        if only_I is not None:
            places = only_I[self._built_I]
            total = int(places.sum())
            if not self.exact and total <= _SCANNED:
                return self._scanned(query_D, np.flatnonzero(places & ~hidden_I[self._built_I]))
        if total == 0:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        wanted = min(total, k + left_out + _EXTRA)
        while True:
            scores_K, places_K = (part[0] for part in self._index.search(query_D.reshape(1, -1), wanted, places))
            found = places_K >= 0
            rows_K, scores_K = self._built_I[places_K[found]], scores_K[found]
            lowest = scores_K[-1] if len(scores_K) else np.float32(0)
            keep_K = ~hidden_I[rows_K]
            rows_K, scores_K = rows_K[keep_K], scores_K[keep_K]
            # Enough when the k-th answer certainly beats everything that was not returned.
            if wanted >= total or (len(scores_K) > k and scores_K[k - 1] > lowest):
                break
            if not self.exact and not found.all():
                break  # the index has no more to give
            wanted = min(total, wanted * 4)
        if not self.exact and len(rows_K) < k:
            open_I = ~hidden_I[self._built_I] & (only_I[self._built_I] if only_I is not None else True)
            if len(rows_K) < open_I.sum():
                return self._scanned(query_D, np.flatnonzero(open_I))
        return rows_K, scores_K

    def _scanned(self, query_D: Floats, places: Rows) -> tuple[Rows, Floats]:
        """Return the score of each of these places, looked at one by one."""
        scores = [np.empty(0, np.float32)]
        for start in range(0, len(places), _PIECE):
            scores.append(self._index.vectors(places[start : start + _PIECE])[:, : len(query_D)] @ query_D)
        return self._built_I[places], np.concatenate(scores)

    def vector(self, row: int) -> Floats | None:
        """Return the vector of an item row, or None when the item is not in the index."""
        place = int(np.searchsorted(self.changes.added_A, row))
        if place < len(self.changes.added_A) and self.changes.added_A[place] == row:
            return np.asarray(self.changes.vectors_AD[place], dtype=np.float32)
        place = int(np.searchsorted(self._built_I, row))
        if place >= len(self._built_I) or self._built_I[place] != row or self._hidden_I[row]:
            return None
        return self._index.vectors(np.array([place]))[0, : self.dimensions]
