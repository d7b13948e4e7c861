"""The importance of a run's features on validation, and what the report says of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from kgrec import columns as c
from kgrec.artifacts import Artifact
from kgrec.chain.questions import Judge, Vectors
from kgrec.evaluation.classification import auc
from kgrec.evaluation.importance import (
    HARM,
    columns_by_feature,
    mean_importance,
    permutation_importance,
    telling_columns,
)
from kgrec.model.network import Network
from kgrec.seeds import numpy_generator

IMPORTANCE: Final = "importance.json"
_MOST_ROWS: Final = 5000
_SHOWN: Final = 5


def importance_of_features(
    judge: Judge, network: Network, vectors: Vectors, features: Artifact, seed: int
) -> dict[str, Any]:
    """Return per feature how much each AUC falls on validation when it is shuffled, and the columns that tell all.

    At most 5,000 rows, spread evenly over the part. Empty where no tower was trained or validation has no labelled row.
    """
    rows = judge.labelled_rows(c.VALIDATION)
    if network.towers is None or rows is None:
        return {}
    encoded = judge.encoded(network, vectors, c.VALIDATION)
    taken_N = torch.unique(torch.linspace(0, len(rows.user_N) - 1, min(_MOST_ROWS, len(rows.user_N))).long())
    fields: dict[str, Any] = {
        name: value[taken_N] for name, value in vars(rows).items() if isinstance(value, torch.Tensor)
    }
    rows = replace(rows, **fields)

    def judged(numeric_NF: npt.NDArray[Any], categorical_NC: npt.NDArray[Any]) -> dict[str, float]:
        asked = replace(rows, numeric_NF=torch.as_tensor(numeric_NF), categorical_NC=torch.as_tensor(categorical_NC))
        found = judge.predicted(network, encoded, asked)
        areas = {name: auc(one.probability_N, one.label_N) for name, one in found.items()}
        return {name: area for name, area in areas.items() if area is not None}

    numeric, categorical = features.facts["numeric"], features.facts["categorical"]
    numeric_NF, categorical_NC = np.asarray(rows.numeric_NF), np.asarray(rows.categorical_NC)
    labels = {c.CLICK: rows.click_N, c.CONVERSION: rows.conversion_N}
    known: dict[str, npt.NDArray[Any]] = {
        name: np.asarray(label_N) for name, label_N in labels.items() if label_N is not None
    }
    return {
        "rows": len(taken_N),
        "auc_falls": permutation_importance(
            judged, numeric_NF, categorical_NC, columns_by_feature(numeric, categorical),
            numpy_generator(seed, "importance"),
        ),
        "tells_all": telling_columns(numeric_NF, numeric, known),
    }  # fmt: skip


def read_importance(evaluated: Artifact) -> dict[str, Any]:
    """Return what `importance_of_features` found; empty where it was not asked."""
    found: dict[str, Any] = json.loads(evaluated.file(IMPORTANCE).read_text()) if evaluated.has(IMPORTANCE) else {}
    return found


def shown(found: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Return lines for the report's data card and warnings: what matters most, what hurts, what is too good."""
    if not found:
        return {}, []
    means = mean_importance(found["auc_falls"])
    best = [f"{name} {fall:.4f}" for name, fall in list(means.items())[:_SHOWN] if fall > 0]
    hurting = [f"{name} {fall:.4f}" for name, fall in means.items() if fall < -HARM]
    card = {"most important (fall of AUC on validation when shuffled)": ", ".join(best) or "none"}
    if hurting:
        card["hurting on validation"] = ", ".join(hurting)
    warnings = [
        f"the feature {name} orders a label almost perfectly by itself (AUC {area:.3f}): is it known before the row?"
        for name, area in found["tells_all"].items()
    ]
    return card, warnings
