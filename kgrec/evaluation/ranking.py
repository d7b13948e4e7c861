"""Full-catalogue ranking: exact top-k lists and the metrics over them (conventions of record: contract part 5).

Shapes: B users of a chunk or a list, I items, K places of a list, D dimensions, U users, N non-zeros.
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

METRICS: Final = ("recall", "ndcg", "mrr", "precision", "hit", "map", "r_precision")
EMPTY: Final = -1
"""What stands in a list's place that no item fills."""
_CHUNK_SCORES: Final = 16_000_000
_MINUS_INFINITY: Final = float("-inf")

FloatArray = npt.NDArray[np.float64]


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
        tops.append(_top_of(scores_BI, k))
    return torch.cat(tops)


def _top_of(scores_BI: Tensor, k: int) -> Tensor:
    num_users, num_items = scores_BI.shape
    places = min(k, num_items)
    values_BP, items_BP = scores_BI.topk(min(k + 1, num_items), dim=1)
    if bool(values_BP[:, :1].isnan().any()):  # topk holds NaN for the greatest of all, so one would come first
        raise ValueError("a score is NaN")
    if num_items > k:
        border_B = values_BP[:, k - 1]
        tied_T = ((border_B == values_BP[:, k]) & (border_B != _MINUS_INFINITY)).nonzero()[:, 0]
        values_BP, items_BP = values_BP[:, :k], items_BP[:, :k].clone()
        if len(tied_T):
            items_BP[tied_T] = _resolve_border(scores_BI, values_BP[tied_T], items_BP[tied_T], tied_T)
    items_BP, by_item = items_BP.sort(dim=1)
    values_BP, by_value = values_BP.gather(1, by_item).sort(dim=1, descending=True, stable=True)
    items_BP = items_BP.gather(1, by_value).masked_fill(values_BP == _MINUS_INFINITY, EMPTY)
    top_BK = torch.full((num_users, k), EMPTY, dtype=torch.int64)
    top_BK[:, :places] = items_BP
    return top_BK


def _resolve_border(scores_BI: Tensor, values_TK: Tensor, items_TK: Tensor, tied_T: Tensor) -> Tensor:
    """Of the items that tie at the k-th place, let the smallest rows in; those above the border stay."""
    border_T1 = values_TK[:, -1:]
    at_border_TK = values_TK == border_T1
    for start in range(0, len(tied_T), 64):  # a popular border is rare: small blocks keep the memory low
        block = slice(start, start + 64)
        equal_TI = scores_BI[tied_T[block]] == border_T1[block]
        allowed_T1 = at_border_TK[block].sum(1, keepdim=True)
        admitted_TI = equal_TI & (equal_TI.cumsum(1, dtype=torch.int32) <= allowed_T1)
        items_TK[block][at_border_TK[block]] = admitted_TI.nonzero()[:, 1]
    return items_TK


def metrics_per_user(top_BK: Tensor, truth: Pairs, ks: Sequence[int]) -> dict[str, FloatArray]:
    """Return each metric@k of each user with something relevant, and `row`, their places among the B lists.

    truth: the relevant items, row b for list b. recall = hits / relevant; NDCG's ideal list has min(relevant, k)
    hits (Jarvelin and Kekalainen, 2002, binary gains); mrr = reciprocal rank of the first hit within k, else 0; map =
    the mean over the relevant items of the precision at each hit within k, 0 for the others; r_precision = hits in the
    first min(relevant, k) places / relevant; all in [0, 1], higher is better. -1 in a list is an empty place: no hit.
    ValueError for a k beyond the list, a repeated item in a list or lists that do not fit the truth.
    """
    hits_BK = _hits(top_BK, truth, ks)
    relevant_B = truth.counts().numpy()
    judged = np.flatnonzero(relevant_B)
    hits, relevant = hits_BK.numpy()[judged].astype(np.float64), relevant_B[judged].astype(np.float64)
    ranks_K = np.arange(1, top_BK.shape[1] + 1)
    gains_K = 1.0 / np.log2(ranks_K + 1.0)
    ideal_K, so_far = np.cumsum(gains_K), np.cumsum(hits, axis=1)
    answer: dict[str, FloatArray] = {"row": judged.astype(np.float64)}
    for k in ks:
        found = hits[:, :k].sum(axis=1)
        answer[f"recall@{k}"] = found / relevant
        best = ideal_K[np.minimum(relevant, k).astype(np.int64) - 1]
        answer[f"ndcg@{k}"] = (hits[:, :k] * gains_K[:k]).sum(axis=1) / best
        answer[f"mrr@{k}"] = (hits[:, :k] / ranks_K[:k]).max(axis=1, initial=0.0)
        answer[f"precision@{k}"] = found / k
        answer[f"hit@{k}"] = (found > 0).astype(np.float64)
        answer[f"map@{k}"] = (hits[:, :k] * so_far[:, :k] / ranks_K[:k]).sum(axis=1) / relevant
        answer[f"r_precision@{k}"] = (hits[:, :k] * (ranks_K[:k] <= relevant[:, None])).sum(axis=1) / relevant
    return answer


def _hits(top_BK: Tensor, truth: Pairs, ks: Sequence[int]) -> Tensor:
    num_lists, length = top_BK.shape
    if num_lists != truth.num_rows:
        raise ValueError(f"{num_lists} lists and {truth.num_rows} rows of truth")
    if not ks or min(ks) < 1 or max(ks) > length:
        raise ValueError(f"k must be in [1, {length}], the lists' length, got {list(ks)}")
    if top_BK.numel() and int(top_BK.max()) >= truth.num_columns:
        raise ValueError(f"item row {int(top_BK.max())} in a list, but there are {truth.num_columns} items")
    ordered_BK = top_BK.sort(dim=1).values
    if bool(((ordered_BK.diff(dim=1) == 0) & (ordered_BK[:, 1:] >= 0)).any()):
        raise ValueError("a list names an item twice")
    keys_N = truth.keys()
    if not len(keys_N):
        return torch.zeros_like(top_BK, dtype=torch.bool)
    wanted_BK = torch.arange(num_lists)[:, None] * truth.num_columns + top_BK
    found_BK = torch.searchsorted(keys_N, wanted_BK).clamp_max(len(keys_N) - 1)
    return (keys_N[found_BK] == wanted_BK) & (top_BK >= 0)


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
