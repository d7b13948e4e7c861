"""Which kind of index is served: tuned on some queries, judged on others against exact search.

Axes: I items, Q queries, D dimensions, K places.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from kgrec.serving.index_config import IndexConfig, KindName

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
AT: Final = 10
ORDER: Final = (KindName.IVF_PQ, KindName.HNSW, KindName.IVF)
_TIMED: Final = 100


class Tunable(Protocol):
    """An index that can look harder: `set_effort` takes one of the words of `efforts`, the least first."""

    efforts: Sequence[str]

    def set_effort(self, effort: str) -> None:
        """Look this hard from now on."""

    def nearest(self, queries_QD: Floats, k: int) -> Rows:
        """Return the k nearest places of each query, (Q, K)."""


@dataclass(frozen=True)
class Tried:
    """What was measured of a kind: recall@10 on queries it was not tuned on, the mean time of one search alone."""

    kind: str
    effort: str
    recall: float
    milliseconds: float
    build_seconds: float
    refused: str = ""


@dataclass(frozen=True)
class Choice:
    """The index to serve (None: the exact one) and all that was tried on the way."""

    index: Tunable | None
    kind: KindName
    tried: tuple[Tried, ...]

    def facts(self) -> dict[str, Any]:
        """Return what is said of the choice, JSON-able."""
        return {"kind": self.kind.value} | ({"tried": [asdict(one) for one in self.tried]} if self.tried else {})


def choose(
    config: IndexConfig, count: int, queries_QD: Floats, exact: Callable[[Floats, int], Rows],
    make: Mapping[KindName, Callable[[], Tunable]],
) -> Choice:  # fmt: skip
    """Return the first kind that reaches the recall within the latency, or the exact one.

    queries_QD: users as they will ask; every other one tunes, the rest judge. exact: the true nearest places. make: how
    each kind is built; none is built that is not asked for. Without queries nothing can be judged: exact.
    """
    wanted = ORDER if config.kind is KindName.AUTO else (config.kind,)
    small = config.kind is KindName.AUTO and count <= config.exact_items
    if config.kind is KindName.EXACT or small or len(queries_QD) < 2:
        return Choice(None, KindName.EXACT, ())
    truth_QK = exact(queries_QD, AT)
    tried: list[Tried] = []
    for kind in wanted:
        began = time.perf_counter()
        index = make[kind]()
        found = _tuned(index, kind, config, queries_QD, truth_QK, time.perf_counter() - began)
        tried.append(found)
        if not found.refused:
            return Choice(index, kind, tuple(tried))
    return Choice(None, KindName.EXACT, tuple(tried))


def _tuned(
    index: Tunable, kind: KindName, config: IndexConfig, queries_QD: Floats, truth_QK: Rows, seconds: float
) -> Tried:
    """Raise the effort until the recall is reached on the even queries; judge on the odd ones.

    Reached: by two standard errors more, so that an effort that is just enough is not refused by the others' chance.
    """
    effort = ""
    margin = 2 * (config.recall * (1 - config.recall) / max(1, truth_QK[::2].size)) ** 0.5
    for effort in index.efforts:
        index.set_effort(effort)
        if recall_of(index.nearest(queries_QD[::2], AT), truth_QK[::2]) >= min(1.0, config.recall + margin):
            break
    recall = recall_of(index.nearest(queries_QD[1::2], AT), truth_QK[1::2])
    timed, began = queries_QD[1::2][:_TIMED], time.perf_counter()
    for query_D in timed:
        index.nearest(query_D[None], AT)
    milliseconds = 1000 * (time.perf_counter() - began) / len(timed)
    refused = ""
    if recall < config.recall:
        refused = f"recall@{AT} {recall:.4f} is below {config.recall}"
    elif milliseconds > config.latency_ms:
        refused = f"a search takes {milliseconds:.1f} ms, more than {config.latency_ms:g}"
    return Tried(kind.value, effort, round(recall, 5), round(milliseconds, 3), round(seconds, 2), refused)


def recall_of(found_QK: Rows, truth_QK: Rows) -> float:
    """Return the share of the true places that were found.

    >>> recall_of(np.array([[1, 2], [5, -1]]), np.array([[2, 3], [5, 6]]))
    0.5
    """
    hits = [np.isin(truth_K, found_K).sum() for found_K, truth_K in zip(found_QK, truth_QK, strict=True)]
    return float(np.sum(hits) / max(1, truth_QK.size))
