"""Where a user stands among the items: the trained row, moved by what the user had since, or the history alone.

Axes: D trained dimensions, W = D + 1 served dimensions, H items of a history.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from kgrec.serving.index import Floats, Rows

_LEAST: Final = 1e-12


class Placing:
    """Places users by the tensors of a version. trained_U: the users whose own row was trained."""

    def __init__(self, vectors: Mapping[str, Any], trained_U: Rows) -> None:
        self._table_UW: Floats = vectors["user_vectors_UD"]
        self._own_UD: Floats | None = vectors.get("user_own_UD")
        self._fold_ID: Floats = vectors["item_fold_ID"]
        self._constant = "block_widths" in vectors
        self.trained_U = trained_U.astype(bool)

    def vector(self, row: int | None, history_H: Rows) -> Floats | None:
        """Return a user's vector, (W,), from the own row where it was trained and the history; None for neither.

        As `kgrec.model.network.placed_users` places many at once.
        """
        trained = row is not None and bool(self.trained_U[row])
        if trained and self._own_UD is None:
            return self._table_UW[row]
        vector_D = self._fold_ID[history_H].sum(axis=0) / np.float32(max(1, len(history_H)) ** 0.5)
        if trained and self._own_UD is not None:
            vector_D += self._own_UD[row]
        if not vector_D.any():
            return None
        vector_D /= max(float(np.linalg.norm(vector_D)), _LEAST)
        return np.append(vector_D, np.float32(1.0)) if self._constant else vector_D
