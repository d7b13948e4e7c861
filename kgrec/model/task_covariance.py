"""A covariance between tasks, learned from their heads' weights, and the penalty by which related heads help.

Shapes: T tasks, W weights of a head. Reference: Zhang & Yeung, A Convex Formulation for Learning Task Relationships in
Multi-Task Learning, UAI 2010.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

_FLOOR: Final = 1e-4


def task_covariance(weights_TW: Tensor) -> Tensor:
    """Return the covariance of the tasks that fits the heads best, (T, T) float64: (W W')^(1/2) / its trace.

    Its trace is 1; without any weight all tasks are alike and unrelated. It is no part of any gradient.

    >>> task_covariance(torch.tensor([[1.0, 0.0], [1.0, 0.0]])).mul(1000).round().div(1000).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    weights_TW = weights_TW.detach().double()
    value_T, vector_TT = torch.linalg.eigh(weights_TW @ weights_TW.T)
    root_TT: Tensor = (vector_TT * value_T.clamp(min=0).sqrt()) @ vector_TT.T
    trace = root_TT.trace()
    if float(trace) == 0:
        return torch.eye(len(weights_TW), dtype=torch.float64) / len(weights_TW)
    return root_TT / trace


def covariance_penalty(weights_TW: Tensor) -> Tensor:
    """Return tr(W' C^-1 W), a scalar >= 0, for the covariance C that fits these weights best, held fixed.

    Its value is the square of the sum of W's singular values: heads are pulled together where they point alike anyway.
    Directions that no head uses are given a covariance of 1e-4, so that C can be inverted.
    """
    value_T, vector_TT = torch.linalg.eigh(task_covariance(weights_TW))
    inverse_TT = (vector_TT / value_T.clamp(min=_FLOOR)) @ vector_TT.T
    penalty: Tensor = ((inverse_TT.to(weights_TW.dtype) @ weights_TW) * weights_TW).sum()
    return penalty
