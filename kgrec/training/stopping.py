"""Early stopping: which epoch was best, and when to give up."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Stopping:
    """What has been seen of the validation objective so far (larger is better). `after` gives the next state.

    best_epoch is -1 until a finite objective was seen. `rounds_without_gain` counts evaluations since then.
    """

    patience: int
    best_epoch: int = -1
    best_objective: float = -math.inf
    rounds_without_gain: int = 0

    def after(self, epoch: int, objective: float) -> Stopping:
        """Return the state after an evaluation. Ties keep the earlier epoch; NaN is never an improvement.

        >>> state = Stopping(patience=2).after(0, 0.3).after(1, 0.3)
        >>> state.best_epoch, state.rounds_without_gain, state.should_stop
        (0, 1, False)
        """
        if objective > self.best_objective:
            return Stopping(self.patience, epoch, objective, 0)
        return Stopping(self.patience, self.best_epoch, self.best_objective, self.rounds_without_gain + 1)

    @property
    def should_stop(self) -> bool:
        """Say whether `patience` evaluations in a row brought nothing; a patience of 0 never stops."""
        return 0 < self.patience <= self.rounds_without_gain
