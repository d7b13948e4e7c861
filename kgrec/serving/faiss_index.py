"""The one place that knows FAISS: kinds of index, built in pieces and in shards, files that may stay on disk.

Places count vectors from 0 in the order in which they were given; a shard holds a run of them.
Axes: I vectors, Q queries, D dimensions, K answers, P places.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from kgrec.serving.index_config import KindName

FILE: Final = "index.faiss"
_PIECE: Final = 100_000  # vectors that are added, or compared, at a time

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

faiss.cvar.distance_compute_blas_threshold = 20
"""Queries from which vectors are compared by one matrix product. FAISS 1.15 waits until there are 128,000, and looks at
one after the other until then: 12 times slower over 10^6 vectors of 64 dimensions."""


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
            lambda count, d: f"IVF{_lists(count)},PQ{d}x4fsr,RFlat",  # of what the list's centre leaves over
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


class FaissIndex:
    """Shards that answer as one index: places run on from shard to shard.

    One query looks into all shards side by side, a thread each, so long as there are cores; many go through shard after
    shard, on all threads of a search.
    """

    def __init__(self, shards: Sequence[Any]) -> None:
        self._shards = list(shards)
        self.width = int(self._shards[0].d)
        self._starts = np.cumsum([0, *(int(shard.ntotal) for shard in self._shards)])
        self.count = int(self._starts[-1])
        self.exact = all(isinstance(shard, faiss.IndexFlat) for shard in self._shards)
        for shard in self._shards:
            if isinstance(shard, faiss.IndexIVF):
                shard.make_direct_map()  # so that vectors can be had by place
        most = min(len(self._shards), os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(most, initializer=partial(search_threads, 1)) if most > 1 else None

    @classmethod
    def read(cls, shards: Sequence[Path], *, memory_map: bool, effort: str = "") -> FaissIndex:
        """Read the shards. memory_map: leave them on disk. effort: how hard they look, "" as they were written."""
        flags = faiss.IO_FLAG_MMAP_IFC if memory_map else 0
        index = cls([faiss.read_index(str(path), flags) for path in shards])
        if effort:
            index.set_effort(effort)
        return index

    def set_effort(self, effort: str) -> None:
        """Look this hard from now on."""
        for shard in self._shards:
            faiss.ParameterSpace().set_index_parameters(shard, effort)  # type: ignore[arg-type]

    def search(self, queries_QD: Floats, k: int, only_I: Flags | None = None) -> tuple[Floats, Rows]:
        """Return the scores and places of the k nearest of each query, best first, -1 where there are fewer.

        only_I: a flag per place; the others are not looked at. Of several shards equal scores come by place.
        """
        asked_QD = padded(queries_QD, self.width)
        one = partial(self._in_shard, asked_QD, k, only_I)
        numbers = range(len(self._shards))
        answers = [*(self._pool.map if self._pool and len(asked_QD) == 1 else map)(one, numbers)]
        if len(answers) == 1:
            return answers[0]
        scores_QN, places_QN = (np.concatenate(part, axis=1) for part in zip(*answers, strict=True))
        scores_QN = np.where(places_QN >= 0, scores_QN, -np.inf).astype(np.float32)
        order_QK = np.lexsort((places_QN, -scores_QN), axis=1)[:, :k]
        return tuple(np.take_along_axis(part, order_QK, axis=1) for part in (scores_QN, places_QN))  # type: ignore[return-value]

    def _in_shard(self, asked_QD: Floats, k: int, only_I: Flags | None, number: int) -> tuple[Floats, Rows]:
        shard, start, end = self._shards[number], self._starts[number], self._starts[number + 1]
        options = None
        if only_I is not None:
            bits = np.packbits(only_I[start:end], bitorder="little")
            options = _options(shard, faiss.IDSelectorBitmap(bits))  # type: ignore[call-arg,arg-type]
        scores_QK, places_QK = shard.search(asked_QD, k, params=options)
        return scores_QK, np.where(places_QK >= 0, places_QK + start, -1)

    def vectors(self, places_P: Rows) -> Floats:
        """Return the vectors at these places, (P, D), with the zeros that a kind's width adds."""
        found_PD = np.empty((len(places_P), self.width), np.float32)
        number_P = np.searchsorted(self._starts, places_P, side="right") - 1
        for number in np.unique(number_P):
            mine_P = number_P == number
            found_PD[mine_P] = self._shards[number].reconstruct_batch(places_P[mine_P] - self._starts[number])
        return found_PD


