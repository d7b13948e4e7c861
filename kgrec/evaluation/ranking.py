"""Full-catalogue ranking: exact top-k lists and the metrics over them (conventions of record: contract part 5).

Shapes: B users of a chunk or a list, I items, K places of a list, D dimensions, U users, N pairs of the
truth, H hits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from kgrec.evaluation.calibration import CalibrationName
from kgrec.evaluation.pairs import Pairs
from kgrec.evaluation.segments import DetailsConfig
from kgrec.evaluation.selection import NO_ITEM, best_of

METRICS: Final = ("recall", "ndcg", "mrr", "precision", "hit", "map", "r_precision")
EMPTY: Final = NO_ITEM
"""What stands in a list's place that no item fills."""
_CHUNK_SCORES: Final = 16_000_000
_MINUS_INFINITY: Final = float("-inf")

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Target(StrEnum):
    """The event that counts as relevant."""

    CLICK = "click"
    CONVERSION = "conversion"


class ExcludeSeen(StrEnum):
    """Which of a user's earlier items are no candidates."""

    ANY = "any"
    TARGET = "target"
    NONE = "none"


class HistoryKnown(StrEnum):
    """What a ranker may know of a user at test."""

    ALL = "all"
    TRAIN = "train"


class EvaluationConfig(BaseModel):
    """How lists are made and judged: [evaluation]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: tuple[int, ...] = Field(
        (10, 20), min_length=1, description="List lengths to report, in items, each 1 or more; sorted, no repeats kept."
    )
    target: Target = Field(Target.CLICK, description='The event that counts as relevant: "click" or "conversion".')
    exclude_seen: ExcludeSeen = Field(
        ExcludeSeen.ANY,
        description='Candidates leave out what the user had before: "any" event, the "target" event only, or "none".',
    )

    calibration: CalibrationName = Field(
        CalibrationName.NONE,
        description="What is fitted to the towers' logits on validation: none, temperature (a slope), or platt (slope "
        "and intercept); nothing where a label has fewer than 100 positive or negative rows.",
    )
    history: HistoryKnown = Field(
        HistoryKnown.ALL,
        description='What a ranker may read of a user\'s history at test: "all" that came before, validation included, '
        'as the service does, or the "train" part alone, as most papers do; nothing is learned from it either way.',
    )

    details: DetailsConfig = Field(DetailsConfig(), description="What else the report looks at.")

    @field_validator("k")
    @classmethod
    def _sorted_lengths(cls, k: tuple[int, ...]) -> tuple[int, ...]:
        if any(length < 1 for length in k):
            raise ValueError(f"a list has at least one place, got {list(k)}")
        return tuple(sorted(set(k)))


def seen_pairs(exclude_seen: ExcludeSeen, any_event: Pairs, target_event: Pairs) -> Pairs:
    """Return what the candidates leave out: pairs of any event, of the target event, or none."""
    if exclude_seen is ExcludeSeen.NONE:
        return Pairs.empty(any_event.num_rows, any_event.num_columns)
    return any_event if exclude_seen is ExcludeSeen.ANY else target_event


def top_k(
    score_rows: Callable[[Tensor], Tensor],
    user_rows_B: Tensor,
    seen: Pairs | None,
    k: int,
    *,
    candidates_I: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Return each user's k best items, best first, ties broken by the smaller item row, as int64 top_BK.

    score_rows: from int64 user rows to float scores_BI (copied before use). seen: (user, item) pairs that are no
    candidates, rows by user row. candidates_I: boolean mask of the items that may be shown. chunk: users at a time.
    A score of minus infinity means "never"; a list that runs short ends in -1. ValueError when a score is NaN.

    >>> top_k(lambda rows: torch.tensor([[1.0, 2.0, 2.0]]), torch.tensor([0]), None, k=4).tolist()
    [[1, 2, 0, -1]]
    """

    def fresh_scores(rows: Tensor) -> Tensor:
        scores_BI = score_rows(rows)
        return scores_BI.clone() if scores_BI.is_floating_point() else scores_BI.to(torch.float64)

    return _top_in_chunks(fresh_scores, user_rows_B, seen, k, candidates_I=candidates_I, chunk=chunk or 512)


