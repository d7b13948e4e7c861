"""The question that every ranker answers on one part of the log: whom to ask, what is relevant, what may be shown.

The model, the baselines and the promoted version are all judged through `judge_ranking`, on the same question.

Axes: U users, I items, B users asked, K places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch
from torch import Tensor

from kgrec import columns as c
from kgrec.evaluation.pairs import Pairs
from kgrec.evaluation.ranking import (
    EvaluationConfig,
    HistoryKnown,
    Target,
    ranking_cold,
    ranking_metrics,
    seen_pairs,
    top_k,
)

Scorer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class RankingQuestion:
    """Whom to rank for in one part. truth has one row per asked user; seen and history one per user of the vocabulary.

    history: what a ranker may read of a user, the same for the model and the baselines: all that came before the part
    or, where the config says so, the train events (of a user without any, those of validation). target_history: those
    with the target event alone. seen: all that came before and is no candidate. candidates_I: the catalogue. cold_I:
    its items that no training event names. truth_already_seen: relevant pairs left out because the user had the item
    before and it is no candidate.
    """

    users_B: Tensor
    truth: Pairs
    seen: Pairs
    history: Pairs
    target_history: Pairs
    candidates_I: Tensor
    cold_I: Tensor
    truth_already_seen: int


def target_pairs(events: pl.DataFrame, parts: Sequence[str], target: Target, num_users: int, num_items: int) -> Pairs:
    """Return the (user, item) pairs with the target event in any of the parts."""
    wanted = pl.col(c.PART).cast(pl.String).is_in(list(parts))
    flag = pl.col(c.CONVERSION) if target is Target.CONVERSION else pl.col(c.CLICK) | pl.col(c.CONVERSION)
    return _pairs(events.filter(wanted & flag), num_users, num_items)


def ask(
    events: pl.DataFrame, part: str, config: EvaluationConfig, catalogue_I: Tensor, num_users: int
) -> RankingQuestion:
    """Return the question of a part ("validation" or "test"). events: user_row, item_row, click, conversion, part.

    Relevant are the items with the target event in the part; a click counts a conversion without a click, too.
    """
    num_items = len(catalogue_I)
    before = [c.TRAIN] if part == c.VALIDATION else [c.TRAIN, c.VALIDATION]
    earlier = events.filter(pl.col(c.PART).cast(pl.String).is_in(before))
    in_train = pl.col(c.PART).cast(pl.String) == c.TRAIN
    known = earlier
    if config.history is HistoryKnown.TRAIN:
        known = earlier.filter(in_train | ~in_train.any().over(c.USER_ROW))
    history, before_this = _pairs(known, num_users, num_items), _pairs(earlier, num_users, num_items)
    target_history, target_before, relevant = (
        target_pairs(frame, parts, config.target, num_users, num_items)
        for frame, parts in ((known, before), (earlier, before), (events, [part]))
    )
    seen = seen_pairs(config.exclude_seen, before_this, target_before)
    fresh_keys = relevant.keys()[~torch.isin(relevant.keys(), seen.keys())]
    fresh = Pairs.of(fresh_keys // max(num_items, 1), fresh_keys % max(num_items, 1), num_users, num_items)
    users_B = fresh.counts().nonzero()[:, 0]
    warm = events.filter(pl.col(c.PART) == c.TRAIN)[c.ITEM_ROW].unique().to_numpy()
    cold_I = catalogue_I.clone()
    cold_I[torch.tensor(warm, dtype=torch.int64)] = False
    dropped = len(relevant.indices) - len(fresh.indices)
    return RankingQuestion(
        users_B, fresh.take(users_B), seen, history, target_history, catalogue_I, cold_I, dropped
    )  # fmt: skip


def answer(question: RankingQuestion, score_rows: Scorer, k: int) -> Tensor:
    """Return the top k items of each asked user, from a function of user rows to scores_BI."""
    return top_k(score_rows, question.users_B, question.seen, k, candidates_I=question.candidates_I)


def judge_ranking(question: RankingQuestion, top_BK: Tensor, config: EvaluationConfig) -> dict[str, dict[str, Any]]:
    """Return `ranking` and, where relevant cold items exist, `ranking_cold` of the lists (contract part 4)."""
    if len(question.users_B) == 0:
        return {}
    figures: dict[str, dict[str, Any]] = {"ranking": ranking_metrics(top_BK, question.truth, config.k)}
    cold = ranking_cold(top_BK, question.truth, question.cold_I, config.k)
    if cold["num_users"]:
        figures["ranking_cold"] = cold
    return figures


def with_fallback(score_known: Scorer, history: Pairs, popularity_I: Tensor) -> Scorer:
    """Return a scorer that gives users without any history the popularity of items, as the service does."""
    has_history_U = history.counts() > 0

    def score(rows_B: Tensor) -> Tensor:
        scores_BI = score_known(rows_B).clone()
        unknown_B = ~has_history_U[rows_B]
        scores_BI[unknown_B] = popularity_I.to(scores_BI.dtype)
        return scores_BI

    return score


def _pairs(events: pl.DataFrame, num_users: int, num_items: int) -> Pairs:
    users = torch.tensor(events[c.USER_ROW].to_numpy(), dtype=torch.int64)
    items = torch.tensor(events[c.ITEM_ROW].to_numpy(), dtype=torch.int64)
    return Pairs.of(users, items, num_users, num_items)
