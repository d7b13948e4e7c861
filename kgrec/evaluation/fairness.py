"""Are groups of users served equally well, and are providers of items shown as their items deserve?

Shapes: B users, K places, I items, P providers, R rounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy.sparse
from torch import Tensor

from kgrec.evaluation.beyond_accuracy import gini
from kgrec.evaluation.item_weights import yes_no_matrix
from kgrec.evaluation.pairs import Pairs
from kgrec.evaluation.significance import LEVEL_OF_NOISE, holm

FloatArray = npt.NDArray[np.float64]
_FEWEST: Final = 10
_ROUNDS: Final = 1_999


def group_gap(values_B: FloatArray, labels_B: Sequence[str], generator: np.random.Generator) -> dict[str, Any] | None:
    """Return the gap between the best and the worst served group of users, and the chance of one as wide by luck.

    Groups under ten users are not judged; None with fewer than two others. p: share of random relabellings of the users
    with at least this gap (permutation test). Keys: lowest, highest (group and mean), gap, p.
    """
    labels = np.asarray(labels_B, dtype=object)
    names, group, size = np.unique(labels.astype(str), return_inverse=True, return_counts=True)
    judged = size >= _FEWEST
    if judged.sum() < 2:
        return None
    inside = judged[group]
    values, place = values_B[inside], (np.cumsum(judged) - 1)[group[inside]]
    names, size = names[judged], size[judged]

    def means(order: npt.NDArray[np.int64]) -> FloatArray:
        return np.bincount(place, weights=values[order], minlength=len(size)) / size

    observed = means(np.arange(len(values)))
    gap = float(np.ptp(observed))
    wide = sum(np.ptp(means(generator.permutation(len(values)))) >= gap - 1e-12 for _ in range(_ROUNDS))
    low, high = int(observed.argmin()), int(observed.argmax())
    return {
        "lowest": {"group": str(names[low]), "mean": float(observed[low])},
        "highest": {"group": str(names[high]), "mean": float(observed[high])},
        "gap": gap,
        "p": (1 + int(wide)) / (1 + _ROUNDS),
    }


def group_gaps(
    values_B: FloatArray, columns: Mapping[str, Sequence[str]], generator: np.random.Generator
) -> dict[str, dict[str, Any]]:
    """Return `group_gap` of each column that can be judged, p corrected over the columns (Holm), and "noise"."""
    found = {name: group_gap(values_B, labels, generator) for name, labels in columns.items()}
    known = {name: gap for name, gap in found.items() if gap is not None}
    corrected = holm([gap["p"] for gap in known.values()])
    return {
        name: gap | {"p": p, "noise": p > LEVEL_OF_NOISE}
        for (name, gap), p in zip(known.items(), corrected, strict=True)
    }


def provider_exposure(
    top_BK: Tensor, truth: Pairs, provider_IP: Any, candidates_I: Tensor
) -> tuple[dict[str, float], dict[str, FloatArray]]:
    """Return how exposure is spread over providers, and each provider's shares of catalogue, exposure and relevance.

    A place r from 1 exposes by 1 / log2(r + 1) (Singh and Joachims, 2018); an item of several providers counts for each
    in equal parts, one of nobody for none. exposure_gini: 0 is equal. exposure_against_catalogue and
    exposure_against_relevance: total variation distance (0 to 1) of the shares of exposure from those of the catalogue
    and of the relevant items: what has to move. Empty where nothing of a provider is shown.
    """
    shares_IP = scipy.sparse.diags_array(1.0 / np.maximum(_sums(provider_IP, 1), 1.0)) @ provider_IP
    rows, places = np.nonzero(top_BK.numpy() >= 0)
    items = top_BK.numpy()[rows, places]
    exposure_I = np.bincount(items, weights=1 / np.log2(places + 2), minlength=len(candidates_I))
    relevant_I = _sums(scipy.sparse.csr_array(yes_no_matrix(truth)), 0)
    amounts = {"catalogue": candidates_I.numpy().astype(np.float64), "exposure": exposure_I, "relevance": relevant_I}
    totals = {name: amount_I @ shares_IP for name, amount_I in amounts.items()}
    if any(not total.sum() for total in totals.values()):
        return {}, {}
    shares = {name: np.asarray(total / total.sum()) for name, total in totals.items()}
    figures = {"exposure_gini": gini(shares["exposure"]), "num_providers": int((totals["catalogue"] > 0).sum())}
    for other in ("catalogue", "relevance"):
        figures[f"exposure_against_{other}"] = float(np.abs(shares["exposure"] - shares[other]).sum() / 2)
    return figures, shares


def _sums(matrix: Any, axis: int) -> FloatArray:
    sums: FloatArray = np.asarray(matrix.sum(axis=axis), dtype=np.float64).reshape(-1)
    return sums
