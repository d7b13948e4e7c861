"""Metrics of predicted probabilities against 0/1 labels: click, conversion, click-and-conversion.

Shapes: N rows (exposures).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

NUM_BINS: Final = 15
"""Calibration bins: equal width, [0, 1/15), [1/15, 2/15), ..., [14/15, 1]."""
_EPSILON: Final = float(np.finfo(np.float64).eps)


def classification_metrics(probabilities_N: npt.ArrayLike, labels_N: npt.ArrayLike) -> dict[str, float]:
    """Return auc, log_loss, brier, ece, num_rows and positive_rate of predicted probabilities.

    What does not apply is absent: auc when all labels are equal, everything but num_rows when there is no row.
    ValueError when shapes differ, a probability is NaN or outside [0, 1], or a label is neither 0 nor 1.

    >>> classification_metrics([0.9, 0.2, 0.2], [1, 1, 0])["auc"]
    0.75
    """
    probabilities, labels = _checked(probabilities_N, labels_N)
    if not len(labels):
        return {"num_rows": 0}
    answer: dict[str, float] = {}
    area = auc(probabilities, labels)
    if area is not None:
        answer["auc"] = area
    return answer | {
        "log_loss": log_loss(probabilities, labels),
        "brier": float(np.mean((probabilities - labels) ** 2)),
        "ece": expected_calibration_error(probabilities, labels),
        "num_rows": len(labels),
        "positive_rate": float(labels.mean()),
    }


def funnel_metrics(
    click_N: npt.ArrayLike, conversion_N: npt.ArrayLike, clicked_N: npt.ArrayLike, converted_N: npt.ArrayLike
) -> dict[str, dict[str, float]]:
    """Return `classification_metrics` of click, of conversion on clicked rows, and of both on all exposures.

    click_N: P(click | shown). conversion_N: P(conversion | click). clicked_N, converted_N: labels of every exposure;
    click_and_conversion compares the product of the probabilities with the rows that were clicked and converted
    (the entire space of Ma et al., 2018).
    """
    return {
        group: classification_metrics(probabilities, labels)
        for group, (_, probabilities, labels) in funnel_rows(click_N, conversion_N, clicked_N, converted_N).items()
    }


def funnel_rows(
    click_N: npt.ArrayLike, conversion_N: npt.ArrayLike, clicked_N: npt.ArrayLike, converted_N: npt.ArrayLike
) -> dict[str, tuple[npt.NDArray[np.bool_], FloatArray, FloatArray]]:
    """Return what `funnel_metrics` judges: by group which of the N rows, and their probabilities and labels."""
    click, clicked = _checked(click_N, clicked_N)
    conversion, converted = _checked(conversion_N, converted_N)
    mask_N, all_N = clicked == 1, np.ones(len(clicked), dtype=np.bool_)
    return {
        "click": (all_N, click, clicked),
        "conversion": (mask_N, conversion[mask_N], converted[mask_N]),
        "click_and_conversion": (all_N, click * conversion, clicked * converted),
    }


def auc(scores_N: npt.ArrayLike, labels_N: npt.ArrayLike) -> float | None:
    """Return the chance that a positive row outscores a negative one, a tie counting half, or None without both.

    In [0, 1], higher is better; the Mann-Whitney statistic over average ranks. Any real scores will do.
    ValueError for NaN scores or labels other than 0 and 1.
    """
    scores, labels = _numbers(scores_N, labels_N)
    num_positive = int(labels.sum())
    num_negative = len(labels) - num_positive
    if not num_positive or not num_negative:
        return None
    _, place_N, count_V = np.unique(scores, return_inverse=True, return_counts=True)
    average_rank_V = np.cumsum(count_V) - (count_V - 1) / 2
    rank_sum = float(average_rank_V[place_N][labels == 1].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)


def grouped_auc(scores_N: npt.ArrayLike, labels_N: npt.ArrayLike, group_N: npt.ArrayLike) -> dict[str, float]:
    """Return gauc, the mean AUC within groups (users) weighted by their rows, and gauc_groups, how many have one.

    Zhou et al. (2018). A group without a positive or without a negative row has no AUC and no weight, and neither has
    one below 0 (unknown users). What does not apply is absent: gauc without any such group. In [0, 1], higher is
    better, ties count half. The rank sums of all groups come from one sort.

    >>> grouped_auc([0.9, 0.1, 0.3, 0.4], [1, 0, 1, 0], [0, 0, 1, 1])
    {'gauc': 0.5, 'gauc_groups': 2}
    """
    scores, labels = _numbers(scores_N, labels_N)
    groups = np.asarray(group_N, dtype=np.int64)
    known = groups >= 0
    scores, labels, groups = scores[known], labels[known], groups[known]
    _, group = np.unique(groups, return_inverse=True)
    rows_G, positive_G = np.bincount(group), np.bincount(group, weights=labels)
    order = np.lexsort((scores, group))
    ordered, places = group[order], np.arange(1, len(order) + 1, dtype=np.float64)
    new = np.ones(len(order), dtype=np.bool_)
    new[1:] = (ordered[1:] != ordered[:-1]) | (scores[order][1:] != scores[order][:-1])
    tie = np.cumsum(new) - 1
    rank = np.bincount(tie, weights=places)[tie] / np.bincount(tie)[tie] if len(tie) else places
    before_G = np.cumsum(rows_G) - rows_G
    rank_sum_G = np.bincount(ordered, weights=(rank - before_G[ordered]) * labels[order], minlength=len(rows_G))
    mixed = (positive_G > 0) & (positive_G < rows_G)
    if not mixed.any():
        return {}
    positive, rows, rank_sum = positive_G[mixed], rows_G[mixed], rank_sum_G[mixed]
    area = (rank_sum - positive * (positive + 1) / 2) / (positive * (rows - positive))
    return {"gauc": float((area * rows).sum() / rows.sum()), "gauc_groups": int(mixed.sum())}


def log_loss(probabilities_N: npt.ArrayLike, labels_N: npt.ArrayLike) -> float:
    """Return the mean negative log-likelihood in nats, probabilities clipped to [2.2e-16, 1 - 2.2e-16]; 0 is best."""
    probabilities, labels = _checked(probabilities_N, labels_N)
    if not len(labels):
        raise ValueError("log_loss of no rows")
    clipped = np.clip(probabilities, _EPSILON, 1 - _EPSILON)
    return float(-np.mean(np.where(labels == 1, np.log(clipped), np.log1p(-clipped))))


def expected_calibration_error(probabilities_N: npt.ArrayLike, labels_N: npt.ArrayLike) -> float:
    """Return the mean gap between predicted and observed rate over 15 equal-width bins, weighted by rows.

    In [0, 1], 0 is best (Naeini et al., 2015). Empty bins weigh nothing. ValueError when there is no row.
    """
    table = reliability_table(probabilities_N, labels_N)
    num_rows = sum(line["num_rows"] for line in table)
    if not num_rows:
        raise ValueError("calibration error of no rows")
    return sum(line["num_rows"] * abs(line["predicted"] - line["observed"]) for line in table) / num_rows


def reliability_table(probabilities_N: npt.ArrayLike, labels_N: npt.ArrayLike) -> list[dict[str, float]]:
    """Return one line per filled bin: from, to, num_rows, predicted (mean probability), observed (positive rate).

    >>> reliability_table([0.5, 0.5], [1, 0])[0]["observed"]
    0.5
    """
    probabilities, labels = _checked(probabilities_N, labels_N)
    bins = np.minimum((probabilities * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    rows, predicted, observed = (
        np.bincount(bins, weights=weights, minlength=NUM_BINS)
        for weights in (np.ones_like(labels), probabilities, labels)
    )
    return [
        {
            "from": index / NUM_BINS,
            "to": (index + 1) / NUM_BINS,
            "num_rows": int(rows[index]),
            "predicted": float(predicted[index] / rows[index]),
            "observed": float(observed[index] / rows[index]),
        }
        for index in np.flatnonzero(rows).tolist()
    ]


def _checked(probabilities_N: npt.ArrayLike, labels_N: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    probabilities, labels = _numbers(probabilities_N, labels_N)
    if len(probabilities) and (probabilities.min() < 0 or probabilities.max() > 1):
        raise ValueError(f"probabilities in [0, 1] wanted, got {probabilities.min()} .. {probabilities.max()}")
    return probabilities, labels


def _numbers(scores_N: npt.ArrayLike, labels_N: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    scores, labels = np.asarray(scores_N, dtype=np.float64), np.asarray(labels_N, dtype=np.float64)
    if scores.shape != labels.shape or scores.ndim != 1:
        raise ValueError(f"one prediction per label wanted, got shapes {scores.shape} and {labels.shape}")
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum())} of {len(scores)} predictions are NaN")
    if not np.isin(labels, (0.0, 1.0)).all():
        raise ValueError("labels must be 0 or 1")
    return scores, labels
