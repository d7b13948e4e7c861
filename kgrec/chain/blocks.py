"""The served scores: which parts stand beside the trained vectors, chosen on validation.

Axes: U users, I items, B users asked, A those of them with a relevant candidate, P pooled candidates of a user, F parts
of a score, W served dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any, Final

import torch
from torch import Tensor

from kgrec import columns as c
from kgrec.chain.questions import Judge, exported_vectors
from kgrec.chain.tuning import KERNEL, LINEAR, Teacher
from kgrec.chain.weighing import chosen_weights, spread_of
from kgrec.config import RunConfig
from kgrec.evaluation.baselines import evenly
from kgrec.evaluation.graph_kernel import log_popularity
from kgrec.evaluation.item_weights import ItemWeights, largest_of_each_row
from kgrec.evaluation.protocol import RankingQuestion
from kgrec.evaluation.selection import places_of
from kgrec.model.blocks import BlocksConfig, BlockWeights, with_popularity
from kgrec.model.network import Network
from kgrec.serving.neighbours import Neighbours, compact
from kgrec.training.tasks import Positives, TrainingData

_POOL: Final = 100  # best candidates of each part that compete while weights are chosen
_CHUNK: Final = 256

Near = tuple[dict[str, Any], dict[str, str]]
"""The items x items weights of each part of neighbours, and where each comes from, by the part's name."""


def served_vectors(
    network: Network, data: TrainingData, judge: Judge, teacher: Teacher | None, config: RunConfig,
    weights_before: Mapping[str, float] | None = None, near: Near | None = None,
) -> tuple[dict[str, Tensor], dict[str, Any]]:  # fmt: skip
    """Return the tensors to serve, with the parts' weights as validation chose them, and what was chosen, for people.

    weights_before: the parts' weights of the version that an increment goes on from, from which the choice climbs.
    near: what `neighbour_matrices` found, where it was asked ahead.
    The vectors stay the trained ones alone where this run does not rank. A part that earns nothing gets weight 0.
    """
    trained = exported_vectors(network)
    if data.positives is None or teacher is None or not judge.asks_ranking:
        return trained, {}
    question, blocks = judge.question(c.VALIDATION), config.blocks
    popularity_I = _popularity(data.positives, network.shape.num_items)
    with_graph = network.config.graph_weight > 0
    matrices, sources = near or neighbour_matrices(teacher, blocks, with_graph=with_graph)
    pool = Pool(judge, trained, matrices, popularity_I, question, blocks.choosing_users, repeats=teacher.repeats)
    grids = {
        "linear": blocks.linear if "linear" in matrices else (0.0,),
        "kernel": blocks.kernel if "kernel" in matrices else (0.0,),
        "popularity": blocks.popularity,
        "repeat": blocks.repeat if teacher.repeats else (0.0,),
    }
    k = config.evaluation.k[0]
    chosen = chosen_weights(grids, lambda weights: pool.each_ndcg(weights, k), pool.spread(), weights_before)
    served = _served(trained, matrices, popularity_I, chosen)
    told = {"weights": asdict(chosen), "sources": sources, "users": len(pool.relevant_B)}
    told |= {f"validation_ndcg@{k}": pool.ndcg(chosen, k)}
    told |= {f"validation_ndcg@{k}_trained_alone": pool.ndcg(BlockWeights(), k)}
    return served, told


