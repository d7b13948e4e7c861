"""Calibration of logits on validation rows: a slope and an intercept that make probabilities mean what they say.

Shapes: N rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from kgrec.evaluation.classification import FloatArray, expected_calibration_error

FEWEST: Final = 100
"""Positive and negative rows, each, without which nothing is fitted."""
_STEPS: Final = 50


class CalibrationName(StrEnum):
    """What is fitted: nothing, a slope (temperature), or a slope and an intercept (Platt)."""

    NONE = "none"
    TEMPERATURE = "temperature"
    PLATT = "platt"


@dataclass(frozen=True)
class Calibration:
    """The calibrated logit is slope * logit + intercept, slope > 0, so that no order of rows changes."""

    slope: float = 1.0
    intercept: float = 0.0

    def probabilities(self, logit_N: FloatArray) -> FloatArray:
        """Return the calibrated probabilities."""
        chance: FloatArray = _sigmoid(self.slope * logit_N + self.intercept)
        return chance


def fit_calibration(logit_N: npt.ArrayLike, label_N: npt.ArrayLike, name: CalibrationName) -> Calibration:
    """Return the slope and intercept of least log loss, by Newton's method.

    TEMPERATURE: the intercept stays 0 (Guo et al., ICML 2017). PLATT: Platt, 1999, with his smoothed targets
    (positives + 1) / (positives + 2) and 1 / (negatives + 2). With fewer than 100 positive or negative rows, or when
    the best slope would not be above 0, nothing is changed.
    """
    logits, labels = np.asarray(logit_N, dtype=np.float64), np.asarray(label_N, dtype=np.float64)
    positives = float(labels.sum())
    negatives = len(labels) - positives
    if name is CalibrationName.NONE or min(positives, negatives) < FEWEST:
        return Calibration()
    target_N = np.where(labels > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    columns_NK = np.stack([logits, np.ones_like(logits)], axis=1)
    columns_NK = columns_NK[:, : 1 if name is CalibrationName.TEMPERATURE else 2]
    weight_K = np.array([1.0, 0.0])[: columns_NK.shape[1]]
    for _ in range(_STEPS):
        chance_N = _sigmoid(columns_NK @ weight_K)
        gradient_K = columns_NK.T @ (chance_N - target_N)
        curvature_KK = (columns_NK * (chance_N * (1 - chance_N))[:, None]).T @ columns_NK
        step_K = np.linalg.solve(curvature_KK + 1e-9 * len(logits) * np.eye(len(weight_K)), gradient_K)
        weight_K = weight_K - step_K / max(1.0, float(np.abs(step_K).max()))  # no step above 1: never far off
        if np.abs(step_K).max() < 1e-10:
            break
    slope, intercept = float(weight_K[0]), float(weight_K[1]) if len(weight_K) == 2 else 0.0
    return Calibration(slope, intercept) if slope > 0 and np.isfinite([slope, intercept]).all() else Calibration()


def calibration_errors(logit_N: npt.ArrayLike, label_N: npt.ArrayLike, name: CalibrationName) -> dict[str, float]:
    """Return the expected calibration error without ("before") and with ("after") calibration.

    "after" judges each half of the rows (even, odd) by a calibration fitted on the other, so it is no fit to itself.
    Empty where there is no row.
    """
    logits, labels = np.asarray(logit_N, dtype=np.float64), np.asarray(label_N, dtype=np.float64)
    if not len(logits):
        return {}
    after_N, odd_N = np.zeros_like(logits), np.arange(len(logits)) % 2 == 1
    for judged_N in (odd_N, ~odd_N):
        fitted = fit_calibration(logits[~judged_N], labels[~judged_N], name)
        after_N[judged_N] = fitted.probabilities(logits[judged_N])
    return {
        "before": expected_calibration_error(_sigmoid(logits), labels),
        "after": expected_calibration_error(after_N, labels),
    }


def _sigmoid(logit_N: FloatArray) -> FloatArray:
    chance: FloatArray = 0.5 * (1 + np.tanh(0.5 * logit_N))
    return chance
