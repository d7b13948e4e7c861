"""Figures by segment: users by what is known of them, by declared columns, and relevant items of the long tail.

Shapes: B users asked, I items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from kgrec.evaluation.significance import bootstrap_intervals, mean_of

FloatArray = npt.NDArray[np.float64]
UNKNOWN: Final = "unknown"
_MOST_VALUES: Final = 6


class DetailsConfig(BaseModel):
    """What else the report looks at: [evaluation.details]. Nothing here changes what is learned or chosen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user_columns: tuple[str, ...] = Field(
        (), description="columns of users.features by which figures are split and compared for fairness"
    )
    genres: str | None = Field(
        None, description="relation from an item to its taste (a genre): lists are held against each user's own tastes"
    )
    provider: str | None = Field(
        None, description="relation, or column of items.features, that says who provides an item: fairness of exposure"
    )
    new_user_events: int = Field(
        5, ge=1, description="users with at most so many items before the part are a segment of their own, in items"
    )
    tail_share: float = Field(
        0.8, gt=0, lt=1, description="share (0-1) of the catalogue, the least popular in train, that is the long tail"
    )
    propensity_power: float = Field(
        0.5, ge=0, le=2,
        description="debiased figures: the chance that a choice is seen in the log grows with its item's popularity to "
        "this power; 0 leaves the figures as they are",
    )  # fmt: skip
    least_propensity: float = Field(
        0.02, gt=0, le=1, description="debiased figures: smaller chances count as this (0-1), which bounds the weights"
    )


def by_history(had_B: npt.ArrayLike, new_user_events: int) -> list[str]:
    """Return each user's segment by how many items they had before.

    >>> by_history([0, 5, 6], 5)
    ['no history', '1 to 5 items', '6 items or more']
    """
    names = ("no history", f"1 to {new_user_events} items", f"{new_user_events + 1} items or more")
    return [names[(had > 0) + (had > new_user_events)] for had in np.asarray(had_B).tolist()]


def by_value(values_B: Sequence[Any]) -> list[str]:
    """Return each user's segment by a column: its value, quarters of many numbers, the commonest of many words.

    >>> by_value(["f", None, "m"])
    ['f', 'unknown', 'm']
    """
    numbers = [_number(value) for value in values_B]
    known = [number for number in numbers if number is not None]
    distinct = {str(value) for value in values_B if value is not None}
    if len(distinct) <= _MOST_VALUES:
        return [UNKNOWN if value is None else str(value) for value in values_B]
    if len(known) == sum(value is not None for value in values_B):
        cuts = np.unique(np.quantile(known, [0.25, 0.5, 0.75], method="lower"))
        edges = [min(known), *cuts.tolist(), max(known)]
        names = [f"{edges[0]:g} to {edges[1]:g}"]
        names += [f"above {low:g} to {high:g}" for low, high in pairwise(edges[1:])]
        return [UNKNOWN if n is None else names[int(np.searchsorted(cuts, n, side="left"))] for n in numbers]
    counts = {word: sum(str(value) == word for value in values_B) for word in distinct}
    kept = sorted(counts, key=lambda word: (-counts[word], word))[: _MOST_VALUES - 1]
    return [UNKNOWN if value is None else str(value) if str(value) in kept else "others" for value in values_B]


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def tail_items(counts_I: Tensor, candidates_I: Tensor, tail_share: float) -> Tensor:
    """Return the mask of the least popular items of the catalogue: `tail_share` of it, ties by the larger row first."""
    rows = candidates_I.nonzero()[:, 0]
    order = sorted(rows.tolist(), key=lambda row: (float(counts_I[row]), -row))
    mask_I = torch.zeros_like(candidates_I)
    mask_I[torch.tensor(order[: round(tail_share * len(order))], dtype=torch.int64)] = True
    return mask_I


def segment_lines(
    segment: str, labels_B: Sequence[str], values: Mapping[str, Mapping[str, FloatArray]], own: str,
    generator: np.random.Generator,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return one line per group: segment, group, num_users, figures by system, and the interval of the own system.

    values: system -> metric -> one value per user, beside labels_B. Groups in the order of their first mention sorted
    by name. intervals: 95 %, bootstrap over the group's users; absent under two users.
    """
    lines = []
    labels = np.asarray(labels_B, dtype=object)
    for group in sorted(set(labels_B)):
        inside = labels == group
        figures = {
            system: {metric: float(column[inside].mean()) for metric, column in columns.items()}
            for system, columns in values.items()
        }
        line: dict[str, Any] = {"segment": segment, "group": group, "num_users": int(inside.sum()), "figures": figures}
        if inside.sum() > 1:
            estimates = [mean_of(column[inside]) for column in values[own].values()]
            line["intervals"] = dict(zip(values[own], bootstrap_intervals(estimates, generator, 500), strict=True))
        lines.append(line)
    return lines
