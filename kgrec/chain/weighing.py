"""How much each part of a score counts: chosen on validation, with a prior towards parts of like influence.

Axes: B users asked, P pooled candidates, F parts of a score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import product
from typing import Final

import torch
from torch import Tensor

from kgrec.evaluation.baselines import climb
from kgrec.model.blocks import BlockWeights

_BALANCED: Final = ("linear", "kernel", "popularity")  # whether people repeat is no matter of balance
_SHARE: Final = 0.25  # of the trained part's spread that a part has where nothing speaks for more or less
_STRENGTH: Final = 0.1  # standard errors that a weight loses by standing at twice or half of that
Setting = Mapping[str, float]


def chosen_weights(
    grids: Mapping[str, tuple[float, ...]],
    each_B: Callable[[BlockWeights], Tensor],
    spread: Mapping[str, float],
    before: Setting | None = None,
) -> BlockWeights:
    """Return the weights of the grid with the best mean over users, noise taken for noise.

    each_B: the figure of each user under given weights, (B,). spread: standard deviation of each part's scores among a
    user's candidates, "trained" among them. Differences between weights are often smaller than what a few hundred
    users can tell, so a setting loses a tenth of a standard error for each squared doubling by which a part's
    weight is off a quarter of the trained part's spread (a weight of 0 counts as half of the least of its grid).
    Many users make the error, and with it the prior, small. Climbs from the middle and from every corner where a
    single part, or none, is at work; the chosen weights are never worse on validation than the trained part alone.
    before: weights chosen on an earlier log; where they are of the grid the climb goes on from there alone.
    """
    axes = {name: sorted(set(grid)) for name, grid in grids.items()}
    settings: list[Setting] = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    middle = {name: values[len(values) // 2] for name, values in axes.items()}
    alone = {name: values[0] for name, values in axes.items()}
    corners = [alone | {name: values[-1]} for name, values in axes.items() if len(values) > 1]
    centre = _centre(axes, spread)
    seen: dict[tuple[float, ...], Tensor] = {}

    def each(setting: Setting) -> Tensor:
        key = tuple(setting.values())
        if key not in seen:
            seen[key] = each_B(BlockWeights(**setting)).double()
        return seen[key]

    def mean(setting: Setting) -> float:
        return float(each(setting).mean())

    starts = [alone, middle, *corners] if before is None or before not in settings else [before]
    best = climb(settings, mean, starts)
    nearest = {name: min(values, key=lambda value: abs(value - centre.get(name, 0.0))) for name, values in axes.items()}
    error = _standard_error(each(best) - each(nearest))

    def believed(setting: Setting) -> float:
        return mean(setting) - _STRENGTH * error * _distance(setting, axes, centre)

    found = climb(settings, believed, [best, nearest, *starts])
    return BlockWeights(**(found if mean(found) >= mean(alone) else best))


def _centre(axes: Mapping[str, list[float]], spread: Mapping[str, float]) -> dict[str, float]:
    """Return the weight of each balanced part at which it spreads a quarter as far as the trained part."""
    varied = [name for name in _BALANCED if len(axes.get(name, [])) > 1 and spread.get(name, 0.0) > 0]
    return {name: _SHARE * spread["trained"] / spread[name] for name in varied}


def _distance(setting: Setting, axes: Mapping[str, list[float]], centre: Mapping[str, float]) -> float:
    """Return the sum of squared doublings between a setting and the centre."""
    total = 0.0
    for name, middle in centre.items():
        least = min(value for value in axes[name] if value > 0) / 2
        total += math.log2(max(setting[name], least) / max(middle, least)) ** 2
    return total


def _standard_error(difference_B: Tensor) -> float:
    return float(difference_B.std() / math.sqrt(len(difference_B))) if len(difference_B) > 1 else 0.0


def spread_of(scores_BPF: Tensor) -> Tensor:
    """Return the standard deviation of each part's scores over a user's candidates, the mean over users. (F,)

    Candidates with a score of minus infinity are none; users with fewer than two do not count.
    """
    there_BP1 = torch.isfinite(scores_BPF).all(dim=2, keepdim=True)
    count_B11 = there_BP1.sum(1, keepdim=True).clamp(min=1)
    filled = scores_BPF.masked_fill(~there_BP1, 0.0)
    off = (filled - filled.sum(1, keepdim=True) / count_B11).masked_fill(~there_BP1, 0.0)
    several_B = there_BP1.sum(1)[:, 0] > 1
    variance_BF = off.square().sum(1) / (count_B11[:, 0] - 1).clamp(min=1)
    return variance_BF[several_B].sqrt().mean(0) if bool(several_B.any()) else torch.zeros(scores_BPF.shape[2])
