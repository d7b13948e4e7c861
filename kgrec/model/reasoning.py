"""Reasoning along paths: a chain of relations is one composed relation, so a chain can be scored like a link.

Shapes: B questions, L relations of a path, W dimensions of a relation, D of an entity, E entities.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from kgrec.model.kg_scorers import KgScorer


def compose_path(scorer: KgScorer, path_BLW: Tensor) -> Tensor:
    """Return each chain of L >= 1 relations as one relation, (B, W): first to last.

    ComplEx and DistMult multiply, TransE and RotatE add, RESCAL multiplies matrices.
    Reference: PTransE (Lin et al., EMNLP 2015) for sums; Guu et al., EMNLP 2015, for the general case.
    """
    composed_BW, *rest = path_BLW.unbind(1)
    for relation_BW in rest:
        composed_BW = scorer.compose(composed_BW, relation_BW)
    return composed_BW


def path_scores(scorer: KgScorer, head_BD: Tensor, path_BLW: Tensor, entities_ED: Tensor) -> Tensor:
    """Return scores_BE of every entity as the end of the path from each head."""
    return scorer.tails(head_BD, compose_path(scorer, path_BLW), entities_ED)


def path_consistency(scorer: KgScorer, head_BD: Tensor, relation_BW: Tensor, path_BLW: Tensor) -> Tensor:
    """Return how much a chain leads where the relation leads, from this head: cosine of both queries, (B,) in [-1, 1].

    A link (h, r, t) is consistent with the graph when chains that run from h to t agree with r.
    """
    direct_BD = scorer.tail_query(head_BD, relation_BW)
    along_BD = scorer.tail_query(head_BD, compose_path(scorer, path_BLW))
    return functional.cosine_similarity(direct_BD, along_BD, dim=-1)
