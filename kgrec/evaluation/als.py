"""iALS: weighted matrix factorisation for yes/no data, through the `implicit` package (the extra `als`).

Shapes: U users, I items, B lists, D factors.
"""

from __future__ import annotations

from itertools import product
from typing import Any, Final

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from kgrec.evaluation.baseline_roles import BaselinesConfig, Known, LeftOutError, Scorer, Setting
from kgrec.evaluation.item_weights import yes_no_matrix
from kgrec.evaluation.pairs import Pairs

try:
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits  # comes with implicit
except ImportError:  # an extra: without it the baseline is named as left out
    AlternatingLeastSquares = None

_SEED: Final = 7
_FEWEST_FACTORS: Final = 4


def available() -> bool:
    """Return whether the `implicit` package is installed."""
    return AlternatingLeastSquares is not None


class Ials:
    """Alternating least squares over confidences 1 + alpha (Hu, Koren and Volinsky, 2008), 15 rounds.

    A list's user vector is solved for from its history, so a user of train and a stranger are treated alike. Every
    vector is solved for alone, so the number of threads changes no bit; the matrix they share is made by one thread.
    """

    def __init__(self, known: Known, config: BaselinesConfig) -> None:
        if not available():
            raise LeftOutError('ials needs the package implicit: pip install "kgrec[als]"')
        self._config = config
        self._train_UI = scipy.sparse.csr_matrix(yes_no_matrix(known.train_UI), dtype=np.float32)

    def settings(self) -> list[Setting]:
        """Return every pair of regularisation and confidence."""
        grid = product(self._config.ials_regularisation, self._config.ials_alpha)
        return [{"regularisation": regularisation, "alpha": alpha} for regularisation, alpha in grid]

    def fit(self, setting: Setting) -> Scorer:
        """Return the scorer: the dot product of the folded-in user vector and the item vectors."""
        factors = min(self._config.ials_factors, max(_FEWEST_FACTORS, min(self._train_UI.shape) // 2))
        with threadpool_limits(1, "blas"):
            model = AlternatingLeastSquares(
                factors=factors, regularization=setting["regularisation"], alpha=setting["alpha"], num_threads=0,
                random_state=_SEED,
            )  # fmt: skip
            model.fit(self._train_UI, show_progress=False)
        items_ID = np.asarray(model.item_factors, dtype=np.float64)
        return lambda history_BI: _scores(model, items_ID, history_BI)


def _scores(model: Any, items_ID: Any, history_BI: Pairs) -> Tensor:
    history = scipy.sparse.csr_matrix(yes_no_matrix(history_BI), dtype=np.float32)
    users_BD = model.recalculate_user(np.arange(history_BI.num_rows), history).astype(np.float64)
    # In float64 and rounded, so that a list's scores do not depend on which others it is scored with.
    return (torch.from_numpy(users_BD) @ torch.from_numpy(items_ID).T).float()
