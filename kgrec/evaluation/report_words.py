"""Names of figures, numbers and text as people read them in reports."""

from __future__ import annotations

import re
from typing import Any, Final

_PLAIN_NAMES: Final = {
    "recall": "Recall", "ndcg": "NDCG", "mrr": "MRR", "precision": "Precision", "hit": "Hit rate", "auc": "AUC",
    "log_loss": "Log loss", "ece": "Calibration error", "brier": "Brier score",
    "map": "MAP", "r_precision": "R-precision", "gauc": "AUC within users", "gauc_groups": "Users with both labels",
    "num_rows": "Rows", "hits": "Hits",
    "positive_rate": "Positive rate", "num_triples": "Triples", "num_users": "Users",
    "num_users_without_relevant": "Users without relevant items",
}  # fmt: skip
EXPLANATIONS: Final = {
    "recall": "share of what the user went on to choose that is in the list",
    "ndcg": "like recall, but a hit counts more the higher it stands; 1 is a perfect list",
    "mrr": "one over the place of the first hit: .5 means second place",
    "hit": "share of users with at least one hit",
    "precision": "share of the list that is hits",
    "map": "mean over the relevant items of the precision where each stands; 0 for one that is not in the list",
    "r_precision": "share of the relevant items that stand in as many first places as there are relevant items",
    "gauc": "the same within each user, weighted by the user's rows: what a user's own list gains",
    "auc": "chance that a positive row gets the higher probability than a negative one; .5 is guessing",
    "log_loss": "how surprised the predicted probabilities are by what happened; lower is better",
    "brier": "mean squared error of the probabilities; lower is better",
    "ece": "average gap between predicted and observed rate; lower is better",
    "positive_rate": "how often it happens at all",
    "hits": "share of missing ends of triples that are guessed within the first places",
}


def plain_name(metric: str) -> str:
    """Return a metric's name for people: "ndcg@10" becomes "NDCG@10"."""
    name, at, k = metric.partition("@")
    return _PLAIN_NAMES.get(name, name.replace("_", " ")) + at + k


def decimals(value: Any) -> str:
    """Return a figure for people: .131, 1,234, or the text itself.

    >>> decimals(0.1308), decimals(12345), decimals(12.34)
    ('.131', '12,345', '12.3')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or value == 0 or (float(value).is_integer() and abs(value) >= 2):
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:,.1f}"
    text = f"{value:.3f}" if abs(value) >= 0.01 else f"{value:.5f}"
    return re.sub(r"^(-?)0\.", r"\1.", text)


def plain_text(text: str) -> str:
    """Return text that neither Markdown nor HTML reads as markup."""
    escaped = re.sub(r"([\\`*_\[\]|#])", r"\\\1", str(text)).replace("&", "&amp;").replace("<", "&lt;")
    return " ".join(escaped.split())


def chance_words(p: float) -> str:
    """Return a p-value for people.

    >>> chance_words(0.0001), chance_words(0.2)
    ('p < .001', 'p = .200')
    """
    return "p < .001" if p < 0.001 else f"p = {decimals(round(p, 3))}"
