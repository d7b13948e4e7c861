"""Linear baselines of the log alone: item neighbourhoods, the degree-damped filter, the linear autoencoder.

Shapes: U users, I items, N pairs of items with users in common.
"""

from __future__ import annotations

from itertools import product
from typing import Any, Final

import numpy as np
import scipy.sparse

from kgrec.evaluation.baseline_roles import BaselinesConfig, Known, LeftOutError, Scorer, Setting
from kgrec.evaluation.item_weights import ItemWeights, largest_of_each_row, yes_no_matrix
from kgrec.evaluation.pairs import Pairs
from kgrec.evaluation.ridge_inverse import RidgeInverse

_FILTER_WEIGHTS: Final = 30_000_000  # weights of the filter that are kept at most; what falls away is its smallest


class ItemKnn:
    """Cosine similarity of items over users, the best neighbours of each item kept (Deshpande and Karypis, 2004)."""

    def __init__(self, known: Known, config: BaselinesConfig) -> None:
        self._config = config
        self._together_II = _co_occurrence(known.train_UI)
        self._nearest: tuple[float, Any, Any] | None = None
        self._users_I = _users_of_items(known.train_UI)

    def settings(self) -> list[Setting]:
        """Return every pair of neighbours and shrinkage."""
        grid = product(self._config.shrinkage, self._config.neighbours)
        return [{"neighbours": neighbours, "shrinkage": shrinkage} for shrinkage, neighbours in grid]

    def fit(self, setting: Setting) -> Scorer:
        """Return the scorer: an item's score is the sum of its similarities to the history."""
        if self._nearest is None or self._nearest[0] != setting["shrinkage"]:
            self._nearest = (setting["shrinkage"], *self._ranked_neighbours(setting["shrinkage"]))
        _, nearest_II, rank_N = self._nearest
        kept = rank_N < setting["neighbours"]
        item_N, neighbour_N = _rows(nearest_II)[kept], nearest_II.indices[kept]
        return ItemWeights(scipy.sparse.csr_array((nearest_II.data[kept], (neighbour_N, item_N)), nearest_II.shape))

    def _ranked_neighbours(self, shrinkage: float) -> tuple[Any, Any]:
        """Return each item's nearest, as many as any setting takes, and their ranks: of equals the smaller row first.

        Similarity is symmetric, so an item's row serves as its column.
        """
        norms_N = np.sqrt(self._users_I[_rows(self._together_II)] * self._users_I[self._together_II.indices])
        similarity_II = self._together_II.copy()
        similarity_II.data = self._together_II.data / (norms_N + shrinkage)
        nearest_II = largest_of_each_row(similarity_II, max(self._config.neighbours))
        order_N = np.lexsort((nearest_II.indices, -nearest_II.data, _rows(nearest_II)))
        rank_N = np.empty(len(order_N), dtype=np.int64)
        rank_N[order_N] = np.arange(len(order_N)) - nearest_II.indptr[_rows(nearest_II)]
        return nearest_II, rank_N


class LinearFilter:
    """Co-occurrence over powers of the degrees, nothing trained: D_i^-a R' D_u^-b R D_i^-c without its diagonal.

    Of a large catalogue each item keeps its largest weights alone, 30 million in all.
    """

    def __init__(self, known: Known, config: BaselinesConfig) -> None:
        self._config = config
        self._train_UI = known.train_UI
        self._last: tuple[float, Any] | None = None
        self._users_I = _users_of_items(known.train_UI).clip(1)

    def settings(self) -> list[Setting]:
        """Return every triple of exponents; the one of the users varies slowest."""
        grid = product(self._config.filter_exponents, repeat=3)
        return [{"user": user, "history_item": first, "item": second} for user, first, second in grid]

    def fit(self, setting: Setting) -> Scorer:
        """Return the scorer."""
        if self._last is None or self._last[0] != setting["user"]:
            self._last = (setting["user"], _co_occurrence(self._train_UI, setting["user"]))
        together = self._last[1]
        left_I, right_I = self._users_I ** -setting["history_item"], self._users_I ** -setting["item"]
        weights_II = together.copy()
        weights_II.data = (together.data * left_I[_rows(together)] * right_I[together.indices]).astype(np.float32)
        return ItemWeights(weights_II, most=_FILTER_WEIGHTS)


class Ease:
    """The closed-form linear autoencoder with an empty diagonal (Steck, 2019)."""

    def __init__(self, known: Known, config: BaselinesConfig) -> None:
        items = known.train_UI.num_columns
        if items > config.ease_max_items:
            needed = 3 * 4 * items**2 / 2**30
            raise LeftOutError(
                f"ease inverts an items x items matrix: {items:,} items would take about {needed:.1f} GB "
                f"(limit: ease_max_items = {config.ease_max_items:,})"
            )
        self._config = config
        matrix_UI = yes_no_matrix(known.train_UI)
        self._gram = RidgeInverse(matrix_UI.T @ matrix_UI)

    def settings(self) -> list[Setting]:
        """Return the penalties."""
        return [{"lambda": penalty} for penalty in self._config.ease_lambda]

    def fit(self, setting: Setting) -> Scorer:
        """Return the scorer."""
        return ItemWeights(self._gram.weights(setting["lambda"]))


def _users_of_items(train_UI: Pairs) -> Any:
    return np.bincount(train_UI.indices.numpy(), minlength=train_UI.num_columns).astype(np.float64)


def _rows(matrix_II: Any) -> Any:
    """Return the row of each stored weight."""
    return np.repeat(np.arange(matrix_II.shape[0], dtype=np.int32), np.diff(matrix_II.indptr))


def _co_occurrence(train_UI: Pairs, user_exponent: float = 0.0) -> Any:
    """Return users in common of each pair of different items, each user weighing items ** -exponent, float64 rows."""
    matrix_UI = yes_no_matrix(train_UI)
    weights_U = train_UI.counts().clamp_min(1).numpy().astype(np.float64) ** -user_exponent
    together = scipy.sparse.csr_array(matrix_UI.T) @ (scipy.sparse.diags_array(weights_U) @ matrix_UI)
    together = scipy.sparse.csr_array(together.T)  # equal, for it is symmetric, and with its columns in order
    other_N = together.indices != _rows(together)
    ends_I1 = np.concatenate([[0], np.cumsum(other_N)])[together.indptr].astype(together.indptr.dtype)
    return scipy.sparse.csr_array((together.data[other_N], together.indices[other_N], ends_I1), shape=together.shape)
