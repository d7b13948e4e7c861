"""What each feature is worth to a trained model: how much worse it judges when the feature's values are shuffled.

Axes: N rows, F numeric and C categorical columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kgrec.evaluation.classification import auc

Array = npt.NDArray[Any]
Judged = Callable[[Array, Array], Mapping[str, float]]
TELLS_ALL: Final = 0.99
"""A single column that orders the labels this well is taken for a leak."""
HARM: Final = 0.0005
"""A feature is said to hurt when the mean AUC rises by more than this without its values."""


@dataclass(frozen=True)
class Columns:
    """The columns that belong to one feature: its number, the indicator that it is missing, its shares, its code."""

    numeric: tuple[int, ...]
    categorical: tuple[int, ...]


def columns_by_feature(numeric: Sequence[str], categorical: Sequence[str]) -> dict[str, Columns]:
    """Return which encoded columns each feature has, features in the order of the columns.

    >>> columns_by_feature(["age", "age:missing", "last=x"], ["tab"])["age"]
    Columns(numeric=(0, 1), categorical=())
    """
    found: dict[str, tuple[list[int], list[int]]] = {}
    for at, name in enumerate(numeric):
        found.setdefault(name.removesuffix(":missing").partition("=")[0], ([], []))[0].append(at)
    for at, name in enumerate(categorical):
        found.setdefault(name, ([], []))[1].append(at)
    return {name: Columns(tuple(numbers), tuple(codes)) for name, (numbers, codes) in found.items()}


def permutation_importance(
    judged: Judged, numeric_NF: Array, categorical_NC: Array, features: Mapping[str, Columns],
    generator: np.random.Generator,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Return per feature and figure how much the figure falls when the feature's rows are shuffled among each other.

    judged: figures (larger is better) of the model on these columns. One order is drawn and used for all features;
    columns of a feature move together. About 0: the model does without it. Below 0: it hurts here. Breiman, Random
    Forests (2001), section 10, on held-out rows.
    """
    order = generator.permutation(len(numeric_NF))
    whole = judged(numeric_NF, categorical_NC)
    found = {}
    for name, columns in features.items():
        numbers, codes = numeric_NF.copy(), categorical_NC.copy()
        for at in columns.numeric:
            numbers[:, at] = numeric_NF[order, at]
        for at in columns.categorical:
            codes[:, at] = categorical_NC[order, at]
        without = judged(numbers, codes)
        found[name] = {figure: whole[figure] - without[figure] for figure in whole if figure in without}
    return found


def telling_columns(numeric_NF: Array, names: Sequence[str], labels: Mapping[str, Array]) -> dict[str, float]:
    """Return the numeric columns that order a label almost perfectly all by themselves, with that AUC: likely leaks."""
    found: dict[str, float] = {}
    for at, name in enumerate(names):
        for label_N in labels.values():
            area = auc(numeric_NF[:, at], label_N)
            if area is not None and max(area, 1 - area) >= TELLS_ALL:
                found[name] = max(found.get(name, 0.0), area, 1 - area)
    return found


def mean_importance(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return each feature's importance averaged over the figures, the most important first; ties by name."""
    means = {name: float(np.mean(list(falls.values()))) for name, falls in found.items() if falls}
    return dict(sorted(means.items(), key=lambda pair: (-pair[1], pair[0])))
