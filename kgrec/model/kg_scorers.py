"""Scorers of triples: pure functions of vectors, looked up by name.

A scorer turns (head, relation) into a query, a vector of the entities' space, and compares it with a tail: by inner
product (the larger the more plausible) or by the negative Euclidean distance (at most 0). All entities are thereby
scored in one matrix product.

Shapes: B triples or queries, E candidate entities, D dimensions of an entity, W of a relation, L relations of a path.
Scores: larger is more plausible.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

_TINY: Final = 1e-12


class ScorerName(StrEnum):
    """The words that a config may use."""

    COMPLEX = "complex"
    DISTMULT = "distmult"
    RESCAL = "rescal"
    ROTATE = "rotate"
    TRANSE = "transe"


@dataclass(frozen=True)
class KgScorer:
    """One way to score triples.

    tail_query: (head_BD, relation_BW) -> query_BD that is compared with tails. head_query: (relation_BW, tail_BD) ->
    query_BD that is compared with heads. relation_query: (head_BD, tail_BD) -> query_BW that is compared with relations
    in the same way, or None where the score is no function of one. compose: (first_BW, second_BW) -> relation_BW,
    "first, then second".
    distance: scores are -|query - entity|, else inner products. `width`: D -> W. `multiple`: D must be a multiple of
    this. `antisymmetric`: whether it can tell (h, r, t) from (t, r, h). `magnitudes`, `relation_magnitudes`: what the
    N3 penalty cubes, (B, D) -> (B, any).
    """

    name: ScorerName
    tail_query: Callable[[Tensor, Tensor], Tensor]
    head_query: Callable[[Tensor, Tensor], Tensor]
    relation_query: Callable[[Tensor, Tensor], Tensor] | None
    compose: Callable[[Tensor, Tensor], Tensor]
    magnitudes: Callable[[Tensor], Tensor]
    relation_magnitudes: Callable[[Tensor], Tensor]
    width: Callable[[int], int]
    distance: bool
    multiple: int
    antisymmetric: bool

    def pairs(self, query_BD: Tensor, entity_BD: Tensor) -> Tensor:
        """Return the score of each query with its own entity, scores_B."""
        if self.distance:
            return -((query_BD - entity_BD).square().sum(-1) + _TINY).sqrt()
        return (query_BD * entity_BD).sum(-1)

    def against(self, query_BD: Tensor, entities_ED: Tensor) -> Tensor:
        """Return the score of each query with every entity, scores_BE, by one matrix product."""
        if self.distance:
            square_B1, square_E = query_BD.square().sum(-1, keepdim=True), entities_ED.square().sum(-1)
            square_BE = torch.addmm(square_E, query_BD, entities_ED.T, alpha=-2.0).add_(square_B1)
            return -square_BE.clamp(min=_TINY).sqrt()
        return query_BD @ entities_ED.T

    def triples(self, head_BD: Tensor, relation_BW: Tensor, tail_BD: Tensor) -> Tensor:
        """Return scores_B."""
        return self.pairs(self.tail_query(head_BD, relation_BW), tail_BD)

    def tails(self, head_BD: Tensor, relation_BW: Tensor, entities_ED: Tensor) -> Tensor:
        """Return scores_BE of every entity as the tail."""
        return self.against(self.tail_query(head_BD, relation_BW), entities_ED)

    def heads(self, relation_BW: Tensor, tail_BD: Tensor, entities_ED: Tensor) -> Tensor:
        """Return scores_BE of every entity as the head."""
        return self.against(self.head_query(relation_BW, tail_BD), entities_ED)


def _halves(vectors: Tensor) -> tuple[Tensor, Tensor]:
    real, imaginary = vectors.chunk(2, dim=-1)  # its gradient is one concatenation, that of two slices fills zeros
    return real, imaginary


def _times(left: Tensor, right: Tensor) -> Tensor:
    (a, b), (c, d) = _halves(left), _halves(right)
    return torch.cat([a * c - b * d, a * d + b * c], dim=-1)


def _conjugate_times(left: Tensor, right: Tensor) -> Tensor:
    """Return conj(left) * right."""
    (a, b), (c, d) = _halves(left), _halves(right)
    return torch.cat([a * c + b * d, a * d - b * c], dim=-1)


def _complex_magnitudes(vectors_BD: Tensor) -> Tensor:
    real, imaginary = _halves(vectors_BD)
    return (real.square() + imaginary.square() + _TINY).sqrt()


def _turn(phase_BW: Tensor) -> Tensor:
    """Return the unit complex numbers of these angles, in units of a half turn: (B, 2W), real parts first."""
    return torch.cat([torch.cos(torch.pi * phase_BW), torch.sin(torch.pi * phase_BW)], dim=-1)


def _matrices(relation_BW: Tensor) -> Tensor:
    side = round(relation_BW.shape[-1] ** 0.5)
    return relation_BW.reshape(*relation_BW.shape[:-1], side, side)


def _no_magnitudes(relation_BW: Tensor) -> Tensor:
    return relation_BW[..., :0]


# ComplEx (Trouillon et al., ICML 2016): Re <h, r, conj(t)>; the first half of a vector is real, the second imaginary.
_COMPLEX: Final = KgScorer(
    name=ScorerName.COMPLEX,
    tail_query=_times,
    head_query=_conjugate_times,
    relation_query=_conjugate_times,
    compose=_times,
    magnitudes=_complex_magnitudes,
    relation_magnitudes=_complex_magnitudes,
    width=lambda dimensions: dimensions,
    distance=False,
    multiple=2,
    antisymmetric=True,
)

# DistMult (Yang et al., ICLR 2015): <h, r, t>; symmetric in h and t.
_DISTMULT: Final = KgScorer(
    name=ScorerName.DISTMULT,
    tail_query=torch.mul,
    head_query=torch.mul,
    relation_query=torch.mul,
    compose=torch.mul,
    magnitudes=torch.abs,
    relation_magnitudes=torch.abs,
    width=lambda dimensions: dimensions,
    distance=False,
    multiple=1,
    antisymmetric=False,
)

# RESCAL (Nickel et al., ICML 2011): h' M_r t; a relation is a full matrix, its rows one after the other.
_RESCAL: Final = KgScorer(
    name=ScorerName.RESCAL,
    tail_query=lambda head_BD, relation_BW: (head_BD.unsqueeze(-2) @ _matrices(relation_BW)).squeeze(-2),
    head_query=lambda relation_BW, tail_BD: (_matrices(relation_BW) @ tail_BD.unsqueeze(-1)).squeeze(-1),
    relation_query=lambda head_BD, tail_BD: (head_BD.unsqueeze(-1) * tail_BD.unsqueeze(-2)).flatten(-2),
    compose=lambda first_BW, second_BW: (_matrices(first_BW) @ _matrices(second_BW)).flatten(-2),
    magnitudes=torch.abs,
    relation_magnitudes=torch.abs,
    width=lambda dimensions: dimensions * dimensions,
    distance=False,
    multiple=1,
    antisymmetric=True,
)

# RotatE (Sun et al., ICLR 2019): -|h * e^(i pi r) - t|, Euclidean over all real and imaginary parts; r are angles.
_ROTATE: Final = KgScorer(
    name=ScorerName.ROTATE,
    tail_query=lambda head_BD, relation_BW: _times(head_BD, _turn(relation_BW)),
    head_query=lambda relation_BW, tail_BD: _conjugate_times(_turn(relation_BW), tail_BD),
    relation_query=None,
    compose=torch.add,
    magnitudes=_complex_magnitudes,
    relation_magnitudes=_no_magnitudes,
    width=lambda dimensions: dimensions // 2,
    distance=True,
    multiple=2,
    antisymmetric=True,
)

# TransE (Bordes et al., NeurIPS 2013): -|h + r - t|, Euclidean.
_TRANSE: Final = KgScorer(
    name=ScorerName.TRANSE,
    tail_query=torch.add,
    head_query=lambda relation_BW, tail_BD: tail_BD - relation_BW,
    relation_query=lambda head_BD, tail_BD: tail_BD - head_BD,
    compose=torch.add,
    magnitudes=torch.abs,
    relation_magnitudes=torch.abs,
    width=lambda dimensions: dimensions,
    distance=True,
    multiple=1,
    antisymmetric=True,
)

SCORERS: Final[Mapping[ScorerName, KgScorer]] = MappingProxyType(
    {scorer.name: scorer for scorer in (_COMPLEX, _DISTMULT, _RESCAL, _ROTATE, _TRANSE)}
)
"""Every scorer by name; the contract suite reads this."""


def with_inverses(triples_T3: Tensor, num_relations: int) -> Tensor:
    """Return the triples followed by (tail, relation + num_relations, head) of each: heads become tails to be found.

    Reciprocal relations as in Lacroix et al., ICML 2018.

    >>> with_inverses(torch.tensor([[4, 0, 5]]), num_relations=3).tolist()
    [[4, 0, 5], [5, 3, 4]]
    """
    head_T, relation_T, tail_T = triples_T3.T
    return torch.cat([triples_T3, torch.stack([tail_T, relation_T + num_relations, head_T], dim=1)])


def n3_penalty(
    scorer: KgScorer, head_VD: Tensor, relation_VW: Tensor, tail_BD: Tensor, query_B: Tensor | None = None
) -> Tensor:
    """Return the nuclear 3-norm penalty, sum of cubed magnitudes over the three vectors, mean over B; 0 for an empty B.

    query_B points into the V pairs of head and relation; without it they are B, one a tail. RotatE's angles have no
    length and count nothing.
    Reference: Lacroix et al., Canonical Tensor Decomposition for Knowledge Base Completion, ICML 2018.
    """
    if len(tail_BD) == 0:
        return head_VD.sum()
    head_V = _cubes(scorer.magnitudes(head_VD))
    pair_V, tail_B = head_V + _cubes(scorer.relation_magnitudes(relation_VW)), _cubes(scorer.magnitudes(tail_BD))
    if query_B is None:
        return (pair_V + tail_B).mean()
    count_V = torch.bincount(query_B, minlength=len(head_VD)).to(pair_V.dtype)
    return (pair_V @ count_V + tail_B.sum()) / len(tail_B)


def _cubes(magnitudes_BX: Tensor) -> Tensor:
    return (magnitudes_BX.square() * magnitudes_BX).sum(-1)
