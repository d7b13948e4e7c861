"""How sure a figure is: bootstrap intervals, paired randomisation tests, correction for many comparisons.

A figure is an `Estimate`: its value and what each unit (user, triple) adds to it, so that one procedure serves means
and areas under the curve alike. Figures are compared in pairs: the same units, in the same order.

Shapes: U units, M figures, R rounds of a chunk, N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from kgrec.evaluation.classification import auc

FloatArray = npt.NDArray[np.float64]

ROUNDS: Final = 9_999
"""Random sign flips of a test; the smallest p is 1 / (ROUNDS + 1)."""
RESAMPLES: Final = 2_000
CONFIDENCE: Final = 0.95
LEVEL_OF_NOISE: Final = 0.05
"""A p above this is inside the noise."""
_CHUNK_NUMBERS: Final = 4_000_000
_SAME: Final = 1e-9


@dataclass(frozen=True)
class Estimate:
    """A figure and how each unit moves it.

    influence_U sums to 0: value + sum of (w - 1) * influence is the figure when unit u counts w_u times, exactly for a
    mean and to first order for an area under the curve. flipped_U is what a test flips: for the difference of two means
    each unit's share of it, so that the test is exact; else the influence.
    """

    value: float
    influence_U: FloatArray
    flipped_U: FloatArray

    def __sub__(self, other: Estimate) -> Estimate:
        """Return the difference of two figures of the same units; ValueError when their numbers differ."""
        if self.influence_U.shape != other.influence_U.shape:
            raise ValueError(f"{len(self.influence_U)} and {len(other.influence_U)} units cannot be paired")
        return Estimate(
            self.value - other.value, self.influence_U - other.influence_U, self.flipped_U - other.flipped_U
        )


def mean_of(values_U: npt.ArrayLike) -> Estimate:
    """Return the mean over units; ValueError without any unit.

    >>> mean_of([1.0, 0.0]).value
    0.5
    """
    values = np.asarray(values_U, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError("a mean needs one value for each of one unit or more")
    mean = float(values.mean())
    return Estimate(mean, (values - mean) / len(values), values / len(values))


def area_of(scores_N: npt.ArrayLike, labels_N: npt.ArrayLike, unit_N: npt.ArrayLike, num_units: int) -> Estimate | None:
    """Return the area under the ROC curve with each unit's influence, None where one class is missing.

    unit_N: whose row it is, in [0, num_units). A unit's influence is the sum over its rows of DeLong's placement values
    (1988) about the area, as Obuchowski (1997) does for clustered rows; a tie counts half.
    """
    scores, labels = np.asarray(scores_N, dtype=np.float64), np.asarray(labels_N, dtype=np.float64)
    area = auc(scores, labels)
    if area is None:
        return None
    positive_N = labels == 1
    num_positive, num_negative = int(positive_N.sum()), int((~positive_N).sum())
    place_N = np.empty(len(scores))
    rank_N = _mid_ranks(scores)
    place_N[positive_N] = (rank_N[positive_N] - _mid_ranks(scores[positive_N])) / num_negative
    place_N[~positive_N] = 1 - (rank_N[~positive_N] - _mid_ranks(scores[~positive_N])) / num_positive
    moved_N = (place_N - area) / np.where(positive_N, num_positive, num_negative)
    unit_N = np.asarray(unit_N, dtype=np.int64)
    influence_U = np.bincount(unit_N, weights=moved_N, minlength=num_units).astype(np.float64)
    return Estimate(area, influence_U, influence_U)


def average_of(estimates: Sequence[Estimate]) -> Estimate:
    """Return the mean of figures of the same units (the same figure of several seeds); ValueError when units differ."""
    if len({estimate.influence_U.shape for estimate in estimates}) != 1:
        raise ValueError("figures of different units have no average")
    return Estimate(
        float(np.mean([estimate.value for estimate in estimates])),
        np.mean([estimate.influence_U for estimate in estimates], axis=0),
        np.mean([estimate.flipped_U for estimate in estimates], axis=0),
    )


def bootstrap_intervals(
    estimates: Sequence[Estimate], generator: np.random.Generator, resamples: int = RESAMPLES
) -> list[tuple[float, float]]:
    """Return each figure's 95 % percentile interval over units drawn with replacement (Efron, 1979).

    All figures have the same units and share the draws.
    """
    influence_UM = torch.as_tensor(np.stack([estimate.influence_U for estimate in estimates], axis=1))
    num_units = len(influence_UM)
    chunk = max(1, _CHUNK_NUMBERS // num_units)
    moved = []
    for start in range(0, resamples, chunk):
        rounds = min(chunk, resamples - start)
        drawn = generator.integers(0, num_units, size=(rounds, num_units))
        drawn += np.arange(rounds)[:, None] * num_units
        times_RU = np.bincount(drawn.ravel(), minlength=rounds * num_units).reshape(rounds, num_units)
        moved.append(torch.as_tensor(times_RU).double() @ influence_UM)
    tail = (1 - CONFIDENCE) / 2
    low_M, high_M = np.quantile(torch.cat(moved).numpy(), [tail, 1 - tail], axis=0)
    return [
        (round(estimate.value + float(low), 12) + 0.0, round(estimate.value + float(high), 12) + 0.0)  # no -0.0
        for estimate, low, high in zip(estimates, low_M, high_M, strict=True)
    ]


def randomisation_test(
    differences: Sequence[Estimate], generator: np.random.Generator, rounds: int = ROUNDS
) -> list[float]:
    """Return each difference's two-sided p of the paired randomisation test over units.

    Were the two systems alike, each unit's difference could as well have the other sign (Fisher, 1935; for retrieval
    Smucker, Allan and Carterette, CIKM 2007). p = (1 + rounds with at least the observed difference) / (1 + rounds).
    All differences have the same units and share the signs.

    >>> randomisation_test([mean_of([1.0] * 8) - mean_of([1.0] * 8)], np.random.default_rng(0), 99)
    [1.0]
    """
    flipped_UM = torch.as_tensor(np.stack([difference.flipped_U for difference in differences], axis=1))
    observed_M = torch.tensor([abs(difference.value) for difference in differences], dtype=torch.float64)
    threshold_M = observed_M * (1 - _SAME)  # a flip that is no other than the observed one must count as equal
    num_units = len(flipped_UM)
    reached_M = torch.zeros(len(differences), dtype=torch.int64)
    chunk = max(1, _CHUNK_NUMBERS // max(num_units, 1))
    for start in range(0, rounds, chunk):
        count = min(chunk, rounds - start)
        bits = np.frombuffer(generator.bytes(-(-count * num_units // 8)), dtype=np.uint8)
        signs_RU = torch.as_tensor(np.unpackbits(bits, count=count * num_units)).view(count, num_units).double() * 2 - 1
        reached_M += ((signs_RU @ flipped_UM).abs() >= threshold_M).sum(0)
    return [(1 + int(reached)) / (1 + rounds) for reached in reached_M]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number, step-down (Holm, 1979): keeps the chance of any false alarm.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for done, place in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        highest = max(highest, min(1.0, p_values[place] * (len(p_values) - done)))
        adjusted[place] = highest
    return adjusted


def _mid_ranks(scores_N: FloatArray) -> FloatArray:
    _, place_N, count_V = np.unique(scores_N, return_inverse=True, return_counts=True)
    ranks_N: FloatArray = (np.cumsum(count_V) - (count_V - 1) / 2)[place_N]
    return ranks_N
