"""The nearest-neighbour index over item vectors; the one place that knows FAISS.

Axes: I items of the catalogue, B queries, D dimensions, K answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from kgrec.artifacts import Artifact
from kgrec.columns import ITEM_ROW, ROW_TYPE
from kgrec.errors import ArtifactError

FILE: Final = "index.faiss"
ROWS_FILE: Final = "index_rows.parquet"
_EXTRA: Final = 16

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


class IndexConfig(BaseModel):
    """[index]: how nearest items are found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threads: int = Field(0, ge=0, description="Threads of a search; 0 = all cores.")


def build_index(vectors_ID: Floats, rows_I: Rows, path: Path) -> dict[str, Any]:
    """Write an exact inner-product index of the catalogue's vectors and return the facts that bind it.

    vectors_ID: one vector per row of rows_I, which are item rows in growing order. The vectors go in as they are, so
    that the inner product served is the score that was trained and chosen.
    """
    index = faiss.IndexFlatIP(vectors_ID.shape[1])
    index.add(np.ascontiguousarray(vectors_ID, dtype=np.float32))
    faiss.write_index(index, str(path / FILE))
    pl.DataFrame({ITEM_ROW: rows_I}, schema={ITEM_ROW: ROW_TYPE}).write_parquet(path / ROWS_FILE)
    lengths = np.linalg.norm(vectors_ID, axis=1)
    normalised = bool(np.allclose(lengths[lengths > 0], 1.0, atol=1e-4))
    return {
        "metric": "inner_product", "normalised": normalised, "kind": "exact", "count": len(rows_I),
        "dimensions": int(vectors_ID.shape[1]),
    }  # fmt: skip


def search_threads(count: int) -> None:
    """Set how many threads one search takes, for the whole process."""
    faiss.omp_set_num_threads(count)


class ItemIndex:
    """An index as served. Bound by fingerprint: it refuses to load beside another model's or vocabulary's parts."""

    def __init__(self, artifact: Artifact, config: IndexConfig, expected: Mapping[str, str]) -> None:
        for part, digest in expected.items():
            if artifact.facts.get("bound_to", {}).get(part) != digest:
                raise ArtifactError(
                    f"{artifact.path}: this index was built for another {part}\n"
                    "  remedy:  build it again with `kgrec index CONFIG`"
                )
        self._index = faiss.read_index(str(artifact.file(FILE)))
        self.rows_I: Rows = pl.read_parquet(artifact.file(ROWS_FILE))[ITEM_ROW].to_numpy().astype(np.int64)
        if self._index.ntotal != len(self.rows_I):
            raise ArtifactError(f"{artifact.path}: {self._index.ntotal} vectors for {len(self.rows_I)} item rows")
        if config.threads:
            faiss.omp_set_num_threads(config.threads)

    @property
    def dimensions(self) -> int:
        """The length of a vector."""
        return int(self._index.d)

    def search(
        self, query_D: Floats, k: int, leave_out: Rows, only_I: npt.NDArray[np.bool_] | None = None
    ) -> tuple[Rows, Floats]:
        """Return up to k item rows and their scores, best first, equal scores by item row.

        leave_out: item rows that must not be among them. only_I: a flag per item row; the others are not looked at.
        Fewer than k come back when the catalogue is exhausted.
        """
        total, options = len(self.rows_I), None
        if only_I is not None:
            places = only_I[self.rows_I]
            total = int(places.sum())
            bits = np.packbits(places, bitorder="little")
            options = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))  # type: ignore[call-arg,arg-type]
        if total == 0:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        hidden_I = np.zeros(int(self.rows_I[-1]) + 1, dtype=bool)
        hidden_I[leave_out[leave_out < len(hidden_I)]] = True
        wanted = min(total, k + len(leave_out) + _EXTRA)
        while True:
            answer = self._index.search(query_D.reshape(1, -1).astype(np.float32), wanted, params=options)
            scores_K, places_K = (part[0] for part in answer)
            found = places_K >= 0
            rows_K, scores_K = self.rows_I[places_K[found]], scores_K[found]
            lowest = scores_K[-1] if len(scores_K) else np.float32(0)
            keep_K = ~hidden_I[rows_K]
            rows_K, scores_K = rows_K[keep_K], scores_K[keep_K]
            # Enough when the k-th answer certainly beats everything that was not returned.
            if wanted >= total or (len(scores_K) > k and scores_K[k - 1] > lowest):
                break
            wanted = min(total, wanted * 4)
        order = np.lexsort((rows_K, -scores_K))[:k]
        return rows_K[order], scores_K[order]

    def vector(self, row: int) -> Floats | None:
        """Return the vector of an item row, or None when the item is not in the index."""
        place = int(np.searchsorted(self.rows_I, row))
        if place >= len(self.rows_I) or self.rows_I[place] != row:
            return None
        return np.asarray(self._index.reconstruct(place), dtype=np.float32)
