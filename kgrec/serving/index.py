"""The nearest-neighbour index over item vectors; the one place that knows FAISS.

Axes: I items of the catalogue, B queries, D dimensions, K answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt
import polars as pl

from kgrec.artifacts import Artifact
from kgrec.columns import ITEM_ROW, ROW_TYPE
from kgrec.errors import ArtifactError
from kgrec.serving.index_changes import CHANGES_FILE, IndexChanges
from kgrec.serving.index_choice import choose
from kgrec.serving.index_config import IndexConfig, KindName

__all__ = ["KINDS", "IndexConfig", "ItemIndex", "KindName", "Measured", "build_index", "search_threads"]

FILE: Final = "index.faiss"
ROWS_FILE: Final = "index_rows.parquet"
_DIMENSIONS: Final = "dimensions"
_EXTRA: Final = 16
_PIECE: Final = 100_000  # vectors that are added at a time
_SCANNED: Final = 20_000  # up to so many items of a filter are looked at one by one

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Kind:
    """A kind as FAISS names it, for a number of items and of dimensions, and how hard it can look, the least first."""

    factory: Callable[[int, int], str]
    efforts: Callable[[int], Sequence[str]]
    multiple: int = 1


def _lists(count: int) -> int:
    """Return a power of two near 4 sqrt(count), of at least forty items a list."""
    return max(1, 1 << int(np.log2(max(1.0, min(4 * count**0.5, count / 40)))))


def _probes(count: int, ending: str = "") -> list[str]:
    probes = [2**power for power in range(2, 20) if 2**power < _lists(count)] + [_lists(count)]
    return [f"nprobe={probe}{ending}" for probe in probes]


KINDS: Final[Mapping[KindName, _Kind]] = MappingProxyType(
    {
        KindName.IVF_PQ: _Kind(
            lambda count, d: f"IVF{_lists(count)},PQ{d // 2}x4fs,RFlat",
            lambda count: [e for few, more in zip(_probes(count, ",k_factor_rf=10"), _probes(count, ",k_factor_rf=40"),
                                                  strict=True) for e in (few, more)],
            multiple=4,
        ),
        KindName.HNSW: _Kind(
            lambda count, d: "HNSW32", lambda count: [f"efSearch={2**power}" for power in range(4, 12)]
        ),
        KindName.IVF: _Kind(lambda count, d: f"IVF{_lists(count)},Flat", _probes),
    }
)  # fmt: skip
"""Every kind beside the exact one, each behind the gate of `kgrec.serving.index_choice`."""


class Measured:
    """An index of a kind over vectors, built in pieces; `index` is FAISS's own."""

    def __init__(self, kind: KindName, vectors_ID: Floats) -> None:
        made, count = KINDS[kind], len(vectors_ID)
        self.width = -(-vectors_ID.shape[1] // made.multiple) * made.multiple
        self.efforts: Sequence[str] = made.efforts(count)
        self.index = faiss.index_factory(self.width, made.factory(count, self.width), faiss.METRIC_INNER_PRODUCT)
        step = max(1, count // max(64 * _lists(count), 20_000))
        self.index.train(_padded(vectors_ID[::step], self.width))
        for start in range(0, count, _PIECE):
            self.index.add(_padded(vectors_ID[start : start + _PIECE], self.width))

    def set_effort(self, effort: str) -> None:
        """Look this hard from now on; it is written with the index."""
        faiss.ParameterSpace().set_index_parameters(self.index, effort)  # type: ignore[arg-type]

    def nearest(self, queries_QD: Floats, k: int) -> Rows:
        """Return the k nearest places of each query."""
        return np.asarray(self.index.search(_padded(queries_QD, self.width), k)[1], dtype=np.int64)


def _padded(vectors_ND: Floats, width: int) -> Floats:
    """Return the vectors with zeros up to a width: no inner product changes."""
    missing = width - vectors_ND.shape[1]
    return np.ascontiguousarray(np.pad(vectors_ND, ((0, 0), (0, missing))) if missing else vectors_ND, np.float32)


def build_index(
    vectors_ID: Floats, rows_I: Rows, path: Path, config: IndexConfig | None = None, queries_QD: Floats | None = None
) -> dict[str, Any]:
    """Write an inner-product index of the catalogue's vectors and return the facts that bind it.

    vectors_ID: one vector per row of rows_I, which are item rows in growing order. The vectors go in as they are, so
    that the inner product served is the score that was trained and chosen. queries_QD: users as they will ask, by whom
    any kind but the exact one is tuned and judged; without them the index is exact.
    """
    config, count = config or IndexConfig(), len(rows_I)
    flat = faiss.IndexFlatIP(vectors_ID.shape[1])
    for start in range(0, count, _PIECE):
        flat.add(np.ascontiguousarray(vectors_ID[start : start + _PIECE], dtype=np.float32))
    queries_QD = np.empty((0, vectors_ID.shape[1]), np.float32) if queries_QD is None else queries_QD
    choice = choose(
        config, count, np.ascontiguousarray(queries_QD, np.float32), lambda asked, k: flat.search(asked, k)[1],
        {kind: partial(Measured, kind, vectors_ID) for kind in KINDS},
    )  # fmt: skip
    index = choice.index.index if isinstance(choice.index, Measured) else flat
    faiss.write_index(index, str(path / FILE))
    table, width = pl.DataFrame({ITEM_ROW: rows_I}, schema={ITEM_ROW: ROW_TYPE}), str(vectors_ID.shape[1])
    table.write_parquet(path / ROWS_FILE, metadata={_DIMENSIONS: width})
    lengths = np.linalg.norm(vectors_ID, axis=1)
    normalised = bool(np.allclose(lengths[lengths > 0], 1.0, atol=1e-4))
    return {
        "metric": "inner_product", "normalised": normalised, "count": count, "dimensions": int(vectors_ID.shape[1]),
        **choice.facts(),
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
        flags = faiss.IO_FLAG_MMAP_IFC if config.memory_map else 0
        self._index: Any = faiss.read_index(str(artifact.file(FILE)), flags)
        self._built_I: Rows = pl.read_parquet(artifact.file(ROWS_FILE))[ITEM_ROW].to_numpy().astype(np.int64)
        if self._index.ntotal != len(self._built_I):
            raise ArtifactError(f"{artifact.path}: {self._index.ntotal} vectors for {len(self._built_I)} item rows")
        self.exact = isinstance(self._index, faiss.IndexFlat)
        if isinstance(self._index, faiss.IndexIVF):
            self._index.make_direct_map()  # so that vectors can be had by place
        told = pl.read_parquet_metadata(artifact.file(ROWS_FILE))
        self.dimensions = int(told.get(_DIMENSIONS, self._index.d))
        self.change(IndexChanges.load(artifact.path) if artifact.has(CHANGES_FILE) else None)
        if config.threads:
            faiss.omp_set_num_threads(config.threads)

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
        scores_BK, places_BK = self._index.search(_padded(queries_BD, self._index.d), k)
        return np.where(places_BK >= 0, self._built_I[places_BK], -1), scores_BK

    def _built(
        self, query_D: Floats, k: int, hidden_I: npt.NDArray[np.bool_], left_out: int,
        only_I: npt.NDArray[np.bool_] | None,
    ) -> tuple[Rows, Floats]:  # fmt: skip
        """Return at least the best k of what was built and is not hidden."""
        total, options = len(self._built_I), None
        if only_I is not None:
            places = only_I[self._built_I]
            total = int(places.sum())
            if not self.exact and total <= _SCANNED:
                return self._scanned(query_D, np.flatnonzero(places & ~hidden_I[self._built_I]))
            selector = faiss.IDSelectorBitmap(np.packbits(places, bitorder="little"))  # type: ignore[call-arg,arg-type]
            options = _options(self._index, selector)
        if total == 0:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        wanted = min(total, k + left_out + _EXTRA)
        asked = _padded(query_D.reshape(1, -1), self._index.d)
        while True:
            answer = self._index.search(asked, wanted, params=options)
            scores_K, places_K = (part[0] for part in answer)
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
        asked, scores = _padded(query_D.reshape(1, -1), self._index.d)[0], [np.empty(0, np.float32)]
        for start in range(0, len(places), _PIECE):
            scores.append(self._index.reconstruct_batch(places[start : start + _PIECE]) @ asked)
        return self._built_I[places], np.concatenate(scores)

    def vector(self, row: int) -> Floats | None:
        """Return the vector of an item row, or None when the item is not in the index."""
        place = int(np.searchsorted(self.changes.added_A, row))
        if place < len(self.changes.added_A) and self.changes.added_A[place] == row:
            return np.asarray(self.changes.vectors_AD[place], dtype=np.float32)
        place = int(np.searchsorted(self._built_I, row))
        if place >= len(self._built_I) or self._built_I[place] != row or self._hidden_I[row]:
            return None
        return np.asarray(self._index.reconstruct(place), dtype=np.float32)[: self.dimensions]


def _options(index: Any, selector: Any) -> Any:
    """Return how a kind is told which places may be looked at, with its own effort."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        base = _options(index.base_index, selector)
        return faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=base)  # type: ignore[call-arg]
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(sel=selector, nprobe=index.nprobe)  # type: ignore[call-arg]
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(sel=selector, efSearch=index.hnsw.efSearch)  # type: ignore[attr-defined]
    return faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
