"""Baselines that every report shows beside the model, tuned on validation: the floor a model has to leave behind.

Shapes: U users, I items, B lists; train_UI and history_BI are sparse yes/no matrices (`Pairs`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final, Protocol

import numpy as np
import scipy.sparse
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from kgrec.errors import KgrecError
from kgrec.evaluation.pairs import Pairs
from kgrec.evaluation.ranking import ranking_metrics, top_k

Setting = Mapping[str, float]
_DENSE_ITEMS: Final = 6_000
_DENSE_WEIGHTS: Final = 12_500  # items up to which a sparse matrix of weights is multiplied as a dense one: .6 GB
"""Up to here an items x items matrix is cheap: float64 in ease, dense weights elsewhere."""


class BaselinesConfig(BaseModel):
    """What the baselines try on validation: [baselines]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    neighbours: tuple[int, ...] = Field(
        (20, 50, 100, 200, 400), min_length=1, description="item_knn: neighbours kept per item to try, each 1 or more."
    )
    shrinkage: tuple[float, ...] = Field(
        (0.0, 10.0), min_length=1, description="item_knn: added to the cosine's divisor, in users, each 0 or more."
    )
    ease_lambda: tuple[float, ...] = Field(
        (1.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0),
        min_length=1,
        description="ease: ridge penalties to try, in users, each above 0.",
    )
    ease_max_items: int = Field(
        8_000, ge=1, description="ease is left out of larger catalogues: it inverts an items x items matrix."
    )
    filter_exponents: tuple[float, ...] = Field(
        (0.25, 0.5),
        min_length=1,
        description="linear_filter: exponents of the degrees to try, in [0, 1].",
    )


class Scorer(Protocol):
    """A fitted baseline: scores every item for any history, also of a user it never saw."""

    def __call__(self, history_BI: Pairs) -> Tensor:
        """Return float scores_BI; higher is better."""


class Baseline(Protocol):
    """A baseline over one training matrix; work that all settings share is done once, when it is made."""

    def settings(self) -> list[Setting]:
        """Return the settings to try, in a fixed order."""

    def fit(self, setting: Setting) -> Scorer:
        """Return the scorer for one setting."""


class LeftOutError(KgrecError):
    """A baseline cannot run on this data; the message says why."""


class Popularity:
    """The items with the most training users, the same for everybody."""

    def __init__(self, train_UI: Pairs, config: BaselinesConfig) -> None:
        self._counts_I = torch.bincount(train_UI.indices, minlength=train_UI.num_columns).to(torch.float32)

    def settings(self) -> list[Setting]:
        """Return the one empty setting."""
        return [{}]

    def fit(self, setting: Setting) -> Scorer:
        """Return the scorer."""
        return lambda history_BI: self._counts_I.expand(history_BI.num_rows, -1)


class ItemKnn:
    """Cosine similarity of items over users, the best neighbours of each item kept (Deshpande and Karypis, 2004)."""

    def __init__(self, train_UI: Pairs, config: BaselinesConfig) -> None:
        self._config = config
        self._together_II = _co_occurrence(train_UI)
        self._ranked: tuple[float, Any, Any] | None = None
        self._users_I = np.bincount(train_UI.indices.numpy(), minlength=train_UI.num_columns).astype(np.float64)

    def settings(self) -> list[Setting]:
        """Return every pair of neighbours and shrinkage."""
        grid = product(self._config.shrinkage, self._config.neighbours)
        return [{"neighbours": neighbours, "shrinkage": shrinkage} for shrinkage, neighbours in grid]

    def fit(self, setting: Setting) -> Scorer:
        """Return the scorer: an item's score is the sum of its similarities to the history."""
        if self._ranked is None or self._ranked[0] != setting["shrinkage"]:
            self._ranked = (setting["shrinkage"], *self._ranked_similarity(setting["shrinkage"]))
        _, similarity_N, rank_N = self._ranked
        kept = rank_N < setting["neighbours"]
        places = (self._together_II.row[kept], self._together_II.col[kept])
        return _linear_scorer(scipy.sparse.csr_array((similarity_N[kept], places), self._together_II.shape))

    def _ranked_similarity(self, shrinkage: float) -> tuple[Any, Any]:
        """Return each pair's similarity and its rank among its column's, of equals the smaller row first."""
        rows_N, columns_N = self._together_II.row, self._together_II.col
        norms_N = np.sqrt(self._users_I[rows_N] * self._users_I[columns_N])
        similarity_N = self._together_II.data / (norms_N + shrinkage)
        order_N = np.lexsort((rows_N, -similarity_N, columns_N))
        ordered_N = columns_N[order_N]
        rank_N = np.empty(len(order_N), dtype=np.int64)
        rank_N[order_N] = np.arange(len(order_N)) - np.searchsorted(ordered_N, ordered_N)
        return similarity_N, rank_N