class Measured:
    """An index of a kind over vectors, its shards written as they are built and left on disk while it is judged."""

    def __init__(self, kind: KindName, vectors_ID: Floats, shards: int, folder: Path) -> None:
        """folder: where the shards go. ValueError of FAISS when a kind cannot be made of so few vectors."""
        made, self.shards = KINDS[kind], shards
        width = -(-vectors_ID.shape[1] // made.multiple) * made.multiple
        first = next(_runs(len(vectors_ID), shards))
        most = first.stop - first.start
        self.efforts: Sequence[str] = made.efforts(most)
        self.effort = ""
        for name, run in zip(shard_files(shards), _runs(len(vectors_ID), shards), strict=True):
            index = faiss.index_factory(width, made.factory(most, width), faiss.METRIC_INNER_PRODUCT)
            count = run.stop - run.start
            step = max(1, count // max(64 * _lists(most), 20_000))
            index.train(padded(vectors_ID[run][::step], width))
            _fill(index, vectors_ID[run])
            faiss.write_index(index, str(folder / name))
        self.index = FaissIndex.read([folder / name for name in shard_files(shards)], memory_map=True)

    def set_effort(self, effort: str) -> None:
        """Look this hard from now on."""
        self.effort = effort
        self.index.set_effort(effort)

    def nearest(self, queries_QD: Floats, k: int) -> Rows:
        """Return the k nearest places of each query."""
        return self.index.search(queries_QD, k)[1]


def write_exact(vectors_ID: Floats, shards: int, folder: Path) -> None:
    """Write the shards of the exact index."""
    for name, run in zip(shard_files(shards), _runs(len(vectors_ID), shards), strict=True):
        index = faiss.IndexFlatIP(vectors_ID.shape[1])
        _fill(index, vectors_ID[run])
        faiss.write_index(index, str(folder / name))


def nearest_exactly(vectors_ID: Floats, queries_QD: Floats, k: int) -> Rows:
    """Return the k nearest places of each query, compared with all vectors piece by piece, -1 where there are fewer."""
    scores_QK = np.full((len(queries_QD), k), -np.inf, np.float32)
    places_QK = np.full((len(queries_QD), k), -1, np.int64)
    for start in range(0, len(vectors_ID), _PIECE):
        piece = np.ascontiguousarray(vectors_ID[start : start + _PIECE], np.float32)
        scores, places = faiss.knn(queries_QD, piece, min(k, len(piece)), metric=faiss.METRIC_INNER_PRODUCT)
        scores, places = np.concatenate([scores_QK, scores], 1), np.concatenate([places_QK, places + start], 1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores_QK, places_QK = np.take_along_axis(scores, order, axis=1), np.take_along_axis(places, order, axis=1)
    return places_QK


def shard_files(count: int) -> list[str]:
    """Return the names of so many shards' files.

    >>> shard_files(3)
    ['index.faiss', 'index-001.faiss', 'index-002.faiss']
    """
    return [FILE, *(f"index-{number:03d}.faiss" for number in range(1, count))]


def padded(vectors_ND: Floats, width: int) -> Floats:
    """Return the vectors with zeros up to a width: no inner product changes."""
    missing = width - vectors_ND.shape[1]
    return np.ascontiguousarray(np.pad(vectors_ND, ((0, 0), (0, missing))) if missing else vectors_ND, np.float32)


def search_threads(count: int) -> None:
    """Set how many threads one search takes, for the thread that asks and those it starts."""
    faiss.omp_set_num_threads(count)


def _runs(count: int, shards: int) -> Iterator[slice]:
    """Yield the run of places of each shard, the longest first."""
    ends = np.cumsum([count // shards + (number < count % shards) for number in range(shards)])
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        yield slice(int(start), int(end))


def _fill(index: Any, vectors_ID: Floats) -> None:
    for start in range(0, len(vectors_ID), _PIECE):
        index.add(padded(vectors_ID[start : start + _PIECE], index.d))


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
