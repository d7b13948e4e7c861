"""The training-free graph kernel: items that share a node of the graph with the history, hubs damped.

Shapes: I items, X links of items to nodes, B lists.
"""

from __future__ import annotations

import logging
from itertools import product
from typing import Any, Final

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from kgrec.evaluation.baseline_roles import BaselinesConfig, Known, LeftOutError, Scorer, Setting
from kgrec.evaluation.item_weights import ItemWeights
from kgrec.evaluation.pairs import Pairs

_MEETINGS: Final = 60_000_000  # pairs of items that meet at a node, over all nodes: what the product costs
logger = logging.getLogger(__name__)


class GraphKernel:
    """Cosine of the items' nodes, each weighing degree ** -exponent, summed over the history, plus log popularity."""

    def __init__(self, known: Known, config: BaselinesConfig) -> None:
        if known.item_node_X2 is None or not len(known.item_node_X2):
            raise LeftOutError("graph_kernel needs items that share a node of the graph, and no item has one")
        self._config = config
        self._incidence_IE, self.hubs_left_out = incidence(known.item_node_X2, known.train_UI.num_columns)
        counts_I = torch.bincount(known.train_UI.indices, minlength=known.train_UI.num_columns)
        self._popularity_I = log_popularity(counts_I)
        self._last: tuple[float, ItemWeights] | None = None

    def settings(self) -> list[Setting]:
        """Return every pair of exponent and weight of popularity."""
        grid = product(self._config.hub_exponents, self._config.kernel_popularity)
        return [{"hub": hub, "popularity": popularity} for hub, popularity in grid]

    def fit(self, setting: Setting) -> Scorer:
        """Return the scorer: each list's kernel scores have length 1 before popularity is added.

        A hub exponent that is asked for again, with another popularity, is worth a dense kernel, where that is held.
        """
        if self._last is not None and self._last[0] == setting["hub"]:
            self._last = setting["hub"], ItemWeights(self._last[1].matrix_II)
        else:
            self._last = None  # two kernels at once would be too many
            self._last = setting["hub"], ItemWeights(kernel_weights(self._incidence_IE, setting["hub"]), once=True)
        kernel = self._last[1]
        bias_I = setting["popularity"] * self._popularity_I

        def score(history_BI: Pairs) -> Tensor:
            return torch.nn.functional.normalize(kernel(history_BI), dim=1) + bias_I

        return score


def incidence(item_node_X2: Tensor, num_items: int) -> tuple[Any, int]:
    """Return the items x nodes matrix of ones, and how many hubs were left out.

    The nodes with most items go until the pairs of items that meet at a node are at most 60 million: a node that nearly
    all items share says nothing and costs most. An item that others link to is a node of its own, too.
    """
    links_X2 = np.unique(item_node_X2.numpy(), axis=0)
    named = np.unique(links_X2[:, 1])
    own = named[named < num_items]
    links_X2 = np.unique(np.concatenate([links_X2, np.stack([own, own], axis=1)]), axis=0)
    nodes, column_X, degree_E = np.unique(links_X2[:, 1], return_inverse=True, return_counts=True)
    order_E = np.argsort(degree_E, kind="stable")
    meetings_E = np.cumsum(degree_E[order_E].astype(np.float64) ** 2)
    keep_E = np.zeros(len(nodes), dtype=bool)
    keep_E[order_E[meetings_E <= _MEETINGS]] = True
    kept_X = keep_E[column_X]
    left_out = int((~keep_E).sum())
    if left_out:
        logger.info("graph kernel: %d hubs are left out", left_out)
    places = (links_X2[kept_X, 0], column_X[kept_X])
    return scipy.sparse.csr_array((np.ones(int(kept_X.sum())), places), shape=(num_items, len(nodes))), left_out


def kernel_weights(incidence_IE: Any, hub_exponent: float) -> Any:
    """Return the items x items kernel without its diagonal: cosine over nodes, each weighing degree ** -exponent.

    float32: it is the largest of all that is made of the graph.

    >>> links = scipy.sparse.csr_array(np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]))
    >>> kernel_weights(links, 0.0).toarray().astype(float).round(3).tolist()
    [[0.0, 0.707, 0.707], [0.707, 0.0, 0.0], [0.707, 0.0, 0.0]]
    """
    degree_E = np.maximum(incidence_IE.sum(axis=0), 1.0)
    halves_IE = incidence_IE @ scipy.sparse.diags_array(degree_E ** (-hub_exponent / 2))
    length_I = np.sqrt(np.asarray(halves_IE.multiply(halves_IE).sum(axis=1)).reshape(-1))
    unit_IE = scipy.sparse.diags_array(1.0 / np.where(length_I > 0, length_I, 1.0)) @ halves_IE
    unit_IE = unit_IE.astype(np.float32)
    kernel_II = scipy.sparse.csr_array(unit_IE @ unit_IE.T)
    kernel_II.setdiag(0.0)
    kernel_II.eliminate_zeros()
    return kernel_II


def log_popularity(counts_I: Tensor) -> Tensor:
    """Return log1p of the counts, scaled to at most 1: (I,) in [0, 1]; zeros where nothing was counted.

    >>> log_popularity(torch.tensor([0.0, 1.0, 3.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    logs_I = torch.log1p(counts_I.float())
    top = logs_I.max() if len(logs_I) else logs_I.sum()
    return logs_I / top if float(top) > 0 else logs_I