class LinearFilter:
    """Co-occurrence over powers of the degrees, nothing trained: D_i^-a R' D_u^-b R D_i^-c without its diagonal."""

    def __init__(self, train_UI: Pairs, config: BaselinesConfig) -> None:
        self._config = config
        self._train_UI = train_UI
        self._last: tuple[float, Any] | None = None
        self._users_I = np.bincount(train_UI.indices.numpy(), minlength=train_UI.num_columns).clip(1).astype(np.float64)

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
        data_N = together.data * left_I[together.row] * right_I[together.col]
        return _linear_scorer(scipy.sparse.csr_array((data_N, (together.row, together.col)), shape=together.shape))


class Ease:
    """The closed-form linear autoencoder with an empty diagonal (Steck, 2019)."""

    def __init__(self, train_UI: Pairs, config: BaselinesConfig) -> None:
        items = train_UI.num_columns
        if items > config.ease_max_items:
            needed = 3 * 4 * items**2 / 2**30
            raise LeftOutError(
                f"ease inverts an items x items matrix: {items:,} items would take about {needed:.1f} GB "
                f"(limit: ease_max_items = {config.ease_max_items:,})"
            )
        self._config = config
        dtype = np.float64 if items <= _DENSE_ITEMS else np.float32
        self._gram_II = torch.from_numpy((_matrix(train_UI).T @ _matrix(train_UI)).toarray().astype(dtype))

    def settings(self) -> list[Setting]:
        """Return the penalties."""
        return [{"lambda": penalty} for penalty in self._config.ease_lambda]

    def fit(self, setting: Setting) -> Scorer:
        """Return the scorer."""
        ridge_II = self._gram_II.clone()
        ridge_II.diagonal().add_(setting["lambda"])
        root_II = torch.linalg.cholesky(ridge_II)
        # The inverse through its root: cholesky_inverse is twenty times slower on a CPU.
        identity_II = torch.eye(len(root_II), dtype=root_II.dtype)
        root_inverse_II = torch.linalg.solve_triangular(root_II, identity_II, upper=False)
        inverse_II = root_inverse_II.T @ root_inverse_II
        weights_II = (inverse_II / -inverse_II.diagonal()).fill_diagonal_(0.0)
        return _linear_scorer(weights_II.numpy())


BASELINES: Final[Mapping[str, Callable[[Pairs, BaselinesConfig], Baseline]]] = {
    "popularity": Popularity,
    "item_knn": ItemKnn,
    "linear_filter": LinearFilter,
    "ease": Ease,
}
"""The registry: name in reports -> what makes the baseline from a training matrix."""


@dataclass(frozen=True)
class Tuned:
    """What tuning chose, by validation alone. tried: every setting with its validation metrics, in order of trial."""

    name: str
    setting: Setting
    scorer: Scorer
    validation: Mapping[str, float]
    tried: tuple[Mapping[str, Any], ...]


def fit(name: str, train_UI: Pairs, setting: Setting, config: BaselinesConfig | None = None) -> Scorer:
    """Return the named baseline fitted with one setting. LeftOutError when it cannot run on this data."""
    return BASELINES[name](train_UI, config or BaselinesConfig()).fit(setting)