def served_again(
    network: Network, data: TrainingData, teacher: Teacher | None, config: RunConfig, chosen: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Return the tensors to serve of a network that learned again, with the weights that were chosen before.

    chosen: what `served_vectors` told. The parts of neighbours are fitted anew, on what the teacher knows.
    """
    trained = exported_vectors(network)
    if data.positives is None or teacher is None or not chosen:
        return trained
    matrices, _ = neighbour_matrices(teacher, config.blocks, with_graph=network.config.graph_weight > 0)
    popularity_I = _popularity(data.positives, network.shape.num_items)
    return _served(trained, matrices, popularity_I, BlockWeights(**chosen["weights"]))


def _popularity(positives: Positives, num_items: int) -> Tensor:
    return log_popularity(torch.zeros(num_items).index_add_(0, positives.item_P, positives.weight_P))


def _served(
    trained: Mapping[str, Tensor], matrices: Mapping[str, Any], popularity_I: Tensor, weights: BlockWeights
) -> dict[str, Tensor]:
    users_UD, items_ID = trained["user_vectors_UD"], trained["item_vectors_ID"]
    users_UW, items_IW = with_popularity(users_UD, items_ID, popularity_I, weights.popularity)
    vectors = {"user_vectors_UD": users_UW, "item_vectors_ID": items_IW, "item_fold_ID": trained["item_fold_ID"]}
    own = {name: trained[name] for name in ("user_own_UD",) if name in trained}
    widths = {"block_widths": torch.tensor([items_ID.shape[1]])}
    return own | vectors | widths | Neighbours(matrices, weights, len(items_ID)).tensors()


def neighbour_matrices(teacher: Teacher, config: BlocksConfig, *, with_graph: bool) -> Near:
    """Return the items x items weights of each part that can run, cut to size, and where each comes from."""
    matrices: dict[str, Any] = {}
    sources: dict[str, str] = {}
    if config.neighbour_weights == 0:
        return {}, {}
    keep = teacher.kept_per_row(config.neighbour_weights)
    name = teacher.best(LINEAR) if max(config.linear) else None
    if name is not None and name in teacher.fitted_before:
        matrices["linear"], sources["linear"] = teacher.fitted_before[name], name
    elif name is not None and isinstance(scorer := teacher.fitted(name), ItemWeights):
        matrices["linear"], sources["linear"] = largest_of_each_row(scorer.matrix_II, keep), name
    if max(config.kernel) and with_graph and (kernel := teacher.best(KERNEL)):
        hub = float(teacher.tuned[kernel]["setting"]["hub"])
        kernel_II = teacher.kernel_neighbours(hub, config.neighbour_weights)
        if kernel_II.size:
            matrices["kernel"], sources["kernel"] = kernel_II, f"graph_kernel, hub {hub:g}"
    return {name: compact(matrix_II) for name, matrix_II in matrices.items()}, sources


class Pool:
    """The candidates of some validation users with each part's score, so that many weights can be tried quickly.

    A user's candidates are the best hundred of each part alone; the seen ones and those outside the catalogue are left
    out. Parts: trained, popularity, and of linear, kernel and repeat those that are there. hit_BP: whether a candidate
    is relevant. A user without a relevant candidate has 0 under any weights, and is not scored.
    """

    def __init__(
        self, judge: Judge, trained: Mapping[str, Tensor], matrices: Mapping[str, Any], popularity_I: Tensor,
        question: RankingQuestion, most_users: int, *, repeats: bool = True,
    ) -> None:  # fmt: skip
        places_B = evenly(torch.arange(len(question.users_B)), most_users)
        self.relevant_B = question.truth.take(places_B).counts()
        users_UD = judge.user_vectors(trained, question.history)
        near = [*matrices, *(["repeat"] if repeats else [])]
        single = [Neighbours(matrices, BlockWeights(**{name: 1.0}), len(popularity_I)) for name in near]
        self.names = ("trained", "popularity", *near)
        parts, hits = [], []
        for chunk_C in torch.split(places_B, _CHUNK):
            rows_C = question.users_B[chunk_C]
            history = question.history.take(rows_C)
            trained_CI = users_UD[rows_C] @ trained["item_vectors_ID"].T
            trained_CI[users_UD[rows_C].abs().sum(1) == 0] = (
                popularity_I  # as the service answers where nothing is known
            )
            others = [torch.from_numpy(one.scores(history)) for one in single]
            scores = [trained_CI, popularity_I.expand(len(rows_C), -1).clone(), *others]
            closed_CI = ~question.candidates_I.expand(len(rows_C), -1)
            seen = question.seen.take(rows_C)
            closed_CI[seen.rows(), seen.indices] = True
            truth = question.truth.take(chunk_C)
            true_CI = torch.zeros_like(closed_CI)
            true_CI[truth.rows(), truth.indices] = True
            pooled = _best_of_each_part([part_CI.masked_fill_(closed_CI, -torch.inf) for part_CI in scores])
            parts.append(torch.stack([part_CI.gather(1, pooled) for part_CI in scores]))
            parts[-1][:, _repeated(pooled)] = -torch.inf
            hits.append(true_CI.gather(1, pooled))
        self._parts_FBP = torch.cat(parts, dim=1)
        self.hit_BP = torch.cat(hits)

    def spread(self) -> dict[str, float]:
        """Return the spread of each part's scores among a user's candidates, by the part's name."""
        spread_F = spread_of(self._parts_FBP.permute(1, 2, 0))
        return dict(zip(self.names, spread_F.tolist(), strict=True))

    def ndcg(self, weights: BlockWeights, k: int) -> float:
        """Return the mean NDCG@k of the pooled candidates under these weights."""
        return float(self.each_ndcg(weights, k).mean())

    def each_ndcg(self, weights: BlockWeights, k: int) -> Tensor:
        """Return each user's NDCG@k of the pooled candidates under these weights. (B,)"""
        places_A, parts_FAP, hits_N2 = self._with_hits
        scores_AP = parts_FAP[0].clone()
        for name, part_AP in zip(self.names[1:], parts_FAP[1:], strict=True):
            if factor := getattr(weights, name):
                scores_AP.add_(part_AP, alpha=factor)
        hits_AK = places_of(scores_AP, hits_N2, k)
        gains_K = 1.0 / torch.log2(torch.arange(2.0, hits_AK.shape[1] + 2.0))
        ideal_K = (1.0 / torch.log2(torch.arange(2.0, k + 2.0))).cumsum(0)
        found_B = torch.zeros(len(self.relevant_B))
        found_B[places_A] = (hits_AK * gains_K).sum(1) / ideal_K[self.relevant_B[places_A].clamp(1, k) - 1]
        return found_B

    @cached_property
    def _with_hits(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return places and parts of the users with a relevant candidate, and where these are, empty places cut off.

        (A,), (F, A, P), (N, 2) rows and columns of A, P
        """
        places_A = self.hit_BP.any(dim=1).nonzero()[:, 0]
        parts_FAP, hit_AP = self._parts_FBP[:, places_A], self.hit_BP[places_A]
        there_AP = torch.isfinite(parts_FAP[0])
        most = int(there_AP.sum(1).max()) if len(places_A) else 0
        kept_AP = there_AP.byte().argsort(dim=1, descending=True, stable=True)[:, :most]  # by item row, as before
        hits_N2 = hit_AP.gather(1, kept_AP).nonzero()
        return places_A, parts_FAP.gather(2, kept_AP.expand(len(parts_FAP), -1, -1)), hits_N2


def _best_of_each_part(scores: Sequence[Tensor]) -> Tensor:
    """Return the item rows of the best candidates by each part's scores_CI, ascending; an item may come repeatedly."""
    most = min(_POOL, scores[0].shape[1])
    return torch.cat([part_CI.topk(most, dim=1).indices for part_CI in scores], dim=1).sort(dim=1).values


def _repeated(items_CP: Tensor) -> Tensor:
    same_CP = torch.zeros_like(items_CP, dtype=torch.bool)
    same_CP[:, 1:] = items_CP[:, 1:] == items_CP[:, :-1]
    return same_CP
