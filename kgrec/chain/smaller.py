"""A model as a smaller version serves it, and what that costs on validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor

from kgrec.model.network import Network
from kgrec.serving.smaller import Precision, as_stored

SMALLER: Final = "smaller"
"""The fact of an evaluate artifact: figures of validation, each in full and as served."""


def as_served(
    network: Network, vectors: Mapping[str, Tensor], precision: Precision
) -> tuple[Network, Mapping[str, Tensor]]:
    """Return a network and vectors with the numbers that a version of this precision gives back; towers in place."""
    if precision is Precision.FULL:
        return network, vectors
    if network.towers is not None:
        network.towers.load_state_dict(as_stored(network.towers.state_dict(), precision))
    return network, as_stored(vectors, precision)


def cost_of_smaller(full: Mapping[str, Any], small: Mapping[str, Any], metric: str) -> dict[str, dict[str, float]]:
    """Return the ranking metric and each task's AUC in full and as served, by their paths such as "click/auc"."""
    paths = [("ranking", metric), *((task, "auc") for task in full if "auc" in full[task])]
    return {
        f"{part}/{name}": {"full": float(full[part][name]), "served": float(small[part][name])}
        for part, name in paths
        if name in full.get(part, {}) and name in small.get(part, {})
    }