def top_k_dot(
    user_vectors_UD: Tensor,
    item_vectors_ID: Tensor,
    user_rows_B: Tensor,
    seen: Pairs | None,
    k: int,
    *,
    candidates_I: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Return `top_k` of the dot products of user and item vectors, at little more than the product's own cost."""
    items_DI = item_vectors_ID.detach().T
    chunk = chunk or max(1, _CHUNK_SCORES // max(len(item_vectors_ID), 1))
    buffer_BI = torch.empty(min(chunk, len(user_rows_B)), len(item_vectors_ID), dtype=item_vectors_ID.dtype)

    def product(rows: Tensor) -> Tensor:
        return torch.mm(user_vectors_UD.detach()[rows], items_DI, out=buffer_BI[: len(rows)])

    return _top_in_chunks(product, user_rows_B, seen, k, candidates_I=candidates_I, chunk=chunk)


@torch.no_grad()
def _top_in_chunks(
    owned_scores: Callable[[Tensor], Tensor],
    user_rows_B: Tensor,
    seen: Pairs | None,
    k: int,
    *,
    candidates_I: Tensor | None,
    chunk: int,
) -> Tensor:
    if k < 1 or chunk < 1:
        raise ValueError(f"k and chunk must be 1 or more, got {k} and {chunk}")
    if not len(user_rows_B):
        return torch.empty(0, k, dtype=torch.int64)
    tops = []
    for rows in torch.split(user_rows_B, chunk):
        scores_BI = owned_scores(rows)
        if seen is not None:
            seen_here = seen.take(rows)
            places = (seen_here.rows(), seen_here.indices)
            if bool(scores_BI[places].isnan().any()):
                raise ValueError("a score is NaN (of an item that the user has seen)")
            scores_BI[places] = _MINUS_INFINITY
        if candidates_I is not None:
            scores_BI.masked_fill_(~candidates_I, _MINUS_INFINITY)
        tops.append(best_of(scores_BI, k))
    return torch.cat(tops)


def metrics_per_user(top_BK: Tensor, truth: Pairs, ks: Sequence[int]) -> dict[str, FloatArray]:
    """Return each metric@k of each user with something relevant, and `row`, their places among the B lists.

    truth: the relevant items, row b for list b. recall = hits / relevant; NDCG's ideal list has min(relevant, k)
    hits (Jarvelin and Kekalainen, 2002, binary gains); mrr = reciprocal rank of the first hit within k, else 0; map =
    the mean over the relevant items of the precision at each hit within k, 0 for the others; r_precision = hits in the
    first min(relevant, k) places / relevant; all in [0, 1], higher is better. -1 in a list is an empty place: no hit.
    ValueError for a k beyond the list, a repeated item in a list or lists that do not fit the truth.
    """
    list_H, place_H = _hits(top_BK, truth, ks)
    relevant_B = truth.counts().numpy()
    judged = np.flatnonzero(relevant_B)
    relevant = relevant_B[judged].astype(np.float64)
    gain_H: FloatArray = 1.0 / np.log2(place_H + 2.0)
    inverse_H = (1.0 / (place_H + 1.0)).astype(np.float64)
    nth_H = np.arange(len(list_H)) - np.searchsorted(list_H, list_H) + 1.0
    ideal_K = np.cumsum(1.0 / np.log2(np.arange(max(ks)) + 2.0))

    def total(kept_H: npt.NDArray[np.bool_], worth_H: FloatArray) -> FloatArray:
        sums_B = np.bincount(list_H[kept_H], weights=worth_H[kept_H], minlength=len(relevant_B))
        return sums_B[judged].astype(np.float64)

    answer: dict[str, FloatArray] = {"row": judged.astype(np.float64)}
    for k in ks:
        inside_H = place_H < k
        found = total(inside_H, np.ones(len(list_H)))
        answer[f"recall@{k}"] = found / relevant
        best = ideal_K[np.minimum(relevant, k).astype(np.int64) - 1]
        answer[f"ndcg@{k}"] = total(inside_H, gain_H) / best
        answer[f"mrr@{k}"] = total(inside_H & (nth_H == 1), inverse_H)
        answer[f"precision@{k}"] = found / k
        answer[f"hit@{k}"] = (found > 0).astype(np.float64)
        answer[f"map@{k}"] = total(inside_H, nth_H * inverse_H) / relevant
        answer[f"r_precision@{k}"] = total(inside_H & (place_H < relevant_B[list_H]), np.ones(len(list_H))) / relevant
    return answer


def _hits(top_BK: Tensor, truth: Pairs, ks: Sequence[int]) -> tuple[IntArray, IntArray]:
    """Return list and place (from 0) of every hit, list by list from the top.

    One sort of the lists, each cell packed with its place, finds repeats and lets every relevant pair be looked up.
    """
    num_lists, length = top_BK.shape
    if num_lists != truth.num_rows:
        raise ValueError(f"{num_lists} lists and {truth.num_rows} rows of truth")
    if not ks or min(ks) < 1 or max(ks) > length:
        raise ValueError(f"k must be in [1, {length}], the lists' length, got {list(ks)}")
    top, width, bits = top_BK.numpy(), truth.num_columns + 1, length.bit_length()
    if top.size and int(top.max()) >= truth.num_columns:
        raise ValueError(f"item row {int(top.max())} in a list, but there are {truth.num_columns} items")
    cells_BK = np.where(top < 0, width - 1, top) + width * np.arange(num_lists)[:, None]  # the last column: empty
    packed_BK = np.sort((cells_BK << bits) | np.arange(length), axis=1)
    cells_BK = packed_BK >> bits
    repeated = cells_BK[:, 1:][cells_BK[:, 1:] == cells_BK[:, :-1]]
    if (repeated % width != width - 1).any():
        raise ValueError("a list names an item twice")
    wanted_N = (truth.rows() * width + truth.indices).numpy()
    packed = packed_BK.reshape(-1)
    found_N = (
        packed[np.searchsorted(packed, wanted_N << bits).clip(max=packed.size - 1)] if packed.size else wanted_N[:0]
    )
    hits_H = found_N[found_N >> bits == wanted_N] if packed.size else found_N
    list_H, place_H = hits_H // (width << bits), hits_H & ((1 << bits) - 1)
    order_H = np.lexsort((place_H, list_H))
    return list_H[order_H], place_H[order_H]


def ranking_metrics(top_BK: Tensor, truth: Pairs, ks: Sequence[int]) -> dict[str, float]:
    """Return the means of `metrics_per_user`, with num_users and num_users_without_relevant (not in the means).

    Without any user to judge, the metrics are absent and num_users is 0.

    >>> truth = Pairs.of([0], [2], num_rows=2, num_columns=3)
    >>> ranking_metrics(torch.tensor([[0, 2], [1, 0]]), truth, [2])["mrr@2"]
    0.5
    """
    return summarise(metrics_per_user(top_BK, truth, ks), truth.num_rows)


def summarise(per_user: Mapping[str, FloatArray], num_lists: int) -> dict[str, float]:
    """Return the means of per-user metrics and the counts of users, as `ranking_metrics` does."""
    num_users = len(per_user["row"])
    means = {name: float(values.mean()) for name, values in per_user.items() if name != "row" and num_users}
    return means | {"num_users": num_users, "num_users_without_relevant": num_lists - num_users}


def ranking_cold(top_BK: Tensor, truth: Pairs, cold_I: Tensor, ks: Sequence[int]) -> dict[str, float]:
    """Return `ranking_metrics` where only cold items (boolean mask: no training event names them) are relevant.

    The lists are the same as for all items: a cold item has to win its place against the whole catalogue.
    """
    return ranking_metrics(top_BK, truth.only_columns(cold_I), ks)
