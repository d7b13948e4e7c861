"""The blocks of the served vector: which linear scorer stands beside the trained vectors, and with what weights.

Axes: U users, I items, D trained and R linear dimensions, W all served dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any, Final

import torch
from torch import Tensor

from kgrec import columns as c
from kgrec.chain.questions import Judge, exported_vectors
from kgrec.chain.tuning import fitted, histories
from kgrec.config import RunConfig
from kgrec.evaluation.baselines import climb
from kgrec.evaluation.low_rank import low_rank
from kgrec.model.blocks import BlocksConfig, joined_items, popularity_block, unit_blocks
from kgrec.model.network import Network
from kgrec.seeds import derive_seed
from kgrec.training.tasks import TrainingData

LINEAR: Final = ("ease", "linear_filter", "item_knn")


def served_vectors(
    network: Network, data: TrainingData, judge: Judge, tuned: Mapping[str, Mapping[str, Any]], config: RunConfig
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the vectors to serve, with block weights chosen on validation, and what was chosen, for people.

    The vectors stay the trained ones alone where this run does not rank. A block that earns nothing gets weight 0.
    """
    trained = exported_vectors(network)
    if data.positives is None or not judge.asks_ranking:
        return trained, {}
    question = judge.question(c.VALIDATION)
    metric = f"ndcg@{config.evaluation.k[0]}"
    name = _best_linear(tuned, metric, trained["item_vectors_ID"].shape[0], config.blocks)
    counts_I = torch.zeros(network.shape.num_items).index_add_(0, data.positives.item_P, data.positives.weight_P)
    popularity_I = popularity_block(counts_I)
    fold_IR, linear_IR = torch.zeros(network.shape.num_items, 0), torch.zeros(network.shape.num_items, 0)
    if name is not None:
        generator = torch.Generator().manual_seed(derive_seed(config.seed, "linear block"))
        history_UI = histories(config.evaluation, question)[tuned[name]["events"]]
        scorer = fitted(name, tuned[name], question, config)
        fold_IR, linear_IR = low_rank(scorer, history_UI, config.blocks.linear_rank, generator)
    widths = [trained["item_vectors_ID"].shape[1], linear_IR.shape[1]]
    sums_UR = torch.zeros(network.shape.num_users, widths[1])
    sums_UR.index_add_(0, question.history.rows(), fold_IR[question.history.indices])
    base = {
        "user_vectors_UD": unit_blocks(torch.cat([trained["user_vectors_UD"], sums_UR], dim=1), widths),
        "item_fold_ID": torch.cat([trained["item_fold_ID"], fold_IR], dim=1),
        "block_widths": torch.tensor(widths),
    }

    def vectors(setting: Mapping[str, float]) -> dict[str, Tensor]:
        weights = (setting["linear"], setting["popularity"])
        return base | {"item_vectors_ID": joined_items(trained["item_vectors_ID"], linear_IR, popularity_I, weights)}

    linear_weights = config.blocks.linear_weights if name is not None else (0.0,)
    settings = [
        {"linear": linear, "popularity": popularity}
        for linear, popularity in product(sorted(linear_weights), sorted(config.blocks.popularity_weights))
    ]
    seen: dict[tuple[float, ...], float] = {}

    def quality(setting: Mapping[str, float]) -> float:
        key = tuple(setting.values())
        if key not in seen:
            seen[key] = judge.ranking(vectors(setting)).get(metric, 0.0)
        return seen[key]

    chosen = climb(settings, quality)
    told = {"linear": name or "none", "linear_weight": chosen["linear"], "popularity_weight": chosen["popularity"],
            f"validation_{metric}": quality(chosen), "linear_rank": widths[1]}  # fmt: skip
    return vectors(chosen), told


def _best_linear(
    tuned: Mapping[str, Mapping[str, Any]], metric: str, num_items: int, config: BlocksConfig
) -> str | None:
    """Return the linear baseline that is best on validation, None where none ran or the block is switched off."""
    if config.linear_rank == 0 or max(config.linear_weights) == 0:
        return None
    ran = [name for name in LINEAR if "validation" in tuned.get(name, {})]
    return max(ran, key=lambda name: tuned[name]["validation"]["ranking"].get(metric, 0.0), default=None)
