"""Scorers of triples: pure functions of vectors, looked up by name.

Shapes: B triples or queries, E candidate entities, D dimensions. Scores: larger is more plausible, unbounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor


class ScorerName(StrEnum):
    """The words that a config may use."""

    COMPLEX = "complex"
    DISTMULT = "distmult"


@dataclass(frozen=True)
class KgScorer:
    """One way to score triples. All three agree: a row of tails or heads holds the scores of single triples.

    triples: (head_BD, relation_BD, tail_BD) -> scores_B. tails: (head_BD, relation_BD, entities_ED) -> scores_BE.
    heads: (relation_BD, tail_BD, entities_ED) -> scores_BE. `multiple`: D must be a multiple of this.
    `antisymmetric`: whether it can tell (h, r, t) from (t, r, h).
    """

    name: ScorerName
    triples: Callable[[Tensor, Tensor, Tensor], Tensor]
    tails: Callable[[Tensor, Tensor, Tensor], Tensor]
    heads: Callable[[Tensor, Tensor, Tensor], Tensor]
    magnitudes: Callable[[Tensor], Tensor]
    multiple: int
    antisymmetric: bool


def _halves(vectors: Tensor) -> tuple[Tensor, Tensor]:
    half = vectors.shape[-1] // 2
    return vectors[..., :half], vectors[..., half:]


def _complex_times(left: Tensor, right: Tensor) -> Tensor:
    (a, b), (c, d) = _halves(left), _halves(right)
    return torch.cat([a * c - b * d, a * d + b * c], dim=-1)


def _complex_conjugate_times(left: Tensor, right: Tensor) -> Tensor:
    """Return conj(left) * right."""
    (a, b), (c, d) = _halves(left), _halves(right)
    return torch.cat([a * c + b * d, a * d - b * c], dim=-1)


def _complex_magnitudes(vectors_BD: Tensor) -> Tensor:
    real, imaginary = _halves(vectors_BD)
    return (real.square() + imaginary.square() + 1e-12).sqrt()


# ComplEx (Trouillon et al., ICML 2016): Re <h, r, conj(t)>; the first half of a vector is real, the second imaginary.
_COMPLEX: Final = KgScorer(
    name=ScorerName.COMPLEX,
    triples=lambda head_BD, relation_BD, tail_BD: (_complex_times(head_BD, relation_BD) * tail_BD).sum(-1),
    tails=lambda head_BD, relation_BD, entities_ED: _complex_times(head_BD, relation_BD) @ entities_ED.T,
    heads=lambda relation_BD, tail_BD, entities_ED: _complex_conjugate_times(relation_BD, tail_BD) @ entities_ED.T,
    magnitudes=_complex_magnitudes,
    multiple=2,
    antisymmetric=True,
)

# DistMult (Yang et al., ICLR 2015): <h, r, t>; symmetric in h and t.
_DISTMULT: Final = KgScorer(
    name=ScorerName.DISTMULT,
    triples=lambda head_BD, relation_BD, tail_BD: (head_BD * relation_BD * tail_BD).sum(-1),
    tails=lambda head_BD, relation_BD, entities_ED: (head_BD * relation_BD) @ entities_ED.T,
    heads=lambda relation_BD, tail_BD, entities_ED: (relation_BD * tail_BD) @ entities_ED.T,
    magnitudes=torch.abs,
    multiple=1,
    antisymmetric=False,
)

SCORERS: Final[Mapping[ScorerName, KgScorer]] = MappingProxyType({s.name: s for s in (_COMPLEX, _DISTMULT)})
"""Every scorer by name; the contract suite reads this."""


def with_inverses(triples_T3: Tensor, num_relations: int) -> Tensor:
    """Return the triples followed by (tail, relation + num_relations, head) of each: heads become tails to be found.

    Reciprocal relations as in Lacroix et al., ICML 2018.

    >>> with_inverses(torch.tensor([[4, 0, 5]]), num_relations=3).tolist()
    [[4, 0, 5], [5, 3, 4]]
    """
    head_T, relation_T, tail_T = triples_T3.T
    return torch.cat([triples_T3, torch.stack([tail_T, relation_T + num_relations, head_T], dim=1)])


def n3_penalty(scorer: KgScorer, head_BD: Tensor, relation_BD: Tensor, tail_BD: Tensor) -> Tensor:
    """Return the nuclear 3-norm penalty, sum of cubed magnitudes over the three vectors, mean over B; 0 for an empty B.

    Reference: Lacroix et al., Canonical Tensor Decomposition for Knowledge Base Completion, ICML 2018.
    """
    if len(head_BD) == 0:
        return head_BD.sum()
    cubes = [scorer.magnitudes(part).pow(3).sum(-1) for part in (head_BD, relation_BD, tail_BD)]
    return torch.stack(cubes).sum(0).mean()
