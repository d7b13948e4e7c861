"""Missing links: what any scorer of triples finds likeliest of what the graph does not say about its items.

Shapes: K known triples, C candidates, Q items asked about, E nodes, X possible answers; triples are (head, relation,
tail) rows, and items are the first nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from kgrec.evaluation.calibration import Calibration, CalibrationName, calibration_errors, fit_calibration
from kgrec.evaluation.classification import FloatArray

Scorer = Callable[[Tensor, Tensor], Tensor]

_CHUNK: Final = 256
_A_QUESTION: Final = 3
"""Candidates of one question, (item, relation), at most."""


@dataclass(frozen=True)
class Candidates:
    """Triples that the graph does not say, the likeliest first. log_chance_C: of this answer among all that the
    relation has had, as the model's softmax sees it.
    """

    triples_C3: Tensor
    log_chance_C: Tensor

    def best(self, most: int) -> Candidates:
        """Return the first so many."""
        return Candidates(self.triples_C3[:most], self.log_chance_C[:most])


@dataclass(frozen=True)
class Completer:
    """Asks a model for missing links. score_tails: (head_B, relation_B) -> scores_BE; score_heads: (relation_B, tail_B)
    -> scores_BE; larger is likelier. trained_K3: the triples that the model learned from, which say which end of a
    relation the items are at, and what its answers are.
    """

    score_tails: Scorer
    score_heads: Scorer
    trained_K3: Tensor
    num_items: int

    @torch.no_grad()
    def candidates(
        self, known_sets: Sequence[Tensor], relations: Sequence[int] | None = None, a_question: int = _A_QUESTION
    ) -> list[Candidates]:
        """Return the likeliest triples about items that are not among the known ones, for each set of known triples.

        relations: of these alone. Asked is every item that training has a triple of; answers are the nodes that the
        relation leads to in training. A relation of which items are no end is left out.
        """
        ends_T2 = self.trained_K3[:, [0, 2]]
        items_Q = torch.unique(ends_T2[ends_T2 < self.num_items])
        found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in known_sets]
        for relation in torch.unique(self.trained_K3[:, 1]).tolist() if relations is None else relations:
            own_T3 = self.trained_K3[self.trained_K3[:, 1] == relation]
            sides = [
                bool(len(own_T3)) and float((own_T3[:, end] < self.num_items).float().mean()) >= 0.5 for end in (0, 2)
            ]
            if not any(sides):
                continue
            item_end, answer_end = (0, 2) if sides[0] else (2, 0)
            answers_X = torch.unique(own_T3[:, answer_end])
            known = [_answered(known_K3, relation, item_end, answer_end) for known_K3 in known_sets]
            for asked_B in torch.split(items_Q, _CHUNK):
                relation_B = torch.full_like(asked_B, relation)
                given = (asked_B, relation_B) if item_end == 0 else (relation_B, asked_B)
                scores_BE = (self.score_tails if item_end == 0 else self.score_heads)(*given)
                chances_BX = scores_BE[:, answers_X].log_softmax(dim=1)
                for place, pairs in enumerate(known):
                    found[place].append(
                        _likeliest(chances_BX, asked_B, answers_X, pairs, relation, item_end, a_question)
                    )
        return [_sorted(parts) for parts in found]


@dataclass(frozen=True)
class Confidence:
    """What a chance means: how often such a candidate was a triple that had been held out.

    It supposes that as many links are missing as were held out, and counts a true link that no source has as wrong.
    calibrated: whether there was enough to learn
    from; if not, the chance itself is given.
    """

    calibration: Calibration
    calibrated: bool
    facts: dict[str, Any]

    def of(self, candidates: Candidates, odds: float = 1.0) -> FloatArray:
        """Return the confidence of each candidate, in (0, 1). odds: how many times as many links are missing as were
        held out for the calibration.
        """
        log_chance_C: FloatArray = candidates.log_chance_C.double().numpy()
        if not self.calibrated:
            return np.asarray(np.exp(log_chance_C), dtype=np.float64)
        fitted = self.calibration
        return Calibration(fitted.slope, fitted.intercept + float(np.log(odds))).probabilities(log_chance_C)


def learn_confidence(candidates: Candidates, held_out_T3: Tensor) -> Confidence:
    """Fit the confidence on candidates that were found while the held-out triples were hidden (Platt, 1999).

    facts: candidates, held-out triples among them, and the expected calibration error before and after, each half of
    the candidates judged by what was fitted on the other.
    """
    log_chance_C = candidates.log_chance_C.double().numpy()
    label_C = is_among(candidates.triples_C3, held_out_T3).double().numpy()
    fitted = fit_calibration(log_chance_C, label_C, CalibrationName.PLATT)
    calibrated = fitted != Calibration()
    facts: dict[str, Any] = {"candidates": len(label_C), "held_out_found": int(label_C.sum()), "calibrated": calibrated}
    if calibrated:
        errors = calibration_errors(log_chance_C, label_C, CalibrationName.PLATT)
        facts |= {f"calibration_error_{name}": round(value, 5) for name, value in errors.items()}
    return Confidence(fitted, calibrated, facts)


def precision(confidence_C: FloatArray, is_true_C: Tensor, most: int) -> dict[str, float]:
    """Return how many of the most confident are true beside what the confidence promised; empty without any.

    >>> precision(np.array([0.9, 0.1, 0.5]), torch.tensor([True, False, False]), 2)
    {'links': 2, 'precision': 0.5, 'mean_confidence': 0.7}
    """
    order = np.argsort(-confidence_C, kind="stable")[:most]
    if not len(order):
        return {}
    true = float(is_true_C.double().numpy()[order].mean())
    return {
        "links": len(order),
        "precision": round(true, 5),
        "mean_confidence": round(float(confidence_C[order].mean()), 5),
    }


def is_among(triples_C3: Tensor, known_K3: Tensor) -> Tensor:
    """Return for each triple whether it is one of the known ones.

    >>> is_among(torch.tensor([[0, 1, 2], [2, 1, 0]]), torch.tensor([[2, 1, 0]])).tolist()
    [False, True]
    """
    both = torch.cat([triples_C3, known_K3])
    _, group = torch.unique(both, dim=0, return_inverse=True)
    return torch.isin(group[: len(triples_C3)], group[len(triples_C3) :])


def _answered(known_K3: Tensor, relation: int, item_end: int, answer_end: int) -> Tensor:
    """Return the (item, answer) pairs of a relation that are known, (P, 2)."""
    return known_K3[known_K3[:, 1] == relation][:, [item_end, answer_end]]


def _likeliest(
    chances_BX: Tensor, asked_B: Tensor, answers_X: Tensor, known_P2: Tensor, relation: int, item_end: int, most: int
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the likeliest unknown answers of each question as triples, and their log chances."""
    open_BX = chances_BX.clone()
    here_P2 = known_P2[torch.isin(known_P2[:, 0], asked_B) & torch.isin(known_P2[:, 1], answers_X)]
    rows_P = torch.searchsorted(asked_B, here_P2[:, 0].contiguous())
    open_BX[rows_P, torch.searchsorted(answers_X, here_P2[:, 1].contiguous())] = -torch.inf
    open_BX[asked_B[:, None] == answers_X] = -torch.inf  # nothing is linked to itself
    values_BC, places_BC = open_BX.topk(min(most, len(answers_X)), dim=1)
    kept = values_BC.isfinite()
    items, answers = asked_B[:, None].expand_as(places_BC)[kept], answers_X[places_BC][kept]
    ends = (items, answers) if item_end == 0 else (answers, items)
    return torch.stack([ends[0], torch.full_like(items, relation), ends[1]], dim=1), values_BC[kept]


def _sorted(parts: Sequence[tuple[Tensor, Tensor]]) -> Candidates:
    triples_C3 = torch.cat([torch.empty(0, 3, dtype=torch.int64), *(triples for triples, _ in parts)])
    log_chance_C = torch.cat([torch.empty(0), *(chances for _, chances in parts)])
    order = np.lexsort((*triples_C3.numpy().T[::-1], -log_chance_C.numpy()))
    return Candidates(triples_C3[order], log_chance_C[order])