def tune(
    name: str,
    train_UI: Pairs,
    validation_UI: Pairs,
    seen_UI: Pairs,
    *,
    ks: tuple[int, ...] = (10,),
    metric: str = "ndcg@10",
    config: BaselinesConfig | None = None,
) -> Tuned:
    """Return the setting of the named baseline to which climbing its grid on validation leads (see `climb`).

    train_UI: what is fitted and each user's history. validation_UI: relevant items. seen_UI: no candidates (at
    validation). No test data comes near this. LeftOutError when the baseline cannot run on this data.
    """
    baseline = BASELINES[name](train_UI, config or BaselinesConfig())
    users = validation_UI.counts().nonzero()[:, 0]
    if not len(users):
        raise LeftOutError(f"{name} is chosen on validation, and no user has anything relevant there")
    settings = baseline.settings()
    if not settings:
        raise LeftOutError(f"{name} has no setting to try")
    tried: dict[tuple[float, ...], tuple[Setting, Scorer, Mapping[str, float]]] = {}

    def quality(setting: Setting) -> float:
        key = tuple(setting.values())
        if key not in tried:
            scorer = baseline.fit(setting)
            tried[key] = setting, scorer, judge(scorer, users, train_UI, validation_UI, seen_UI, ks)
        return tried[key][2][metric]

    chosen = climb(settings, quality)
    setting, scorer, metrics = tried[tuple(chosen.values())]
    told = tuple({"setting": dict(one), "validation": figures} for one, _, figures in tried.values())
    return Tuned(name, setting, scorer, metrics, told)


def climb(settings: Sequence[Setting], quality: Callable[[Setting], float]) -> Setting:
    """Return a setting of the grid that no neighbour along any axis beats, from the grid's middle uphill.

    A neighbour wins only when it is strictly better, so equals keep what was tried first.
    """
    axes = {name: list(dict.fromkeys(setting[name] for setting in settings)) for name in settings[0]}
    best = {name: values[len(values) // 2] for name, values in axes.items()}
    climbing = True
    while climbing:
        climbing = False
        for name, values in axes.items():
            at = values.index(best[name])
            neighbours = [best | {name: values[n]} for n in (at + 1, at - 1) if 0 <= n < len(values)]
            for neighbour in neighbours:
                if quality(neighbour) > quality(best):
                    best, climbing = neighbour, True
    quality(best)
    return best


def judge(
    scorer: Scorer, user_rows: Tensor, history_UI: Pairs, truth_UI: Pairs, seen_UI: Pairs, ks: tuple[int, ...]
) -> dict[str, float]:
    """Return the ranking metrics of a scorer for these users, given their histories and what they have seen."""
    top_BK = top_k(lambda rows: scorer(history_UI.take(rows)), user_rows, seen_UI, max(ks))
    return ranking_metrics(top_BK, truth_UI.take(user_rows), ks)


def _matrix(pairs: Pairs, dtype: type[np.floating[Any]] = np.float64) -> Any:
    data = np.ones(len(pairs.indices), dtype=dtype)
    shape = (pairs.num_rows, pairs.num_columns)
    return scipy.sparse.csr_array((data, pairs.indices.numpy(), pairs.indptr.numpy()), shape=shape)


def _co_occurrence(train_UI: Pairs, user_exponent: float = 0.0) -> Any:
    """Return users in common of each pair of different items, each user weighing items ** -exponent, as COO."""
    matrix_UI = _matrix(train_UI)
    weights_U = train_UI.counts().clamp_min(1).numpy().astype(np.float64) ** -user_exponent
    together = (matrix_UI.T @ (scipy.sparse.diags_array(weights_U) @ matrix_UI)).tocoo()
    other = together.row != together.col
    return scipy.sparse.coo_array((together.data[other], (together.row[other], together.col[other])), together.shape)


def _linear_scorer(weights_II: Any) -> Scorer:
    weights_II = weights_II.astype(np.float32)
    if scipy.sparse.issparse(weights_II) and weights_II.shape[0] <= _DENSE_WEIGHTS:
        weights_II = weights_II.toarray()

    def score(history_BI: Pairs) -> Tensor:
        scores_BI = _matrix(history_BI, np.float32) @ weights_II
        return torch.from_numpy(scores_BI.toarray() if scipy.sparse.issparse(scores_BI) else scores_BI)

    return score
