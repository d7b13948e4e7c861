"""What a model answered on one part: the figures that follow, and the same by user, row and triple.

The figures by unit are kept with every evaluation, so that two models can be compared in pairs.

Axes: B users asked, K places, N labelled rows, T triples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from kgrec import columns as c
from kgrec.evaluation.classification import FloatArray, classification_metrics, grouped_auc
from kgrec.evaluation.link_prediction import summarise_ranks
from kgrec.evaluation.protocol import RankingQuestion, judge_ranking
from kgrec.evaluation.ranking import EvaluationConfig, metrics_per_user

MODEL = "model"
"""The name of the network's own lists among those of the baselines."""


@dataclass(frozen=True)
class Predictions:
    """Probabilities of one label beside the labels, a row each, and whose row it is (int64; -1 is unknown)."""

    user_N: npt.NDArray[np.int64]
    probability_N: FloatArray
    label_N: FloatArray


@dataclass(frozen=True)
class Answers:
    """Everything that was answered on a part; what was not asked is None or empty.

    ranks_T2: the rank of each triple's tail and head among all entities.
    """

    config: EvaluationConfig
    question: RankingQuestion | None = None
    top_BK: Tensor | None = None
    predictions: Mapping[str, Predictions] = field(default_factory=dict)
    triples_T3: Tensor | None = None
    ranks_T2: FloatArray | None = None

    def figures(self) -> dict[str, Any]:
        """Return the figures of the part in the shape of contract part 4; what does not apply is absent."""
        figures: dict[str, Any] = {}
        if self.question is not None and self.top_BK is not None:
            figures |= judge_ranking(self.question, self.top_BK, self.config)
        for group, found in self.predictions.items():
            within = grouped_auc(found.probability_N, found.label_N, found.user_N)
            figures[group] = classification_metrics(found.probability_N, found.label_N) | within
        if self.ranks_T2 is not None and len(self.ranks_T2):
            figures["link"] = summarise_ranks(self.ranks_T2)
        return figures

    def per_row(self) -> pl.DataFrame:
        """Return group, user_row, label and probability of every judged row (columns.PER_ROW_SCHEMA)."""
        frames = [
            pl.DataFrame(
                {c.GROUP: group, c.USER_ROW: found.user_N, c.LABEL: found.label_N, c.PROBABILITY: found.probability_N}
            )
            for group, found in self.predictions.items()
        ]
        return pl.concat(
            [pl.DataFrame(schema=c.PER_ROW_SCHEMA), *(f.cast(pl.Schema(c.PER_ROW_SCHEMA)) for f in frames)]
        )

    def per_triple(self) -> pl.DataFrame:
        """Return the rows of each judged triple and its ranks as tail and as head (columns.PER_TRIPLE_SCHEMA)."""
        if self.ranks_T2 is None or self.triples_T3 is None:
            return pl.DataFrame(schema=c.PER_TRIPLE_SCHEMA)
        head_T, relation_T, tail_T = self.triples_T3.numpy().T
        return pl.DataFrame(
            {c.HEAD_ROW: head_T, c.RELATION_ROW: relation_T, c.TAIL_ROW: tail_T,
             c.TAIL_RANK: self.ranks_T2[:, 0], c.HEAD_RANK: self.ranks_T2[:, 1]}
        ).cast(pl.Schema(c.PER_TRIPLE_SCHEMA))  # fmt: skip


def per_user(systems: Mapping[str, Tensor], question: RankingQuestion, ks: Sequence[int]) -> pl.DataFrame:
    """Return system, group (ranking, ranking_cold), user_row and a column for each metric, from lists by system name.

    A user has a line in a group when something is relevant there; the lines of a system are in the order of its users.
    """
    truths = {"ranking": question.truth, "ranking_cold": question.truth.only_columns(question.cold_I)}
    frames = []
    for system, top_BK in systems.items():
        for group, truth in truths.items():
            found = metrics_per_user(top_BK, truth, ks)
            places = torch.as_tensor(found.pop(c.ROW).astype(np.int64))
            rows = {c.SYSTEM: system, c.GROUP: group, c.USER_ROW: question.users_B[places].numpy()}
            frames.append(pl.DataFrame(rows | found).cast({c.USER_ROW: c.ROW_TYPE}))
    return pl.concat(frames) if frames else pl.DataFrame(schema=c.PER_USER_SCHEMA)
