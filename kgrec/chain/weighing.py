"""How much each part of a score counts: what validation believes of many weights, with a prior towards balance.

Axes: B users asked, P pooled candidates, F parts of a score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from statistics import median
from typing import Final

import torch
from torch import Tensor

from kgrec.evaluation.baselines import climb
from kgrec.model.blocks import BlockWeights

_BALANCED: Final = ("linear", "kernel", "popularity")  # whether people repeat is no matter of balance
_SHARE: Final = 0.25  # of the trained part's spread that a part has where nothing speaks for more or less
_SHARPNESS: Final = 3.0  # by how many e-folds a setting is believed less that is a standard error worse
_STRENGTH: Final = 0.15  # and one that stands at twice or half of balance
_NEGLIGIBLE: Final = 7.0  # e-folds below the most believed from where on a setting does not count
Setting = Mapping[str, float]


def chosen_weights(
    grids: Mapping[str, tuple[float, ...]],
    each_B: Callable[[BlockWeights], Tensor],
    spread: Mapping[str, float],
    before: Setting | None = None,
) -> BlockWeights:
    """Return the mean of the grid's weights, each setting counting by how far it is believed to be the best.

    each_B: the figure of each user under given weights, (B,). spread: standard deviation of each part's scores among a
    user's candidates, "trained" among them. Differences between weights are often smaller than what a few hundred
    users can tell, and then the best of a grid is luck. A setting's belief is exp(-3 d - 0.15 s): d, by how many
    standard errors its mean over users is behind the best (the error of a paired difference, the median over the
    grid's corners); s, the sum over parts of the squared doublings by which the weight is off a quarter of the trained
    part's spread (a weight of 0 counts as half of the least of its grid). Many users make the error small, and the mean
    the best. A score is linear in its weights, so their mean is the mean score of the believed settings.

    The best is climbed to from the middle and from every corner where a single part, or none, is at work. A mean weight
    below half of the least of its grid is 0. Where the mean is worse than the trained part alone, by more than a
    standard error, the best of the grid is taken.
    before: weights chosen on an earlier log; the climb goes on from the setting nearest to them alone.
    """
    axes = {name: sorted(set(grid)) for name, grid in grids.items()}
    settings: list[Setting] = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    middle = {name: values[len(values) // 2] for name, values in axes.items()}
    alone = {name: values[0] for name, values in axes.items()}
    corners = [alone | {name: values[-1]} for name, values in axes.items() if len(values) > 1]
    starts = [alone, middle, *corners]
    centre = _centre(axes, spread)
    seen: dict[tuple[float, ...], Tensor] = {}

    def each(setting: Setting) -> Tensor:
        key = tuple(setting.values())
        if key not in seen:
            seen[key] = each_B(BlockWeights(**setting)).double()
        return seen[key]

    def mean(setting: Setting) -> float:
        return float(each(setting).mean())

    best = climb(settings, mean, starts if before is None else [_nearest(axes, before)])
    errors = [_standard_error(each(start) - each(best)) for start in starts if start != best]
    error = median(errors) if errors else 0.0
    if not error:
        return BlockWeights(**best)

    def belief(setting: Setting) -> float:
        return _SHARPNESS * (mean(setting) - mean(best)) / error - _STRENGTH * _distance(setting, axes, centre)

    beliefs = _believed(axes, belief, [best, _nearest(axes, {**best, **centre})])
    most = max(beliefs.values())
    total = sum(math.exp(one - most) for one in beliefs.values())
    found = {
        name: sum(setting[place] * math.exp(one - most) for setting, one in beliefs.items()) / total
        for place, name in enumerate(axes)
    }
    found = {name: weight if weight >= _least(axes[name]) / 2 else 0.0 for name, weight in found.items()}
    lost = each(alone) - each(found)
    return BlockWeights(**(found if float(lost.mean()) <= _standard_error(lost) else best))


def _believed(
    axes: Mapping[str, Sequence[float]], belief: Callable[[Setting], float], starts: Sequence[Setting]
) -> dict[tuple[float, ...], float]:
    """Return the belief of each setting that counts, and of their neighbours: from the starts outwards."""
    found = {tuple(start.values()): belief(start) for start in starts}
    edge = list(found)
    while edge:
        most = max(found.values())
        reached = [one for setting in edge if found[setting] > most - _NEGLIGIBLE for one in _beside(axes, setting)]
        edge = [one for one in dict.fromkeys(reached) if one not in found]
        found |= {one: belief(dict(zip(axes, one, strict=True))) for one in edge}
    return found


def _beside(axes: Mapping[str, Sequence[float]], setting: tuple[float, ...]) -> list[tuple[float, ...]]:
    found = []
    for place, values in enumerate(axes.values()):
        at = values.index(setting[place])
        found += [
            (*setting[:place], values[n], *setting[place + 1 :]) for n in (at - 1, at + 1) if 0 <= n < len(values)
        ]
    return found


def _nearest(axes: Mapping[str, Sequence[float]], wanted: Setting) -> Setting:
    """Return the setting of the grid nearest to given weights; where none is wanted, the grid's least."""
    return {name: min(values, key=lambda value: abs(value - wanted.get(name, 0.0))) for name, values in axes.items()}


def _least(values: Sequence[float]) -> float:
    return min((value for value in values if value > 0), default=0.0)


def _centre(axes: Mapping[str, Sequence[float]], spread: Mapping[str, float]) -> dict[str, float]:
    """Return the weight of each balanced part at which it spreads a quarter as far as the trained part."""
    varied = [name for name in _BALANCED if len(axes.get(name, [])) > 1 and spread.get(name, 0.0) > 0]
    return {name: _SHARE * spread["trained"] / spread[name] for name in varied}


def _distance(setting: Setting, axes: Mapping[str, Sequence[float]], centre: Mapping[str, float]) -> float:
    """Return the sum of squared doublings between a setting and the centre."""
    total = 0.0
    for name, middle in centre.items():
        least = _least(axes[name]) / 2
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
